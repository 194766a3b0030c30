"""What the fast paths gain over code that reads like the definition: ratios, on the machine named.

Each comparison runs both sides in turn, in one process on one thread, several times; a row holds
the median ratio and the lowest and the highest. Both sides must agree, or nothing is reported. The
slow sides lie in `tests/reference` of a checkout, where tests hold them equal, too.

Two parts have other peers: what of a core's arithmetic training steps reach, and what importing
costs above the library that has to be there. `vlact.tools.bench_metrics`,
`vlact.tools.bench_models` and `vlact.tools.bench_video` add tables of their own.
"""

import argparse
import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vlact import ROOT
from vlact.runtime.jobs import write_whole
from vlact.tools.provenance import on_machine

PARTS = ("vlact.tools.bench_metrics", "vlact.tools.bench_models", "vlact.tools.bench_video")
IMPORTS = {
    "vlact.metrics.localization": "pandas",
    "vlact.models.nms": "numba",
    "vlact.hub": "torch",
}
SIDE = 1024  # of the matrices whose product is the machine's peak
REPEATS = 5


@dataclass(frozen=True)
class Comparison:
    """Two ways to the same result.

    Attributes:
        work: What is done.
        peer: What the library's way is held against.
        ours_s, theirs_s: Processor seconds of every repetition, for the same amount of work.
        found, wanted: What either returned.
    """

    work: str
    peer: str
    ours_s: tuple[float, ...]
    theirs_s: tuple[float, ...]
    found: object
    wanted: object

    def row(self) -> dict:
        """`work, peer, ratio, lowest, highest, ours_ms`; a ratio says how many times faster."""
        ratios = [slow / fast for fast, slow in zip(self.ours_s, self.theirs_s, strict=True)]
        return {
            "work": self.work,
            "peer": self.peer,
            "ratio": statistics.median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
            "ours_ms": 1e3 * statistics.median(self.ours_s),
        }


def spent(function: Callable) -> tuple[object, float]:
    """What it returned, and its processor seconds."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def compare(
    work: str,
    peer: str,
    ours: Callable,
    theirs: Callable,
    repeats: int = REPEATS,
    times: float = 1.0,
) -> Comparison:
    """Run both in turn, so that a machine that slows down slows both.

    Args:
        work, peer: See `Comparison`.
        ours, theirs: Without arguments; `ours` is called once more before, to be warm.
        repeats: Of the pair.
        times: How often the work of `theirs` makes that of `ours`.
    """
    ours()
    pairs = [(spent(ours), spent(theirs)) for _ in range(repeats)]
    (found, _), (wanted, _) = pairs[-1]
    ours_s = tuple(fast for (_, fast), _ in pairs)
    theirs_s = tuple(times * slow for _, (_, slow) in pairs)
    return Comparison(work, peer, ours_s, theirs_s, found, wanted)


def oracle(name: str):
    """A module of `tests/reference`.

    Raises:
        FileNotFoundError: An installed package without its checkout.
    """
    folder = ROOT / "tests" / "reference"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; run this in a checkout of the project")
    if str(folder.parent) not in sys.path:
        sys.path.insert(0, str(folder.parent))
    return importlib.import_module(f"reference.{name}")


def agreeing(comparison: Comparison, agree: bool) -> Comparison:
    """The comparison, whose sides must have come to the same."""
    if not agree:
        raise ArithmeticError(
            f"{comparison.work}: expected what {comparison.peer} gives, got something else; "
            "run the tests"
        )
    return comparison


def rendering(repeats: int = REPEATS) -> Comparison:
    """Sixty-four frames of 24 pixels, against a march along every ray of one."""
    from vlact.worlds.render import render
    from vlact.worlds.scene import Body, Camera, Part, Scene, Track

    slow, frames, size = oracle("render_slow").render_flat, 64, (24, 24)
    part = Part("box", (0.5, 0.6, 0.4), (0.9, 0.3, 0.2), pattern="half", colour2=(0.1, 0.3, 0.8))
    camera = Camera(Track.of(0.3, 2.0, 3.2), Track.of(0, 1.0, 0), 45)
    body = Body([part], Track.of(0, 1.2, 0), Track.of(25, 40, 15))
    scene = Scene([body], camera, light=(0.3, 1.0, 0.6))
    made = compare(
        "rendering",
        "a march along every ray",
        lambda: render([scene], [np.arange(frames) / frames], size)[0][0] / 255,
        lambda: slow(scene, 0.0, *size)[0],
        repeats,
        frames,
    )
    # a ray that grazes an edge may fall on either side of it
    close = np.abs(made.found - made.wanted).max(-1) < 0.05
    return agreeing(made, close.mean() > 0.9)


def backward(loss: Tensor) -> float:
    """Gradients of a loss, and the loss."""
    loss.backward()
    return loss.item()


def ace_sides(clips: int = 8) -> tuple[Callable, Callable]:
    """A step of ACE on ATA's actions from kept features, and one that gives every string to the
    text trunk and every clip to every block.
    """
    from vlact.language import tasks
    from vlact.language.trees import ActionTexts, phrase
    from vlact.models.dual import DualConfig, DualEncoder
    from vlact.models.text import sentence_encoder
    from vlact.models.zoo.ace import ACE, LITERAL

    naive, trained_blocks, tau, seed = oracle("ace_naive").naive_ace_step, 1, 0.1, 0
    task, trunk = tasks.dataset("ata"), sentence_encoder()
    plan, names = ActionTexts(list(task.base), task.trees), [phrase(*a) for a in task.base]
    words = dict(zip(plan.texts, trunk(plan.texts), strict=True))
    torch.manual_seed(seed)
    config = DualConfig(
        image_size=32,
        patch_size=16,
        num_frames=4,
        dim=64,
        depth=4,
        heads=2,
        embed_dim=32,
        text_dim=len(words[names[0]]),
        conv_stem=True,
    )
    encoder = DualEncoder(config).eval()
    method = ACE(encoder, words, names, tau, trained_blocks, plan, **LITERAL, seed=seed)
    drawn, shadow = plan.draw(np.random.default_rng(seed))
    plan.draw = lambda rng: (drawn, shadow)  # the same draw for both
    shape = (clips, config.num_frames, config.image_size, config.image_size, 3)
    batch, labels = torch.randint(0, 255, shape, dtype=torch.uint8), torch.arange(clips)
    with torch.no_grad():
        kept = method.frozen_features(batch)

    given = (encoder, trunk.encode, batch, labels, plan, drawn, shadow, tau, method.frozen)
    method.requires_grad_(False)
    for parameter, _ in method.trained():
        parameter.requires_grad_()
    return lambda: backward(method.loss(kept, labels)), lambda: backward(naive(*given))


def ace_step(repeats: int = REPEATS) -> Comparison:
    """See `ace_sides`."""
    made = compare("a step of ACE", "every string and every clip anew", *ace_sides(), repeats)
    return agreeing(made, abs(made.found - made.wanted) < 1e-3 * abs(made.wanted))


def action_vlm_step(frames: int = 256, dim: int = 64) -> Callable:
    """A training step of ActionVLM as the stadium has it: a small language model that reads every
    frame, and a localizer on what both see.
    """
    from vlact.models.actionformer import ActionFormer, LocalizerConfig
    from vlact.models.actionvlm import aggregate
    from vlact.models.cost import Decoder
    from vlact.tools.measuring import language

    torch.manual_seed(0)
    said = language(Decoder(64, 3, 256, 4, 4, 1000), dim, 1, 16).float().train()
    head = ActionFormer(LocalizerConfig(dim, 20)).train()
    x, mask = torch.randn(2, frames, dim), torch.ones(2, frames, dtype=torch.bool)
    words, answer = torch.randint(0, 1000, (2, 200)), torch.randint(0, 1000, (2, 30))
    given = x, mask, words, torch.ones_like(words, dtype=torch.bool), answer
    weight = torch.full((2, frames), 0.5)

    def step() -> float:
        out = said(*given)
        both = [aggregate(x, out[k], weight) for k in ("cls", "loc")]
        found = head(both[0], mask, both[1])
        return backward(sum(part.mean() for part in found[:2]) + out["text_loss"])

    return step


def arithmetic(repeats: int = REPEATS) -> pd.DataFrame:
    """What of a core's arithmetic steps reach: `ratio` is their operations a second over those of a
    matrix product in the same round; both in `GFLOP/s` and `peak`.
    """
    square, rows = torch.randn(SIDE, SIDE), []
    steps = {"a step of ACE": ace_sides()[0], "a step of ActionVLM": action_vlm_step()}
    for work, step in steps.items():
        with FlopCounterMode(display=False) as counted:
            step()
        rounds = [(spent(step)[1], spent(lambda: square @ square)[1]) for _ in range(repeats)]
        speed = [counted.get_total_flops() / own / 1e9 for own, _ in rounds]
        peak = [2 * SIDE**3 / other / 1e9 for _, other in rounds]
        share = [a / b for a, b in zip(speed, peak, strict=True)]
        row = {"work": work, "peer": "arithmetic of a matrix product"}
        row |= {"ratio": statistics.median(share), "lowest": min(share), "highest": max(share)}
        row["ours_ms"] = 1e3 * statistics.median(own for own, _ in rounds)
        rows.append(row | {"GFLOP/s": statistics.median(speed), "peak": statistics.median(peak)})
    return pd.DataFrame(rows)


def imports(repeats: int = REPEATS) -> pd.DataFrame:
    """Processor seconds of importing a module in a fresh process, against the library that it
    cannot do without; `more_s` is what comes on top.
    """

    def taken(name: str) -> float:
        code = f"import time, {name}; print(time.process_time())"
        command = [sys.executable, "-c", code]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    rows = []
    for name, peer in IMPORTS.items():
        pairs = [(taken(name), taken(peer)) for _ in range(repeats)]
        ours, theirs = zip(*pairs, strict=True)
        row = Comparison(f"import {name}", f"import {peer}", ours, theirs, None, None).row()
        rows.append(row | {"more_s": statistics.median(a - b for a, b in pairs)})
    return pd.DataFrame(rows)


def planning(repeats: int = REPEATS) -> Comparison:
    """The cost of a training step counted on shapes alone, against the step itself."""
    from vlact.models.zoo.resnet50 import ResNet50
    from vlact.tools import plans

    def counted(device: str) -> plans.Step:
        with torch.device(device):
            model = ResNet50(10, frames=8).train()
            clips = torch.zeros(4, 8, 112, 112, 3, dtype=torch.uint8)
            return plans.measured(model, lambda: model(clips).sum(), len(clips))

    made = compare(
        "the plan of a training step",
        "the step on real tensors",
        lambda: counted("meta"),
        lambda: counted("cpu"),
        repeats,
    )
    sides = [(s.fixed, s.kept, s.flops) for s in (made.found, made.wanted)]
    return agreeing(made, np.allclose(*sides, rtol=0.02))


def tools(repeats: int = REPEATS) -> pd.DataFrame:
    """The renderer, a step of ACE, a plan."""
    return pd.DataFrame([f(repeats).row() for f in (rendering, ace_step, planning)])


def parts() -> dict[str, Callable]:
    """What can be measured, by name."""
    more = {name.rpartition("_")[2]: importlib.import_module(name).table for name in PARTS}
    return {"tools": tools, "arithmetic": arithmetic, "imports": imports} | more


def table(repeats: int = REPEATS, wanted: list[str] | None = None) -> pd.DataFrame:
    """Every row, `part, work, peer, ratio, lowest, highest, ours_ms` first."""
    torch.set_num_threads(1)
    own = {k: f for k, f in parts().items() if k in (wanted or parts())}
    found = pd.concat([f(repeats).assign(part=k) for k, f in own.items()], ignore_index=True)
    return found[["part", *found.columns.drop("part")]]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="vlact.tools.bench", description=__doc__)
    parser.add_argument("csv", type=Path, nargs="?", help="where the table goes")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--parts", nargs="+", choices=parts(), help="all if not given")
    given = parser.parse_args(arguments)
    found, on = table(given.repeats, given.parts), on_machine()
    print(on)
    print(found.round(2).to_string(index=False, na_rep=""))
    if given.csv:
        write_whole(
            given.csv, lambda data, to: data.to_csv(to, index=False), found.assign(machine=on)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
