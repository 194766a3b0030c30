"""Pickles of labels, of which nothing is run: lists, dicts, text and whole numbers alone."""

import pickle
from pathlib import Path


class _Plain(pickle.Unpickler):
    """Looks no name up, so that no code of the file or of a library is called."""

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it asks for a persistent object")


def _check(value, at: str) -> None:
    if type(value) is list:
        for i, one in enumerate(value):
            _check(one, f"{at}[{i}]")
    elif type(value) is dict:
        for key, one in value.items():
            _check(key, f"{at}, a key")
            _check(one, f"{at}[{key!r}]")
    elif type(value) not in (str, int):
        raise pickle.UnpicklingError(f"{at} is {type(value).__name__}")


def load(path: str | Path):
    """What a pickle holds, if it is made of list, dict, str and int.

    Raises:
        ValueError: It holds anything else, or is cut off; names the file and what it asks for.
    """
    try:
        with Path(path).open("rb") as file:
            found = _Plain(file).load()
        _check(found, "the content")
    except (pickle.UnpicklingError, EOFError, IndexError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: expected a pickle of lists, dicts, text and whole numbers; {error}"
        ) from None
    return found
