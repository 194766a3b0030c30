"""What runs on this machine, and what is missing for what: `vlact doctor`, on one screen."""

import importlib.util
import sys

from vlact import CHECKOUT, ROOT, __version__
from vlact.params import Params
from vlact.runtime.extras import lacking

SHOWN = 3  # names of what a paper lacks


def overview(profile: str, chosen: Params, absent: dict[str, list[str]]) -> dict:
    """Where this is, commands that run and those that do not, data of a profile by paper.

    Args:
        profile, chosen: The profile.
        absent: Missing modules, by command.
    """
    engine = "no torch"
    if importlib.util.find_spec("torch"):
        import torch

        place = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        engine = f"torch {torch.__version__}, {place}"
    where = f"checkout {ROOT}" if CHECKOUT else "no checkout (installed from a wheel)"
    python = sys.version.split()[0]
    ready, missing = [], {}
    for name, modules in sorted(absent.items()):
        if name in ("repro", "verify", "site") and not CHECKOUT:
            missing[name] = "a checkout of the repository"
        elif modules:
            missing[name] = lacking(name, *modules).removeprefix(f"{name} needs ")
        else:
            ready.append(name)
    here = f"vlact {__version__}, Python {python}, {engine}, {where}"
    there = _data_of(chosen) if importlib.util.find_spec("huggingface_hub") else {}
    return {"here": here, "runs": ready, "lacking": missing, profile: there}


def lines(profile: str, found: dict) -> list[str]:
    """What `overview` gave, as text."""
    out = [found["here"], f"runs now   {', '.join(found['runs'])}"]
    out += [f"lacking    {name}: {what}" for name, what in found["lacking"].items()]
    for use, (count, lack) in found[profile].items():
        some = ", ".join(lack[:SHOWN]) + " .." * (len(lack) > SHOWN)
        tail = f"; not {some}" * bool(lack)
        out.append(f"{profile:10} {use}: {count - len(lack)} of {count} there{tail}")
    return out


def _data_of(chosen: Params) -> dict[str, tuple[int, list[str]]]:
    """By paper, how many datasets and checkpoints it needs, and those that are not there."""
    from vlact.tools.doctor import NEEDS as DATA

    if chosen.world.source == "rendered":
        return {}
    out = {}
    for need in DATA:
        path = need.path.format(data=f"data/{chosen.workspace}")
        count, lack = out.get(use := need.used_by.split(",")[0], (0, []))
        there = not need.path or (ROOT / path).exists()
        out[use] = (count + 1, lack if there else [*lack, need.name])
    return out
