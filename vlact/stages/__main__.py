"""`python -m vlact.stages STAGE PROFILE`: one stage without its notebook; what it reads must be
there, as for `make repro`.
"""

import argparse
import importlib
import sys

from vlact import params

HOMES = {
    "pretraining": "pretrain",
    "ace_sweeps": "ace",
    "real_sets": "real",
}  # stages whose file has another name
STAGES = (
    "worlds",
    "pretraining",
    "ace",
    "ace_sweeps",
    "stadium",
    "alignment",
    "localizers",
    "actionvlm",
    "encoders",
    "kitchens",
    "arena",
    "language_size",
    "synta",
    "transfer",
    "disentangle",
    "factors",
    "across",
    "real_sets",
    "real_video",
    "real_ace",
    "real_motion",
    "real_localization",
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m vlact.stages", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("profile", choices=params.PROFILES)
    parser.add_argument(
        "--skip",
        action="store_true",
        help="of real clips: leave out those that are missing, cut or broken",
    )
    given = parser.parse_args(arguments)
    p = params.load(given.profile, **({"real__skip": True} if given.skip else {}))
    run = getattr(
        importlib.import_module(f"vlact.stages.{HOMES.get(given.stage, given.stage)}"), given.stage
    )
    try:
        run(p)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{given.stage}: {p.data}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
