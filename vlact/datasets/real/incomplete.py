"""What a real set lacks: named, counted, and left out only where that was asked for."""

import warnings
from pathlib import Path

EXAMPLES = 3


def left_out(problems: list[str], folder: Path, what: str, skip: bool) -> None:
    """Stop at what is missing, cut or wrong, or say it and go on.

    Args:
        problems: One line each; nothing happens without any.
        folder: Of the set.
        what: The set and how much of it was expected, in words.
        skip: Whether to go on without it.

    Raises:
        ValueError: There are problems, and `skip` was not asked for.
    """
    if not problems:
        return
    some = "; ".join(problems[:EXAMPLES])
    said = f"{folder}: {what}; {len(problems)} missing or unusable, such as {some}"
    if not skip:
        raise ValueError(f"{said}; bring the set again, or go on without them by skip=True")
    warnings.warn(f"{said}; left out", stacklevel=3)
