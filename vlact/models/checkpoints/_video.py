"""Encoders of clips, whichever family a file is of."""

from pathlib import Path

from torch import nn

from vlact.models.checkpoints._internvideo2 import internvideo2
from vlact.models.checkpoints._videomae import VideoMAE
from vlact.models.weights import read


class VideoEncoder:
    """A published encoder of clips, for `vlact.training.features.extract`, whichever the file is
    of.
    """

    @staticmethod
    def load(path: str | Path) -> nn.Module:
        """VideoMAE's or InternVideo2's, told apart by the names in the file.

        Raises:
            FileNotFoundError, ValueError: See `read`, `videomae` and `internvideo2`.
        """
        return (
            internvideo2(path).eval()
            if any("clip_projector" in k for k in read(path))
            else VideoMAE.load(path)
        )
