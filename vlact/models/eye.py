"""ActionVLM's vision encoder where it is trained with the rest: frames of a window to a feature a
step (E_vis).

It is AdaTAD's tower, VideoMAE on clips of sixteen frames, without adapters; all of it is trained,
with activations computed again in the backward pass, so that a window of many clips keeps only the
inputs of blocks.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vlact.models import files
from vlact.models.adatad import Tower, TowerConfig
from vlact.models.checkpoints import VideoMAE


class Eye(nn.Module):
    """Frames (B, T, scale, H, W, 3) to features (B, T, D).

    Args:
        tower: Sees them.
        scale: Frames of a step; T x scale is a multiple of the tower's `num_frames`.
    """

    def __init__(self, tower: Tower, scale: int):
        super().__init__()
        self.tower, self.scale = tower, scale

    def forward(self, frames: Tensor) -> Tensor:
        seen = self.tower(frames.flatten(1, 2))
        if seen.shape[1] == frames.shape[1]:
            return seen
        # a token's frames lie between two tokens' middles
        return interpolate(seen.transpose(1, 2), frames.shape[1], mode="linear").transpose(1, 2)

    def features(self, frames: Tensor) -> Tensor:
        """As `forward`, of frames one after the other (B, T scale, H, W, 3)."""
        return self(frames.unflatten(1, (-1, self.scale)))

    def save(self, path: str | Path) -> None:
        """Weights and shape as one safetensors file."""
        note = {"scale": self.scale, "tower": asdict(self.tower.config)}
        files.save(path, "eye", note, self.state_dict())

    @classmethod
    def load(cls, path: str | Path) -> "Eye":
        """Read what `save` wrote.

        Raises:
            ValueError: Another file, or one whose weights do not fit its shape.
        """
        note, state = files.read(path, "eye")
        note = files.checked(note, {"scale": int, "tower": dict}, path, "eye")
        config = files.config_of(TowerConfig, note["tower"], path)
        return files.built(lambda: cls(Tower(config), note["scale"]), state, path)


def tower_of(encoder: VideoMAE, dropout: float = 0.0, save_memory: bool = True) -> Tower:
    """A tower with the weights of a published VideoMAE, whose answers it gives.

    Args:
        encoder: See `vlact.models.checkpoints.VideoMAE.load`.
        dropout: Of paths, in training.
        save_memory: Whether activations are computed again in the backward pass.
    """
    c, given = encoder.config, encoder.model.state_dict()
    shape = TowerConfig(
        dim=c.hidden_size,
        depth=c.num_hidden_layers,
        heads=c.num_attention_heads,
        mlp_ratio=c.intermediate_size / c.hidden_size,
        patch=c.patch_size,
        tubelet=c.tubelet_size,
        num_frames=c.num_frames,
        image_size=c.image_size,
        dropout=dropout,
        adapted=False,
    )
    pairs = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.layers.0.0": "intermediate.dense",
        "mlp.layers.1": "output.dense",
    }
    state = {"patch_embed.projection": "videomae.embeddings.patch_embeddings.projection"}
    state |= {"fc_norm": "fc_norm"}
    for i in range(shape.depth):
        state |= {f"blocks.{i}.{a}": f"videomae.encoder.layer.{i}.{b}" for a, b in pairs.items()}
    found = {f"{a}.{k}": given[f"{b}.{k}"] for a, b in state.items() for k in ("weight", "bias")}
    for i in range(shape.depth):
        inside = f"videomae.encoder.layer.{i}.attention.attention."
        parts = [given[f"{inside}{k}.weight"] for k in ("query", "key", "value")]
        found[f"blocks.{i}.attn.qkv.weight"] = torch.cat(parts)
        for k in ("query", "value"):
            found[f"blocks.{i}.attn.{k[0]}_bias"] = given[f"{inside}{k}.bias"]
    tower = Tower(shape, save_memory)
    return files.fill(tower, found, "a VideoMAE", lambda name: name == "pos_embed")
