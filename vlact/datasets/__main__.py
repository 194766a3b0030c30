"""`python -m vlact.datasets ata|ikea|gtea FOLDER`: write FOLDER/annotations.csv from the dataset's own layout."""

import argparse
import sys
from pathlib import Path

from vlact import schema
from vlact.datasets import ata, gtea, ikea

READERS = {"ata": ata.read, "ikea": ikea.read, "gtea": gtea.read}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m vlact.datasets", description=__doc__)
    parser.add_argument("dataset", choices=sorted(READERS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--no-idle", action="store_true", help="leave ATA's idle class out")
    given = parser.parse_args(arguments)
    options = {"idle": not given.no_idle} if given.dataset == "ata" else {}
    try:
        table = READERS[given.dataset](given.folder, **options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    schema.write_annotations(given.folder / "annotations.csv", table)
    print(f"{given.folder / 'annotations.csv'}: {len(table)} segments of {table['label'].nunique()} classes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
