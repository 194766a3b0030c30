"""LaViLa (CVPR 2023): a dual encoder pretrained on narrated egocentric video, both sides trained.

Its narrations are rephrased by a language model; in the rendered worlds each clip of the vlog
corpus is narrated by words drawn afresh (`vlact.training.pretraining.narrate`). Fine-tuning trains
the video blocks and the text projection with the softmax over the labels, as ACE's Table 6 compares
it.
"""

from vlact.models.zoo.procvlr import ProcVLR


class LaViLa(ProcVLR):
    """`ProcVLR` with a trained text side, on the encoder that the vlog corpus pretrained."""
