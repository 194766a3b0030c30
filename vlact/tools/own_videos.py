"""What notebook 29 looks at: a user's own video and results, or the example; never both."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vlact.metrics import detad
from vlact.models.poses import PoseEncoder
from vlact.papers.actionvlm.experiments import VisionLanguageLocalizer
from vlact.papers.actionvlm.localizing import Localizer
from vlact.params import Params
from vlact.report import own
from vlact.stages.localizers import localizers
from vlact.stages.stadium import truth_of
from vlact.tools import cli_inputs as inputs
from vlact.tools import own_localizer
from vlact.training.features import extract
from vlact.video import probe

LOCALIZERS = ("ActionLocalizer", "VisionLanguageLocalizer")
RESAMPLES = 100  # of the videos, for intervals


@dataclass(frozen=True)
class Given:
    """The notebook's parameters, see its first cell."""

    path: str = ""
    model: str = ""
    encoder: str = ""
    reads: bool = False
    results: str = ""
    truth: str = ""
    subset: str = "auto"
    videos: str = ""

    @property
    def yours(self) -> bool:
        """Whether anything is the user's."""
        return bool(self.path or self.results or self.truth or self.model or self.videos)

    def check(self) -> None:
        """Raises:
        ValueError: One file of a pair, or `reads` of the example with files of one's own.
        FileNotFoundError: A file that is not there.
        """
        for one, other, what in (
            ("path", "model", "a folder that `vlact train-localizer` or save_pretrained wrote"),
            ("model", "path", "a video to look at"),
            ("results", "truth", "the ground truth to score them against"),
            ("truth", "results", "the detections to score"),
            ("videos", "results", "the detections to score, with their truth"),
        ):
            if getattr(self, one) and not getattr(self, other):
                raise ValueError(f"{one} is {getattr(self, one)!r}: pass {other}, too: {what}")
        if self.yours and self.reads:
            raise ValueError("reads is of the example; with your own video pass model alone")
        for name in ("path", "results", "truth", "videos"):
            if (value := getattr(self, name)) and not Path(value).exists():
                raise FileNotFoundError(
                    f"{name}: {value}: expected a file or folder; none is there"
                )


def film_of(p: Params, given: Given) -> Path | None:
    """The user's video, the example's, or none where only results are given."""
    if given.yours:
        return Path(given.path) if given.path else None
    localizers(p, must_exist=True)
    stadium = truth_of(p)
    return p.data / "stadium" / stadium[stadium["split"] == "test"]["video"].iloc[0]


def detections(p: Params, given: Given, film: Path) -> pd.DataFrame:
    """What the user's localizer, or the example's, finds: `video, start_s, end_s, label, score`."""
    seconds = probe(film).duration_s
    if given.yours:
        if trained := own_localizer.trained(given.model):
            return own_localizer.detect(trained, film, given.encoder, seconds)
        return inputs.hub_model(given.model, LOCALIZERS).predict(film)
    if given.reads:
        localizer = VisionLanguageLocalizer.load(p.data / "actionvlm" / "actionvlm.safetensors")
    else:
        localizer = Localizer.load(p.data / "localizers" / "localizer.safetensors")
    encoder = PoseEncoder.load(p.data / "aligned" / "eye.safetensors")
    features = extract(encoder, film, float(p.stadium.fps), p.tal.stride)
    return localizer.detect({film.name: features}, {film.name: seconds})


def known(p: Params, given: Given, film: Path) -> dict[str, pd.DataFrame]:
    """The ground truth of the video as a lane of its picture, where there is one."""
    if given.yours and not given.truth:
        return {}
    truth = inputs.read_truth(Path(given.truth), None).table if given.yours else truth_of(p)
    mine = truth[truth["video"].isin([film.name, film.stem, film.stem.removeprefix("v_")])]
    return {"ground truth": mine.assign(score=1.0)} if len(mine) else {}


def scored(p: Params, given: Given, tious: tuple[float, ...], buckets: str) -> own.Findings | None:
    """The user's results against the user's truth, or the example's; none where none are given.

    Args:
        p: Profile, of the example.
        given: Parameters.
        tious: Thresholds.
        buckets: A name of `vlact.metrics.detad.BUCKETS`, or nothing for fifths.
    """
    if buckets and buckets not in detad.BUCKETS:
        raise ValueError(f"buckets {buckets!r}: expected '' or one of {sorted(detad.BUCKETS)}")
    if given.yours and not given.results:
        return None
    if given.yours:
        subset = None if given.subset == "all" else given.subset
        truth, found = inputs.read_truth(Path(given.truth), subset), None
        found = inputs.read_results(Path(given.results))
        title = f"{Path(given.results).name} against {Path(given.truth).name}"
    else:
        localizers(p, must_exist=True)
        truth = inputs.read_truth(p.data / "stadium" / "ground_truth.json", "test")
        table = pd.read_parquet(p.data / "localizers" / "detections.parquet")
        found = table[(table["model"] == "ActionFormer") & (table["seed"] == p.seeds[0])]
        title = "The example: ActionFormer on the stadium"
    made = own.score(
        truth.table,
        found[[*inputs.SEGMENT, "score"]].reset_index(drop=True),
        tious=tious,
        durations=truth.durations(found),
        ambiguous=truth.ambiguous,
        invalid="drop",
        resamples=RESAMPLES,
        title=title,
        buckets=detad.BUCKETS[buckets] if buckets else None,
    )
    made.notes[:0] = truth.notes
    return made


def pages(
    made: own.Findings | None,
    found: pd.DataFrame | None,
    film: Path | None,
    given: Given,
    out: Path,
) -> list[Path]:
    """The reports on scores and on the video, a folder each."""
    written = []
    if made:
        folder = Path(given.videos) if given.videos else None
        if film and not given.yours:
            folder = film.parent
        files = own.write(made, ready(out / "scores"), inputs.films_of(list(made.lanes), folder))
        written.append(files[-1])
    if film:
        one = own.detected(
            found.assign(video=film.name), {film.name: probe(film).duration_s}, film.name
        )
        written.append(own.write(one, ready(out / "video"), {film.name: film})[-1])
    return written


def ready(folder: Path) -> Path:
    """The folder, made where there was none."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
