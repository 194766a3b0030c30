"""X-CLIP (ECCV 2022): frames exchange messages inside CLIP's image tower, and a clip adds its own
prompt to each name.

Every block makes a message of each frame's class token; the messages attend to each other and stand
beside the patches while the frame attends to itself. A transformer integrates the frames. A class
name reads the mean patch tokens of the clip by cross attention, and what it reads, scaled, is added
to it. Trained: all but text trunk and patch embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vlact.models.frames import FrameEncoder
from vlact.models.zoo import Kept, Recognizer, every
from vlact.runtime.extras import needs

with needs("vlact.models.zoo.xclip"):
    from open_clip.transformer import QuickGELU, Transformer

READERS, SCALE = 2, 1e-4  # layers of the prompt generator; weight of a prompt at first


class Messages(nn.Module):
    """What frames tell each other: their class tokens (B, T, D) to as many messages."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.make, self.norm = nn.Linear(dim, dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        message = self.make(tokens)
        y = self.norm(message)
        return message + self.attention(y, y, y, need_weights=False)[0]


class Integrate(nn.Module):
    """Frame embeddings (B, T, D) to the clip's: each plus what a transformer over all of them says,
    averaged.
    """

    def __init__(self, dim: int, frames: int):
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(frames, dim))
        self.blocks = Transformer(dim, 1, max(1, dim // 64), act_layer=QuickGELU)

    def forward(self, frames: Tensor) -> Tensor:
        return (frames + self.blocks(frames + self.position)).mean(1)


class Reads(nn.Module):
    """Names (B, C, D) read patches (B, P, D) by cross attention, whose queries, keys and values
    have no biases.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)
        self.attention.out_proj.bias = nn.Parameter(torch.zeros(dim))
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), QuickGELU(), nn.Linear(4 * dim, dim))

    def forward(self, names: Tensor, patches: Tensor) -> Tensor:
        names = names + self.attention(self.norm(names), patches, patches, need_weights=False)[0]
        return names + self.mlp(self.norm_mlp(names))


class XCLIP(Recognizer):
    """131.5 M parameters at full size (ViT-B/16, CLIP's text tower without its token table).

    Args:
        clip: Pretrained frame encoder; fine-tuned in place, but for its patch embedding.
        words, base, tau: See `Recognizer`.
    """

    def __init__(self, clip: FrameEncoder, words: dict[str, Tensor], base: list[str], tau: float):
        super().__init__(words, base, tau)
        config = clip.config
        self.clip = clip
        self.messages = nn.ModuleList(
            Messages(config.dim, config.heads) for _ in range(config.depth)
        )
        self.integrate = Integrate(config.embed_dim, config.num_frames)
        self.patches = nn.Sequential(
            nn.LayerNorm(config.dim), nn.Linear(config.dim, config.embed_dim, bias=False)
        )
        self.seen = nn.LayerNorm(config.embed_dim)
        self.readers = nn.ModuleList(
            Reads(config.embed_dim, max(1, config.embed_dim // 64)) for _ in range(READERS)
        )
        self.scale = nn.Parameter(torch.full((config.embed_dim,), SCALE))

    def frozen_features(self, clips: Tensor) -> Kept:
        return {"tokens": self.clip.first(clips, 0)}

    def trained(self):
        visual = self.clip.visual
        parts = [
            visual.transformer,
            visual.ln_post,
            self.messages,
            self.integrate,
            self.patches,
            self.seen,
            self.readers,
            self.clip.text_projection,
        ]
        return [pair for part in parts for pair in every(part)] + [
            (p.requires_grad_(), 1.0) for p in (visual.proj, self.scale)
        ]

    def encode(self, kept: Kept) -> Kept:
        x, shape = kept["tokens"], kept["tokens"].shape[:2]
        for block, messages in zip(
            self.clip.visual.transformer.resblocks, self.messages, strict=True
        ):
            told = messages(x[:, :, 0]).unsqueeze(2)
            x = block(torch.cat([x, told.to(x.dtype)], 2).flatten(0, 1))[:, :-1].unflatten(0, shape)
        pooled = self.clip.visual._pool(x.flatten(0, 1))[0] @ self.clip.visual.proj
        video = self.integrate(pooled.unflatten(0, shape)).float()
        return {"video": normalize(video, dim=-1), "patches": self.patches(x[:, :, 1:]).mean(1)}

    def embed(self, kept: Kept) -> Tensor:
        return self.encode(kept)["video"]

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Not of unit length before a clip has added to them."""
        return self.clip.text_projection(torch.stack([self.words[t] for t in texts]))

    def similarity(self, seen: Kept, names: list[list[str]]) -> Tensor:
        text = self.actions(names).expand(len(seen["video"]), -1, -1)
        read, patches = text, self.seen(seen["patches"])
        for reader in self.readers:
            read = reader(read, patches)
        text = normalize((text + self.scale * read).float(), dim=-1)
        return torch.einsum("bd,bcd->bc", seen["video"], text)
