"""Pred-DETR (AAAI 2025), simplified: a detection transformer whose queries attend to each other as
their predictions overlap.

Left to themselves the decoder's attentions collapse: every query looks at the same few. The
feedback asks that the self-attention of each layer be the IoU of the predicted segments, rows to
one (KL divergence); at test nothing changes.

There is no public code that was found. Otherwise than in the paper, the feedback is on
self-attention alone: the network is DiGIT's, whose cross-attention is deformable and has no map
over all steps that could be compared, and proposals of the encoder guide nothing; its weight is 1.
"""

from dataclasses import dataclass

from torch import Tensor

from vlact.models.digit import DiGIT, DiGITConfig, Guess, overlaps

FEEDBACK_WEIGHT = 1.0
LEAST = 1e-6  # of a share, so that its logarithm is finite


@dataclass(frozen=True)
class PredDETRConfig(DiGITConfig):
    """Shape of Pred-DETR here, DiGIT's."""


class PredDETR(DiGIT):
    """As `DiGIT`, with feedback."""

    def __init__(self, config: PredDETRConfig):
        super().__init__(config)
        for layer in self.transformer.decoder.layers:
            layer.watched = True

    def more(self, layers: list[Guess]) -> Tensor:
        """The feedback, mean over layers, videos and queries."""
        last, total = layers[-1], 0.0
        for b, valid in enumerate(last.valid):
            ends = last.ends[b, valid].detach()
            wanted = overlaps(ends, ends).nan_to_num()
            wanted = wanted / wanted.sum(-1, keepdim=True).clamp(min=LEAST)
            for layer in self.transformer.decoder.layers:
                seen = layer.looked[b][valid][:, valid]
                apart = (wanted.clamp(min=LEAST) / seen.clamp(min=LEAST)).log()
                total = total + (wanted * apart).sum(-1).mean()
        return FEEDBACK_WEIGHT * total / (len(last.valid) * len(layers))
