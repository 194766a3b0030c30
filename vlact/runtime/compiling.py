"""Loops compiled by numba, and where the compiled code is kept."""

import os
import stat
import tempfile
import warnings
from pathlib import Path

from vlact.runtime.extras import lacking

try:
    import numba
except ModuleNotFoundError:  # a module is read without it; a call says what is missing
    numba = None


def _temporary() -> str | None:
    """A folder of this user alone below the temporary folder; None if there is none.

    What numba reads back from a cache is run, so a folder that others may write is not taken.
    """
    me = getattr(os, "getuid", int)()
    folder = Path(tempfile.gettempdir()) / f"vlact-numba-{me}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == me and not found.st_mode & 0o077
    return str(folder) if mine and os.access(folder, os.W_OK) else None


def compiled(function):
    """The function, compiled by numba when it is first called and kept for the next process.

    numba keeps it in the package's folder or in the user's cache; where neither can be written, it
    is kept in a temporary folder, and a warning says so.
    """
    if numba is None:

        def absent(*given):
            raise ModuleNotFoundError(lacking("vlact.models.nms", "numba"), name="numba")

        return absent
    options = {"error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither folder can be written
        before, folder = numba.config.CACHE_DIR, _temporary()
    home = Path(function.__code__.co_filename).parent
    where = folder or "memory only: every process compiles anew, some seconds each"
    warnings.warn(
        f"{home} and the user's cache folder cannot be written: compiled code is"
        f" kept in {where}; set NUMBA_CACHE_DIR to a folder that can be written",
        stacklevel=2,
    )
    if folder is None:
        return numba.njit(**options)(function)
    try:
        numba.config.CACHE_DIR = folder
        return numba.njit(cache=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = before
