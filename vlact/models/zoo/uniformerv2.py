"""UniFormerV2 (ICCV 2023): CLIP's image tower between local and global temporal blocks.

Before each spatial attention and each MLP a depthwise convolution along time relates neighbouring
frames; at the last blocks a query reads all tokens of the clip by cross attention and goes from one
to the next. Its answer and the mean class token are weighed channel by channel. Everything is
trained. The published model for Kinetics has no local blocks (`local=False`), that for
Something-Something has them. All that is new adds nothing at first. Where the tower pools patches
instead of a class token, as the rendered profiles' does, their mean stands for it. Stochastic depth
is left out.
"""

import torch
from torch import Tensor, nn

from vlact.models.frames import FrameEncoder
from vlact.models.zoo.aim import OverCLIP
from vlact.runtime.extras import needs

with needs("vlact.models.zoo.uniformerv2"):
    from open_clip.transformer import QuickGELU

LATE, NARROW = 4, 1.5  # blocks that the query reads; reduction of channels in local blocks


def zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Local(nn.Module):
    """Relates each patch to itself in the frames before and after: tokens (B, T, 1 + P, D) to the
    same, class tokens as they were.
    """

    def __init__(self, dim: int):
        super().__init__()
        inner = int(dim / NARROW)
        self.norm, self.inside = nn.BatchNorm1d(dim), nn.Linear(dim, inner)
        self.along, self.out = (
            nn.Conv1d(inner, inner, 3, padding=1, groups=inner),
            zeroed(nn.Linear(inner, dim)),
        )

    def forward(self, x: Tensor) -> Tensor:
        cls, x = x[:, :, :1], x[:, :, 1:]
        b, _, p, _ = x.shape
        y = self.norm(x.flatten(0, 2)).view_as(x)
        y = self.inside(y).permute(0, 2, 3, 1).flatten(0, 1)
        return torch.cat(
            [cls, x + self.out(self.along(y).unflatten(0, (b, p)).permute(0, 3, 1, 2))], 2
        )


class Global(nn.Module):
    """A query (B, 1, D) reads all tokens (B, T, 1 + P, D) of a clip, to which their neighbourhood
    was added.
    """

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.near = nn.Conv3d(dim, dim, 3, padding=1, groups=dim)
        self.norm_q, self.norm_x, self.norm = (
            nn.LayerNorm(dim),
            nn.LayerNorm(dim),
            nn.LayerNorm(dim),
        )
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim),
            QuickGELU(),
            nn.Dropout(dropout),
            zeroed(nn.Linear(4 * dim, dim)),
        )
        nn.init.zeros_(self.near.bias)
        zeroed(self.attention.out_proj)

    def forward(self, query: Tensor, x: Tensor) -> Tensor:
        side = round((x.shape[2] - 1) ** 0.5)
        grid = x[:, :, 1:].unflatten(2, (side, side)).permute(0, 4, 1, 2, 3)
        # slow in bf16 on CPUs
        with torch.autocast(x.device.type if x.device.type != "meta" else "cpu", enabled=False):
            near = self.near(grid.float()).permute(0, 2, 3, 4, 1).flatten(2, 3)
        x = self.norm_x(torch.cat([x[:, :, :1], x[:, :, 1:] + near], 2).flatten(1, 2))
        query = query + self.attention(self.norm_q(query), x, x, need_weights=False)[0]
        return query + self.mlp(self.norm(query))


class UniFormerV2(OverCLIP):
    """115 M parameters at full size without local blocks (ViT-B/16, 400 classes).

    Args:
        classes: Of the head.
        clip: Pretrained frame encoder; fine-tuned in place, but for its patch embedding.
        local: Whether there are local blocks.
        dropout: Before the head, and in the query's MLPs.
    """

    def __init__(self, classes: int, clip: FrameEncoder, local: bool = True, dropout: float = 0.5):
        super().__init__(clip)
        dim, depth, heads = clip.config.dim, clip.config.depth, clip.config.heads
        clip.visual.transformer.requires_grad_()
        self.locals = (
            nn.ModuleList(nn.ModuleList((Local(dim), Local(dim))) for _ in range(depth))
            if local
            else [()] * depth
        )
        self.query = nn.Parameter(torch.zeros(1, 1, dim))
        self.globals = nn.ModuleList(Global(dim, heads, dropout) for _ in range(min(LATE, depth)))
        self.balance, self.norm = nn.Parameter(torch.zeros(dim)), nn.LayerNorm(dim)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(dim, classes)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C)."""
        x = self.clip.first(clips, 0)
        shape, query, first = (
            x.shape[:2],
            self.query.expand(len(x), -1, -1),
            self.clip.config.depth - len(self.globals),
        )
        for i, (block, near) in enumerate(
            zip(self.clip.visual.transformer.resblocks, self.locals, strict=True)
        ):
            x = (near[0](x) if near else x).flatten(0, 1)
            x = (x + block.attention(block.ln_1(x))).unflatten(0, shape)
            x = (near[1](x) if near else x).flatten(0, 1)
            x = (x + block.mlp(block.ln_2(x))).unflatten(0, shape)
            if i >= first:
                query = self.globals[i - first](query, x)
        pooled, share = (
            self.clip.visual._global_pool(x.flatten(0, 1))[0].unflatten(0, shape).mean(1),
            self.balance.sigmoid(),
        )
        return self.head(self.dropout(self.norm(share * pooled + (1 - share) * query[:, 0])))
