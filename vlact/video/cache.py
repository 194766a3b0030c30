"""Where the frame indexes of videos are kept: in memory, and in the user's cache folder.

A file is known by its size, its time of change and a hash of its head and tail, so that a copy or
another path finds the same index and a changed file does not.
"""

import hashlib
import json
import os
import stat
import sys
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from functools import cache
from pathlib import Path

import numpy as np

from vlact.runtime.jobs import write_whole

FORM = 1  # of what is kept; another number makes all of it anew
ENDS = 1 << 16  # bytes at the head and at the tail that are hashed
IN_MEMORY, ON_DISK = 8, 2000  # indexes at most

_memory: OrderedDict[str, tuple] = OrderedDict()


def key(path: Path, *also) -> str:
    """Name of a file's index; `also` is what else the index depends on."""
    state = path.stat()
    digest = hashlib.blake2b(json.dumps([FORM, state.st_size, state.st_mtime_ns, *also]).encode())
    with path.open("rb") as file:
        digest.update(file.read(ENDS))
        file.seek(max(0, state.st_size - ENDS))
        digest.update(file.read(ENDS))
    return digest.hexdigest()[:32]


def _user_folder() -> Path:
    """The platform's cache folder of this user."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "vlact"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/vlact"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "vlact/cache"
    return Path.home() / ".cache/vlact"


def _own(folder: Path) -> Path:
    """`folder`, made if need be, if this user can write there and no other can."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    if hasattr(os, "getuid") and (state.st_uid != os.getuid() or state.st_mode & others):
        raise OSError(f"{folder} is open to other users")
    with tempfile.TemporaryFile(dir=folder):
        return folder


@cache
def _writable(given: str | None, home: str | None) -> Path | None:
    """The first folder that can be written; None, with a word, where memory has to do.

    Args:
        given, home: XDG_CACHE_HOME and HOME; another value is another answer.
    """
    user = f"vlact-{os.getuid() if hasattr(os, 'getuid') else 'user'}-frames"
    reason = ""
    for place in (lambda: _user_folder() / "frames", lambda: Path(tempfile.gettempdir()) / user):
        try:
            folder = _own(place())
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
            reason = reason or str(error)
            continue
        if reason:
            warnings.warn(f"frame indexes are kept in {folder}: {reason}", stacklevel=3)
        return folder
    warnings.warn(f"frame indexes are kept in memory only: {reason}", stacklevel=3)
    return None


def _file(name: str) -> Path | None:
    folder = _writable(os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME"))
    return folder / f"{name}.npz" if folder else None


def load(name: str) -> tuple[dict, dict] | None:
    """What `save` kept: (json-able values, arrays)."""
    if name in _memory:
        _memory.move_to_end(name)
        return _memory[name]
    file = _file(name)
    if file is None or not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as found:
            arrays = {k: found[k] for k in found.files}
        values = json.loads(arrays.pop("values").item())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # cut short or not ours; it is made anew
    _remember(name, (values, arrays))
    return values, arrays


def _remember(name: str, found: tuple) -> None:
    _memory[name] = found
    while len(_memory) > IN_MEMORY:
        _memory.popitem(last=False)


def save(name: str, values: dict, arrays: dict, on_disk: bool) -> None:
    """Keep an index in memory and, where it took time to make, on disk."""
    _remember(name, (values, arrays))
    file = _file(name) if on_disk else None
    if file is None:
        return

    def put(data: dict, to: Path) -> None:
        with to.open("wb") as out:
            np.savez(out, values=np.array(json.dumps(values)), **data)

    try:
        write_whole(file, put, arrays)
        kept = sorted(file.parent.glob("*.npz"), key=lambda f: f.stat().st_mtime)
        for old in kept[:-ON_DISK]:
            old.unlink(missing_ok=True)
    except OSError as error:  # a full disk, or a folder that went
        warnings.warn(f"the frame index is kept in memory only: {error}", stacklevel=2)
