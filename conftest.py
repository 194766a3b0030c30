"""nbval compares what a reader reads: text and results, not warnings and progress on stderr.

Hypothesis looks at no clock and draws the same 100 examples each time; with VLACT_FUZZ=1000 so many
of each kind, other ones by a seed that is printed (`make fuzz`). And a fixture that kills.
"""

import os
import random

import pytest
from hypothesis import HealthCheck, settings

FUZZ = int(os.environ.get("VLACT_FUZZ") or 0)  # examples of a nightly run
settings.register_profile(
    "steady",
    max_examples=FUZZ or 100,
    deadline=None,
    derandomize=not FUZZ,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("steady")


def pytest_configure(config):
    config.addinivalue_line("markers", "fuzz: random input of one kind, see `make fuzz`")
    if FUZZ and config.getoption("hypothesis_seed", None) is None:
        from hypothesis import core

        core.global_force_seed = random.SystemRandom().randrange(10**9)


def pytest_report_header(config):
    if not FUZZ:
        return None
    from hypothesis import core

    return f"{FUZZ} random examples of each kind, --hypothesis-seed={core.global_force_seed}"


def pytest_collectstart(collector):
    if collector.fspath and collector.fspath.ext == ".ipynb":
        collector.skip_compare += ("stderr", "image/svg+xml")


@pytest.fixture
def until_killed(monkeypatch):
    """`until_killed(function, .., saves=n)` runs it until its n-th checkpoint is written."""
    from vlact.training import loop as training

    class Killed(Exception):
        pass

    class Dying(training.Checkpoint):
        def save(self, state):
            super().save(state)
            done.append(state)
            if len(done) == wanted[-1]:
                raise Killed

    done, wanted = [], []

    def run(function, *args, saves=1):
        wanted.append(len(done) + saves)
        with monkeypatch.context() as m, pytest.raises(Killed):
            m.setattr(training, "Checkpoint", Dying)
            function(*args)

    return run
