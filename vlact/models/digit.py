"""DiGIT (CVPR 2025): set prediction, as many segments as there are queries and no NMS.

Gated convolutions of two dilations encode features at full length; halved again and again they are
the levels that queries look at. Half of all points, the likeliest ones, become queries; layers of
the decoder refine their segments, looking at points inside a segment and around its borders
(deformable attention).

Parameters have the names of the authors' code (Dotori-HJ/DiGIT, commit bed9433); those that it
never uses are left out, see `UNUSED`. Left out are also options that its configurations switch off:
distances by DIoU, noise, proposals that the encoder moves. Times inside are seconds, as positions
depend on them; what comes in and goes out are steps.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate, one_hot, pad, silu

from vlact.losses.localization import focal
from vlact.models import files
from vlact.models.actionformer import WAVELENGTH, ChannelNorm, Conv, LocalizerConfig
from vlact.models.localizer_checkpoints import read
from vlact.runtime.extras import needs

with needs("vlact.models.digit"):
    from scipy.optimize import linear_sum_assignment

NEVER = -5e4  # score of a point that is padded
NO_MATCH = 1e6  # cost of a query that is padded
CLASS_COST, IOU_COST, ENCODER_CLASS_COST = 2.0, 2.0, 1.0  # of matching
CLASS_WEIGHT, IOU_WEIGHT = 2.0, 2.0  # of the loss
SURE, EVEN = 2.0, 0.25  # of the cost of a class: gamma and alpha of a focal loss
UNUSED = re.compile(  # what their files hold, and neither they nor we look at
    r"transformer\.(decoder\.(class|segment)_embed|one_to_many_cls|learnable_scale)\b.*"
    r"|transformer\.decoder\.layers\.\d+\.cross_attn(_se)?\.output_proj\..*"
    r"|input_proj\.norm\..*|segment_embed\.[1-9].*"
)


@dataclass(frozen=True)
class DiGITConfig(LocalizerConfig):
    """Shape of DiGIT; of what `LocalizerConfig` has it takes `feature_dim`, `classes`, `dim`,
    `heads`, `levels` and `prior`.

    Attributes:
        layers: Of the encoder, and as many of the decoder.
        mlp_dim: Width of gated convolutions and of the decoder's MLPs; 0 for 4 D.
        kernel, dilations: Of gated convolutions; each dilation has a share of the channels.
        points: That a head looks at, at each level.
        share: Of the valid points, those that become queries.
        queries: At most.
        scale: Frames that a point of the first level proposes.
        fps, stride: Of the features: frames a second, frames a step.
    """

    layers: int = 6
    mlp_dim: int = 0
    kernel: int = 11
    dilations: int = 2
    points: int = 4
    share: float = 0.5
    queries: int = 900
    scale: float = 32.0
    fps: float = 30.0
    stride: int = 4

    def __post_init__(self):
        super().__post_init__()
        if self.kernel % 2 == 0 or self.wide % self.dilations or self.dim % 2:
            raise ValueError(
                f"kernel must be odd, dim even and mlp_dim a multiple of dilations; got "
                f"{self.kernel}, {self.dim}, {self.wide} and {self.dilations}"
            )
        if self.points * self.heads % 4:
            raise ValueError(
                f"points x heads must be a multiple of 4; got {self.points} and {self.heads}"
            )

    @property
    def wide(self) -> int:
        """Width of MLPs and gated convolutions."""
        return self.mlp_dim or 4 * self.dim

    @property
    def multiple(self) -> int:
        """Steps of which a whole video has a multiple."""
        return 2 ** (self.levels - 1)


def waves(x: Tensor, dim: int) -> Tensor:
    """Sines and cosines by turns of numbers (..): (.., dim)."""
    rate = WAVELENGTH ** (
        2 * torch.arange(dim, device=x.device).div(2, rounding_mode="floor") / dim
    )
    angle = x[..., None] / rate
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2)


def halved(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, D) at half the length, padding apart, and the mask; a last step alone stays."""
    shorter = interpolate((~mask)[:, None].float(), scale_factor=0.5, mode="linear")[:, 0] <= 0.5
    out = []
    for one, kept, valid in zip(x, shorter, mask, strict=True):
        part = interpolate(one[valid].T[None], int(kept.sum()), mode="linear")[0].T
        out.append(pad(part, (0, 0, 0, len(kept) - len(part))))
    return torch.stack(out), shorter


class GatedConv(nn.Module):
    """Convolutions of rising dilation on shares of the channels, gated by what stands beside."""

    def __init__(self, config: DiGITConfig):
        super().__init__()
        wide, count, reach = config.wide, config.dilations, config.kernel // 2
        each = wide // count
        self.convs = nn.ModuleList(
            nn.Conv1d(each, each, config.kernel, padding=i * reach, dilation=i)
            for i in range(1, count + 1)
        )
        self.fc_in, self.fc_out = nn.Linear(config.dim, 2 * wide), nn.Linear(wide, config.dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        path, gate = self.fc_in(x).chunk(2, -1)
        parts = (path * mask[..., None]).transpose(1, 2).chunk(len(self.convs), 1)
        seen = torch.cat([conv(y) for conv, y in zip(self.convs, parts, strict=True)], 1)
        return self.fc_out(seen.transpose(1, 2) * mask[..., None] * silu(gate))


class EncoderLayer(nn.Module):
    """A gated convolution in place of self-attention."""

    def __init__(self, config: DiGITConfig):
        super().__init__()
        self.self_attn, self.norm1 = GatedConv(config), nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.norm1(x + self.self_attn(x, mask))


class DeformableAttention(nn.Module):
    """Queries look at points of every level, placed relative to their segments.

    Args:
        config: Shape.
        at_borders: Whether points start around a segment's two ends; otherwise all over it.
    """

    def __init__(self, config: DiGITConfig, at_borders: bool):
        super().__init__()
        self.heads, self.levels, self.points = config.heads, config.levels, config.points
        each = config.heads * config.levels * config.points
        self.sampling_offsets = nn.Linear(config.dim, each)
        self.attention_weights = nn.Linear(config.dim, each)
        self.value_proj = nn.Linear(config.dim, config.dim)
        p, n = config.points, config.heads * config.points
        if at_borders:
            ends = [torch.linspace(c - p // 2, c + p // 2, n // 2 + 1) for c in (-p, p)]
            start = torch.cat([torch.cat([x[: n // 4], x[n // 4 + 1 :]]) for x in ends])
        else:
            line = torch.linspace(-p, p, n + 1)
            start = torch.cat([line[: n // 2], line[n // 2 + 1 :]])
        start = start.view(config.heads, 1, p).expand(-1, config.levels, -1).reshape(-1)
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(start)
        nn.init.xavier_uniform_(self.value_proj.weight)
        nn.init.zeros_(self.value_proj.bias)

    def forward(self, query: Tensor, at: Tensor, levels: Tensor, valid: Tensor, sizes) -> Tensor:
        """Queries (B, Q, D) with segments `at` (B, Q, levels, 2), centre and width as shares of
        each level, on all levels after each other (B, N, D), `sizes` steps each.
        """
        value = (self.value_proj(levels) * valid[..., None]).unflatten(-1, (self.heads, -1))
        shape = (self.heads, self.levels, self.points)
        offset = self.sampling_offsets(query).unflatten(-1, shape)
        weight = self.attention_weights(query).unflatten(-1, (self.heads, -1)).softmax(-1)
        # centre and width by level, beside heads and points
        middle, width = at[:, :, None, :, None].unbind(-1)
        place = 2 * (middle + offset / self.points * width * 0.5) - 1
        found = []
        for i, part in enumerate(value.split(sizes, 1)):
            # images one pixel high, a head each: (B heads, d, 1, T)
            image = part.permute(0, 2, 3, 1).flatten(0, 1)[:, :, None]
            x = place[:, :, :, i].transpose(1, 2).flatten(0, 1)
            grid = torch.stack([x, torch.zeros_like(x)], -1)
            found.append(grid_sample(image, grid, "bilinear", "zeros", align_corners=False))
        seen = torch.cat(found, -1)  # (B heads, d, Q, levels points)
        weight = weight.transpose(1, 2).flatten(0, 1)[:, None]
        return (seen * weight).sum(-1).unflatten(0, (-1, self.heads)).flatten(1, 2).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Queries look at each other, into their segments, at the borders; an MLP.

    Attributes:
        watched: Whether `looked` keeps how queries attended to each other (B, Q, Q), mean of heads.
    """

    watched, looked = False, None

    def __init__(self, config: DiGITConfig):
        super().__init__()
        dim = config.dim
        self.cross_attn = DeformableAttention(config, at_borders=False)
        self.cross_attn_se = DeformableAttention(config, at_borders=True)
        self.self_attn = nn.MultiheadAttention(dim, config.heads, batch_first=True)
        self.norm1, self.norm2, self.norm3, self.norm_se = (nn.LayerNorm(dim) for _ in range(4))
        self.linear1, self.linear2 = nn.Linear(dim, config.wide), nn.Linear(config.wide, dim)

    def forward(self, x: Tensor, place: Tensor, padded: Tensor, *seen) -> Tensor:
        """`place`: of each query's segment (B, Q, D). `seen`: see `DeformableAttention.forward`."""
        q = x + place
        found, self.looked = self.self_attn(q, q, x, padded, need_weights=self.watched)
        x = self.norm2(x + found)
        x = self.norm1(x + self.cross_attn(x + place, *seen))
        x = self.norm_se(x + self.cross_attn_se(x + place, *seen))
        return self.norm3(x + self.linear2(self.linear1(x).relu()))


class Layers(nn.Module):
    """Layers under that name."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Maps(Layers):
    """Linear maps with ReLU between."""

    def __init__(self, *sizes: int):
        super().__init__(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class Transformer(nn.Module):
    """Weights of encoder, decoder and of what becomes of points, under the authors' names."""

    def __init__(self, config: DiGITConfig):
        super().__init__()
        dim, many = config.dim, range(config.layers)
        self.encoder = Layers(EncoderLayer(config) for _ in many)
        self.decoder = Layers(DecoderLayer(config) for _ in many)
        self.decoder.grid_head = Maps(2 * dim, dim, dim)
        self.level_embed = nn.Embedding(config.levels, dim)
        for name in ("encoder_out", "content", "memory"):
            first = name if name == "encoder_out" else f"{name}_proj"
            self.add_module(first, nn.Linear(dim, dim))
            self.add_module(f"{name}_norm", nn.LayerNorm(dim))
        for name, weight in self.named_parameters():
            if weight.ndim > 1 and "sampling" not in name and "attention_weights" not in name:
                nn.init.xavier_uniform_(weight)


class InputProjection(nn.Module):
    """A convolution and a norm, under the authors' names."""

    def __init__(self, config: DiGITConfig):
        super().__init__()
        conv = Conv(config.feature_dim, config.dim, bias=False)
        nn.init.xavier_uniform_(conv.conv.weight)
        self.embd = nn.ModuleList([nn.ModuleList([conv, ChannelNorm(config.dim)])])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        ((conv, norm),) = self.embd
        return norm(conv(x, mask)[0]) * mask[..., None]


@dataclass(frozen=True)
class Guess:
    """What is said of points or queries: class logits (B, Q, C), centre and log width in seconds
    (B, Q, 2), and which of them are no padding (B, Q).
    """

    logits: Tensor
    segment: Tensor
    valid: Tensor

    @property
    def ends(self) -> Tensor:
        """Start and end (B, Q, 2), in seconds."""
        middle, half = self.segment[..., 0], self.segment[..., 1].exp() / 2
        return torch.stack([middle - half, middle + half], -1)


class DiGIT(nn.Module):
    """Features to a set of segments. It brings its own loss: segments are matched, not points."""

    sets = True

    def __init__(self, config: DiGITConfig):
        super().__init__()
        self.config, dim = config, config.dim
        self.input_proj, self.transformer = InputProjection(config), Transformer(config)
        # one head for all layers of the decoder; the last one says how likely a point is anything
        self.class_embed = nn.ModuleDict(
            {"0": nn.Linear(dim, config.classes), str(config.layers): nn.Linear(dim, 1)}
        )
        for head in self.class_embed.values():
            nn.init.constant_(head.bias, -math.log((1 - config.prior) / config.prior))
        self.segment_embed = nn.ModuleDict({"0": Maps(dim, dim, dim, 2)})
        nn.init.zeros_(self.segment_embed["0"].layers[-1].weight)
        nn.init.zeros_(self.segment_embed["0"].layers[-1].bias)

    def seconds(self, steps: Tensor) -> Tensor:
        """Of steps; a step stands for the middle of its frames."""
        return (steps * self.config.stride + self.config.stride // 2) / self.config.fps

    def steps(self, seconds: Tensor) -> Tensor:
        """The other way round."""
        return (seconds * self.config.fps - self.config.stride // 2) / self.config.stride

    def guesses(self, features: Tensor, mask: Tensor) -> tuple[Guess, list[Guess]]:
        """What points say of anything's being there, and queries after every layer of the decoder.

        Args:
            features: (B, T, F).
            mask: (B, T) bool, valid steps first.
        """
        c, net = self.config, self.transformer
        x = self.input_proj(features * mask[..., None], mask)
        x = x + waves(x.new_tensor(c.fps), c.dim)
        for layer in net.encoder.layers:
            x = layer(x, mask)

        # levels: points, when they are, and how long what they propose is
        x, time = x * mask[..., None], self.seconds(torch.arange(x.shape[1], device=x.device).to(x))
        levels, masks, times = [x], [mask], [time.expand(len(x), -1)]
        for i in range(1, c.levels):
            x, shorter = halved(levels[-1], masks[-1])
            alone = torch.arange(x.shape[1], device=x.device) * c.stride * 2**i
            time = ((alone + c.stride * 2**i // 2) / c.fps).expand(len(x), -1).clone()
            closer = halved(times[-1][..., None], masks[-1])[0][..., 0]
            times.append(torch.where(shorter, closer, time))
            levels.append(x)
            masks.append(shorter)
        sizes, valid = [x.shape[1] for x in levels], torch.cat(masks, 1)
        ratio = torch.stack([m.float().mean(1) for m in masks], 1)
        memory = torch.cat([x + e for x, e in zip(levels, net.level_embed.weight, strict=True)], 1)
        width = [torch.full_like(t, math.log(c.scale / c.fps * 2**i)) for i, t in enumerate(times)]
        proposed = torch.stack([torch.cat(times, 1), torch.cat(width, 1)], -1)
        likely = net.encoder_out_norm(net.encoder_out(memory * valid[..., None]))
        anything = self.class_embed[str(c.layers)](likely)
        seen = net.memory_norm(net.memory_proj(memory)), valid, sizes

        # the likeliest points of each video become queries
        score = anything[..., 0].masked_fill(~valid, NEVER)
        counts = (valid.sum(1) * c.share).int().clamp(max=c.queries).tolist()
        query = torch.zeros(len(x), max(counts), dtype=torch.bool, device=x.device)
        content = memory.new_zeros(*query.shape, c.dim)
        segment = memory.new_zeros(*query.shape, 2)
        for b, n in enumerate(counts):
            best = score[b].topk(n).indices
            query[b, :n], content[b, :n], segment[b, :n] = True, memory[b, best], proposed[b, best]
        y = net.content_norm(net.content_proj(content.detach()))

        # layers of the decoder move and stretch them
        lasting, out = mask.sum(1) * c.stride / c.fps, []
        reference = torch.stack([segment[..., 0], segment[..., 1].exp()], -1)
        for layer in net.decoder.layers:
            at = (reference / lasting[:, None, None])[:, :, None] * ratio[:, None, :, None]
            place = net.decoder.grid_head(waves(reference * 2 * math.pi, c.dim).flatten(2))
            y = layer(y, place, ~query, at, *seen)
            middle, size = segment.detach().unbind(-1)
            move, stretch = self.segment_embed["0"](y).unbind(-1)
            segment = torch.stack([middle + move * size.exp(), size + stretch], -1)
            reference = torch.stack([segment[..., 0], segment[..., 1].exp()], -1).detach()
            out.append(Guess(self.class_embed["0"](y), segment, query))
        return Guess(anything, proposed, valid), out

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits (B, Q, C), segments (B, Q, 2) in steps, and which queries are no padding."""
        last = self.guesses(features, mask)[1][-1]
        return last.logits, self.steps(last.ends), last.valid

    def loss(
        self, features: Tensor, mask: Tensor, wanted: list[tuple[Tensor, Tensor]], smoothing=0.0
    ) -> Tensor:
        """Classes and overlap of all layers and of the points that became queries.

        Args:
            features, mask: See `guesses`.
            wanted: Of each video segments (N, 2) in steps and classes (N,).
            smoothing: Of labels.
        """
        first, layers = self.guesses(features, mask)
        wanted = [(self.seconds(s), k) for s, k in wanted]
        anything = [(s, torch.zeros_like(k)) for s, k in wanted]
        total = matched_loss(first, anything, ENCODER_CLASS_COST, smoothing)
        total = total + sum(matched_loss(x, wanted, CLASS_COST, smoothing) for x in layers)
        return total + self.more(layers)

    def more(self, layers: list[Guess]) -> Tensor | float:
        """What else is asked of the layers' guesses; nothing here."""
        return 0.0


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every two of (N, 2) and (M, 2): (N, M)."""
    inside = torch.minimum(a[:, None, 1], b[:, 1]) - torch.maximum(a[:, None, 0], b[:, 0])
    inside = inside.clamp(min=0)
    sizes = [(x[:, 1] - x[:, 0]).clamp(min=0) for x in (a, b)]
    return inside / (sizes[0][:, None] + sizes[1] - inside)


@torch.no_grad()
def matched(
    guess: Guess, wanted: list[tuple[Tensor, Tensor]], class_cost: float
) -> list[tuple[Tensor, Tensor]]:
    """Of each video the queries and the segments that belong together, the cheapest way."""
    out = []
    for logits, ends, valid, (spans, kinds) in zip(
        guess.logits, guess.ends, guess.valid, wanted, strict=True
    ):
        p = logits.sigmoid()
        no = (1 - EVEN) * p**SURE * -(1 - p + 1e-8).log()
        yes = EVEN * (1 - p) ** SURE * -(p + 1e-8).log()
        cost = class_cost * (yes - no)[:, kinds] - IOU_COST * overlaps(ends, spans)
        cost = cost.masked_fill(~valid[:, None], NO_MATCH)
        pairs = linear_sum_assignment(cost.float().cpu().numpy())
        out.append(tuple(torch.as_tensor(x, device=logits.device) for x in pairs))
    return out


def matched_loss(
    guess: Guess, wanted: list[tuple[Tensor, Tensor]], class_cost: float, smoothing: float
) -> Tensor:
    """Focal loss of all queries, and 1 - IoU of those that are matched, over the segments."""
    target, missed = torch.zeros_like(guess.logits), guess.logits.new_zeros(())
    pairs = matched(guess, wanted, class_cost)
    for b, ((query, own), (spans, kinds)) in enumerate(zip(pairs, wanted, strict=True)):
        target[b, query] = one_hot(kinds[own], target.shape[-1]).to(target)
        missed = missed + (1 - overlaps(guess.ends[b, query], spans[own]).diagonal()).sum()
    if smoothing:
        target = target * (1 - smoothing) + smoothing / (target.shape[-1] + 1)
    count = max(1, sum(len(k) for _, k in wanted))
    # videos count alike, however many queries they have
    queries = guess.valid.sum(1).float()
    each = (focal(guess.logits, target) * guess.valid[..., None]).sum((1, 2))
    classes = (each / queries.clamp(min=1)).sum() * queries.mean()
    return (CLASS_WEIGHT * classes + IOU_WEIGHT * missed) / count


def load(path: str | Path, model: DiGIT, mean: bool = True) -> DiGIT:
    """The model with the weights of its authors' file, see
    `vlact.models.localizer_checkpoints.read`.

    Raises:
        ValueError: A file that is cut off or of another architecture, number of classes or feature
            width; names the weights.
    """
    state = {k: x for k, x in read(path, mean).items() if not UNUSED.fullmatch(k)}
    last = str(model.config.layers)
    heads = {k for k in state if k.startswith("class_embed.")}
    state = {k: x for k, x in state.items() if k not in heads or k.split(".")[1] in ("0", last)}
    return files.fill(model, state, path)
