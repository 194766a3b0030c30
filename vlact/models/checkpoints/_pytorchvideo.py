"""ResNet50 (C2D), I3D, X3D and SlowFast: PyTorchVideo's files."""

from pathlib import Path

from torch import nn

from vlact.models import convnet3d
from vlact.models.weights import Rules, family, load, own_head, read, translate
from vlact.models.zoo import x3d
from vlact.models.zoo.slowfast import SlowFast


def _bottleneck(theirs: str, ours: str) -> Rules:
    """A residual block; what is squeezed is X3D's."""
    return [
        (rf"{theirs}\.branch1_conv\.weight", f"{ours}.shortcut.0.weight"),
        (rf"{theirs}\.branch1_norm\.(\w+)", rf"{ours}.shortcut.1.\1"),
        (rf"{theirs}\.branch2\.conv_([abc])\.weight", rf"{ours}.\1.0.weight"),
        (rf"{theirs}\.branch2\.norm_([abc])(?:\.0)?\.(\w+)", rf"{ours}.\1.1.\2"),
        (rf"{theirs}\.branch2\.norm_b\.1\.block\.(\d\.\w+)", rf"{ours}.squeeze.gate.\1"),
    ]


def _stages(theirs: str, ours: str, numbers: tuple[int, ...], depths: tuple[int, ...]) -> Rules:
    """Residual blocks: {i} in a name is the stage, {j} its block, {n} that of all; `numbers` are
    theirs of the stages.
    """
    places = [(i, j) for i, depth in enumerate(depths) for j in range(depth)]
    pairs = [
        (theirs.format(i=numbers[i], j=j), ours.format(i=i, j=j, n=n))
        for n, (i, j) in enumerate(places)
    ]
    return [rule for pair in pairs for rule in _bottleneck(*pair)]


HEAD: Rules = [(r"blocks\.[56]\.proj\.(\w+)", r"head.\1")]
CONVNET3D: Rules = [
    (r"blocks\.0\.conv\.weight", "stem.0.0.weight"),
    (r"blocks\.0\.norm\.(\w+)", r"stem.0.1.\1"),
    # the second pools
    *_stages(r"blocks\.{i}\.res_blocks\.{j}", "stages.{i}.{j}", (1, 3, 4, 5), convnet3d.DEPTHS),
    *HEAD,
]
SLOWFAST: Rules = [
    (r"blocks\.0\.multipathway_blocks\.([01])\.conv\.weight", r"stems.\1.0.0.weight"),
    (r"blocks\.0\.multipathway_blocks\.([01])\.norm\.(\w+)", r"stems.\1.0.1.\2"),
    (r"blocks\.([0-3])\.multipathway_fusion\.conv_fast_to_slow\.weight", r"join.\1.0.weight"),
    (r"blocks\.([0-3])\.multipathway_fusion\.norm\.(\w+)", r"join.\1.1.\2"),
    *_stages(
        r"blocks\.{i}\.multipathway_blocks\.0\.res_blocks\.{j}",
        "slow.{i}.{j}",
        (1, 2, 3, 4),
        convnet3d.DEPTHS,
    ),
    *_stages(
        r"blocks\.{i}\.multipathway_blocks\.1\.res_blocks\.{j}",
        "fast.{i}.{j}",
        (1, 2, 3, 4),
        convnet3d.DEPTHS,
    ),
    *HEAD,
]
X3D: Rules = [
    (r"blocks\.0\.conv\.conv_t\.weight", "stem.0.weight"),  # it is the one in space
    (r"blocks\.0\.conv\.conv_xy\.weight", "stem.1.0.weight"),
    (r"blocks\.0\.norm\.(\w+)", r"stem.1.1.\1"),
    *_stages(r"blocks\.{i}\.res_blocks\.{j}", "blocks.{n}", (1, 2, 3, 4), x3d.DEPTHS),
    (r"blocks\.5\.pool\.pre_conv\.weight", f"blocks.{sum(x3d.DEPTHS)}.0.weight"),
    (r"blocks\.5\.pool\.pre_norm\.(\w+)", rf"blocks.{sum(x3d.DEPTHS)}.1.\1"),
    (r"blocks\.5\.pool\.post_conv\.weight", "last.weight"),
    *HEAD,
]


@family("PyTorchVideo")
def pytorchvideo(path: str | Path, model: nn.Module) -> nn.Module:
    """PyTorchVideo's weights into `ResNet50` (its C2D), `I3D`, `SlowFast` or `X3D` of
    `vlact.models.zoo`.

    A head of other classes keeps its initialisation. X3D's first shortcut loses its norm:
    SlowFast's code base has one there, PyTorchVideo does not.

    Raises:
        ValueError: See `translate` and `load`.
    """
    rules = (
        X3D
        if isinstance(model, x3d.X3D)
        else SLOWFAST
        if isinstance(model, SlowFast)
        else CONVNET3D
    )
    state = translate(read(path), rules, path)
    if rules is X3D:
        model.blocks[0].shortcut[1] = nn.Identity()
        if "last.weight" in state:
            state["last.weight"] = state["last.weight"].flatten(1)
    return load(model, own_head(state, model), path)
