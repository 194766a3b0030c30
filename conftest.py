"""nbval compares what a reader reads: text and results, not warnings and progress on stderr."""


def pytest_collectstart(collector):
    if collector.fspath and collector.fspath.ext == ".ipynb":
        collector.skip_compare += ("stderr", "text/html", "image/svg+xml")
