"""nbval compares what a reader reads: text and results, not warnings and progress on stderr.

Hypothesis looks at no clock and draws the same examples each time. And a fixture that kills.
"""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("steady")


def pytest_collectstart(collector):
    if collector.fspath and collector.fspath.ext == ".ipynb":
        collector.skip_compare += ("stderr", "text/html", "image/svg+xml")


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
