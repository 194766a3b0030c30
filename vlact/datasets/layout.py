"""What the readers of real datasets share: folders that are where they should be, and frame numbers
to seconds.
"""

from pathlib import Path

from vlact import video


def require(path: Path, dataset: str, what: str) -> Path:
    """The path, if it is there.

    Raises:
        ValueError: It is not; says what was expected.
    """
    if not path.exists():
        raise ValueError(
            f"{path}: {dataset} expects {what} there, found nothing; `make doctor "
            "PROFILE=paper` says where to get it"
        )
    return path


class FrameTimes:
    """Frame numbers to seconds, probing each video once: annotations count frames, and files differ
    in rate.
    """

    def __init__(self, folder: Path):
        self.folder, self.known = Path(folder), {}

    def probe(self, name: str, where: str) -> video.VideoInfo:
        if name not in self.known:
            try:
                self.known[name] = video.probe(self.folder / name)
            except video.VideoError as error:
                raise ValueError(f"{where}: {error}") from error
        return self.known[name]

    def seconds(self, name: str, first: int, last: int, where: str) -> tuple[float, float]:
        """Start and end of the inclusive frames `first`..`last`.

        Raises:
            ValueError: Not whole numbers in order, or a start after the file's end. An end after it
                is cut: views of one scene differ by a few frames.
        """
        info = self.probe(name, where)
        try:
            if not (float(first).is_integer() and float(last).is_integer()):
                raise ValueError
            first, last = int(float(first)), int(float(last))
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"{where}: frames must be whole numbers; got {first!r} and {last!r}"
            ) from None
        if not 0 <= first <= last:
            raise ValueError(
                f"{where}: expected 0 <= start_frame <= end_frame; got {first} and {last}"
            )
        if first >= len(info.times):
            raise ValueError(
                f"{where}: frames {first}..{last} start after {self.folder / name} ends "
                f"({len(info.times)} frames)"
            )
        end = float(info.times[last + 1]) if last + 1 < len(info.times) else info.duration_s
        return float(info.times[first]), end
