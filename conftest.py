"""nbval compares what a reader reads: text and results, not warnings and progress on stderr. And a fixture that kills."""

import pytest


def pytest_collectstart(collector):
    if collector.fspath and collector.fspath.ext == ".ipynb":
        collector.skip_compare += ("stderr", "text/html", "image/svg+xml")


def pytest_collection_modifyitems(items):
    """For several processes (`-n 2 --dist loadgroup`): notebooks stay together, as they build on each other, and so does a file."""
    for item in items:
        shared = item.path.suffix == ".ipynb" or item.path.name == "test_own_clips.py"
        item.add_marker(pytest.mark.xdist_group("notebooks" if shared else item.path.name))


@pytest.fixture
def until_killed(monkeypatch):
    """`until_killed(function, .., saves=n)` runs it until its n-th checkpoint is written."""
    from vlact import training

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
