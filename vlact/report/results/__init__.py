"""Where every reported number is computed, one file a paper.

The `keep_..` functions turn what a stage left (predictions, the grid's scores) into score tables
beside its tables and figures. `ace.Ace`, `actionvlm.ActionVLM`, `transfer.Transfer` and
`across.Across` make all else from these alone: the notebooks' tables, the numbers behind figures,
the ledger's parts. They need no prediction, so that published folders suffice.
"""
