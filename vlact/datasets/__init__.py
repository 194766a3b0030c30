"""Readers of real datasets: each file turns one dataset's own layout into the annotation table of
`vlact.schema`.
"""
