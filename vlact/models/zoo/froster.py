"""FROSTER (ICLR 2024): frozen CLIP teaches a video model not to forget what it knew of names.

The video model is CLIP with ST-Adapters (a bottleneck with a depthwise convolution along time
before each block). Its clip and name embeddings, behind residual projectors x + 0.1 P(x) with P
zero at first, are drawn to those of frozen CLIP (cosine), beside cross entropy over the names.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from vlact.models.frames import FrameEncoder
from vlact.models.zoo import Kept, Recognizer, every

NARROW, RESIDUAL = 2, 0.1


class STAdapter(nn.Module):
    """Tokens (B, T, 1 + P, D) to what is added to the patches; zero at first."""

    def __init__(self, dim: int):
        super().__init__()
        inner = dim // NARROW
        self.down, self.up = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.along = nn.Conv1d(inner, inner, 3, padding=1, groups=inner)
        for zero in (self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        b, _, p, _ = x.shape
        y = self.down(x).permute(0, 2, 3, 1).flatten(0, 1)
        return self.up(self.along(y).unflatten(0, (b, p)).permute(0, 3, 1, 2))


class Residual(nn.Module):
    """x + 0.1 P(x), P of two layers, the last of them zero at first."""

    def __init__(self, dim: int):
        super().__init__()
        self.inside, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + RESIDUAL * self.out(nn.functional.gelu(self.inside(x)))


class FROSTER(Recognizer):
    """CLIP with ST-Adapters and its frozen self beside it.

    Args:
        clip: Pretrained frame encoder; its image tower is frozen, the text projection is trained.
        words, base, tau: See `Recognizer`.
        distill: Weight of both cosine losses.
    """

    def __init__(
        self,
        clip: FrameEncoder,
        words: dict[str, Tensor],
        base: list[str],
        tau: float,
        distill: float = 1.0,
    ):
        super().__init__(words, base, tau)
        self.clip, self.distill = clip, distill
        self.adapters = nn.ModuleList(STAdapter(clip.config.dim) for _ in range(clip.config.depth))
        self.teacher = copy.deepcopy(clip).requires_grad_(False).eval()
        self.project_video, self.project_text = (
            Residual(clip.config.embed_dim),
            Residual(clip.config.embed_dim),
        )

    def frozen_features(self, clips: Tensor) -> Kept:
        tokens = {"tokens": self.clip.first(clips, 0)}
        if not self.training:  # the teacher serves training only
            return tokens
        with torch.no_grad():
            return tokens | {"taught": self.teacher(clips)}

    def trained(self):
        parts = [self.adapters, self.project_video, self.project_text, self.clip.text_projection]
        return [pair for part in parts for pair in every(part)]

    def embed(self, kept: Kept) -> Tensor:
        x, shape = kept["tokens"], kept["tokens"].shape[:2]
        for block, adapter in zip(
            self.clip.visual.transformer.resblocks, self.adapters, strict=True
        ):
            x = torch.cat([x[:, :, :1], x[:, :, 1:] + adapter(x[:, :, 1:])], 2)
            x = block(x.flatten(0, 1)).unflatten(0, shape)
        pooled = (self.clip.visual._pool(x.flatten(0, 1))[0] @ self.clip.visual.proj).unflatten(
            0, shape
        )
        return normalize(normalize(pooled.float(), dim=-1).mean(1), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        return self.clip.embed_text(torch.stack([self.words[t] for t in texts]))

    def loss(self, kept: Kept, labels: Tensor) -> Tensor:
        video, text = self.embed(kept), self.actions(self.base)
        names = [n for ns in self.base for n in ns]
        said = self.teacher.embed_text(torch.stack([self.words[n] for n in names]))
        far = (
            1
            - cosine_similarity(
                self.project_video(video).float(), kept["taught"].float(), dim=-1
            ).mean()
        )
        far = (
            far
            + 1
            - cosine_similarity(
                self.project_text(self.embed_texts(names)).float(), said.float(), dim=-1
            ).mean()
        )
        return cross_entropy(self.logit_scale * video @ text.T, labels) + self.distill * far
