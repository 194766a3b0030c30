"""Real annotations and predictions of others, where this machine has them."""

import os
from pathlib import Path

import pytest

REALDATA = Path(os.environ.get("VLACT_REALDATA") or Path(__file__).parents[2] / "data" / "real")
needs_realdata = pytest.mark.skipif(
    not REALDATA.is_dir(), reason=f"{REALDATA} is not here; VLACT_REALDATA names its folder"
)
