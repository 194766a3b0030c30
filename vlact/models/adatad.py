"""AdaTAD (CVPR 2024): end-to-end localization through a frozen video encoder with small temporal
adapters.

An adapter after every block narrows the tokens, mixes each patch position over time, and adds the
result (Eq. 2-3); it starts as the identity. Only adapters and localizer are trained. Frames go
through the encoder in clips that do not overlap; a feature is the mean of a frame's tokens.

Simplified: in the authors' code adapters mix over the whole clip that a localizer sees, the encoder
is VideoMAE or InternVideo2 under other names, and rates differ; their checkpoints cannot be loaded.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlact.models.dual import DualEncoder


class Adapter(nn.Module):
    """Tokens (B, 1 + P T, D), positions outside and time inside, to the same.

    Args:
        dim: D.
        ratio: Width inside, as a share of D.
        kernel: Of the convolution over time.
    """

    def __init__(self, dim: int, ratio: float = 0.25, kernel: int = 3):
        super().__init__()
        inside = max(1, round(dim * ratio))
        self.down, self.up = nn.Linear(dim, inside), nn.Linear(inside, dim)
        self.conv = nn.Conv1d(inside, inside, kernel, padding=kernel // 2, groups=inside)
        self.mix = nn.Linear(inside, inside)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor, frames: int) -> Tensor:
        y = nn.functional.gelu(self.down(tokens))
        paths = y[:, 1:].unflatten(1, (-1, frames))  # (B, P, T, D')
        mixed = (
            self.conv(paths.flatten(0, 1).transpose(1, 2))
            .transpose(1, 2)
            .unflatten(0, paths.shape[:2])
        )
        y = torch.cat([y[:, :1], (paths + self.mix(mixed)).flatten(1, 2)], 1)
        return tokens + self.up(y)


class EndToEnd(nn.Module):
    """Frames to what a localizer says of them.

    Args:
        encoder: Pretrained; frozen here.
        localizer: `ActionFormer` or `TriDet` on `encoder.config.dim` features.
        stride: Frames from one feature to the next.
        ratio: See `Adapter`.
        save_memory: Compute each block's activations again in the backward pass instead of keeping
            them.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        localizer: nn.Module,
        stride: int = 1,
        ratio: float = 0.25,
        save_memory: bool = False,
    ):
        super().__init__()
        self.encoder, self.localizer, self.stride, self.save_memory = (
            encoder.requires_grad_(False),
            localizer,
            stride,
            save_memory,
        )
        self.adapters = nn.ModuleList(
            Adapter(encoder.config.dim, ratio) for _ in range(encoder.config.depth)
        )

    @property
    def config(self):
        """Of the localizer."""
        return self.localizer.config

    @property
    def positives(self) -> Tensor:
        """Of the localizer."""
        return self.localizer.positives

    def train(self, mode: bool = True) -> "EndToEnd":
        super().train(mode)
        self.encoder.eval()  # frozen: no dropout, no running statistics
        return self

    def features(self, frames: Tensor) -> Tensor:
        """uint8 frames (B, F, H, W, 3) to features (B, F / stride, D).

        Raises:
            ValueError: F is no multiple of the encoder's frames.
        """
        clip = self.encoder.config.num_frames
        if frames.shape[1] % clip:
            raise ValueError(
                f"frames must be a multiple of the encoder's {clip}; got {frames.shape[1]}"
            )
        tokens = self.encoder.first(frames.unflatten(1, (-1, clip)).flatten(0, 1), 0)
        for layer, adapter in zip(self.encoder.trunk.encoder.layer, self.adapters, strict=True):

            def block(x: Tensor, layer=layer, adapter=adapter) -> Tensor:
                return adapter(layer(x)[0], clip)

            tokens = (
                checkpoint(block, tokens, use_reentrant=False)
                if self.save_memory and self.training
                else block(tokens)
            )
        tokens = self.encoder.trunk.layernorm(tokens)[:, 1:].unflatten(1, (-1, clip)).mean(1)
        return tokens.unflatten(0, (len(frames), -1)).flatten(1, 2)[:, :: self.stride]

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames, those of each step (B, T, stride, H, W, 3), and valid steps (B, T) to what the
        localizer returns.
        """
        return self.localizer(self.features(frames.flatten(1, 2)).float(), mask)
