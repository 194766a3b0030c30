"""A module's weights with all that rebuilds it, as one safetensors file; nothing in such a file can
run code.
"""

import json
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from vlact.runtime.extras import needs
from vlact.runtime.jobs import write_whole

with needs("vlact.models.files"):
    from safetensors import safe_open
    from safetensors.torch import save_file


def save(path: str | Path, kind: str, note: dict, state: dict[str, Tensor]) -> None:
    """Write `state` under a header entry `kind` that holds `note` (json-able); whole or not at all."""
    state = {k: v.contiguous() for k, v in state.items()}
    write_whole(
        Path(path),
        lambda data, file: save_file(data, file, metadata={kind: json.dumps(note)}),
        state,
    )


def read(path: str | Path, kind: str) -> tuple[dict, dict[str, Tensor]]:
    """Note and state of a file that `save` wrote.

    Raises:
        ValueError: A file of another kind.
    """
    with safe_open(str(path), framework="pt") as file:
        header = (file.metadata() or {}).get(kind)
        if header is None:
            raise ValueError(
                f"{path}: expected a {kind!r} entry in the safetensors header, as vlact writes "
                "it; found none"
            )
        return json.loads(header), {k: file.get_tensor(k) for k in file.keys()}


def fill(
    module: nn.Module,
    state: dict[str, Tensor],
    path: str | Path,
    may_lack: Callable[[str], bool] = lambda name: False,
) -> nn.Module:
    """The module with these weights, in evaluation mode.

    Args:
        module: Of the right shape.
        state: Its weights.
        path: Named in errors.
        may_lack: Names that need not be there, such as tied weights.

    Raises:
        ValueError: Weights that are missing or not expected.
    """
    missing, unexpected = module.load_state_dict(state, strict=False)
    if unexpected or (missing := [k for k in missing if not may_lack(k)]):
        raise ValueError(f"{path}: missing {list(missing)[:5]}, unexpected {list(unexpected)[:5]}")
    return module.eval()
