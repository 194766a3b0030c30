"""Real annotations and predictions of others, where this machine has them."""

import pytest

from vlact.datasets.real import root

REALDATA = root()
needs_realdata = pytest.mark.skipif(
    not (REALDATA / "thumos14").is_dir(),
    reason=f"{REALDATA} has no thumos14; VLACT_REALDATA names its folder",
)
