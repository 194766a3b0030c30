"""Old names, which work for one version more and say what they are called now.

`MODULES` holds modules that moved, `NAMES` what modules hold; both go from the old dotted name to
the new one.
"""

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

MODULES = {
    "vlact.across": "vlact.papers.across",
    "vlact.aligning": "vlact.papers.actionvlm.alignment",
    "vlact.claims": "vlact.report.claims",
    "vlact.clips": "vlact.video.clips",
    "vlact.detection": "vlact.models.detection",
    "vlact.device": "vlact.runtime.device",
    "vlact.doctor": "vlact.tools.doctor",
    "vlact.features": "vlact.training.features",
    "vlact.finetuning": "vlact.papers.ace.finetuning",
    "vlact.full_size": "vlact.papers.transfer.full_size",
    "vlact.inference": "vlact.papers.ace.prediction",
    "vlact.jobs": "vlact.runtime.jobs",
    "vlact.localizing": "vlact.papers.actionvlm.localizing",
    "vlact.measuring": "vlact.tools.measuring",
    "vlact.nms": "vlact.models.nms",
    "vlact.pipeline": "vlact.tools.pipeline",
    "vlact.plans": "vlact.tools.plans",
    "vlact.pretraining": "vlact.training.pretraining",
    "vlact.runs": "vlact.papers.ace.trials",
    "vlact.scaling": "vlact.papers.scaling",
    "vlact.scaling_localisers": "vlact.papers.actionvlm.scaling",
    "vlact.site": "vlact.report.site",
    "vlact.transferring": "vlact.papers.transfer.benchmark",
    "vlact.vision_language": "vlact.papers.actionvlm.experiments",
}
LOOP = ("autocast", "augment", "batches", "fit", "moving_average", "warmup_cosine")
NAMES = {
    "vlact.hub.Finder": "vlact.hub.ActionLocalizer",
    "vlact.hub.Mover": "vlact.hub.MotionRecognizer",
    "vlact.hub.Namer": "vlact.hub.ActionRecognizer",
    "vlact.hub.Reasoner": "vlact.hub.VisionLanguageLocalizer",
    "vlact.losses.actionvlm.aggregate": "vlact.models.actionvlm.aggregate",
    "vlact.losses.actionvlm.language_weight": "vlact.models.actionvlm.language_weight",
    "vlact.models.zoo.Recogniser": "vlact.models.zoo.Recognizer",
    "vlact.papers.ace.finetuning.halfway": "vlact.papers.ace.finetuning.wise_ft",
    "vlact.papers.ace.finetuning.keep": "vlact.papers.ace.finetuning.frozen_features",
    "vlact.papers.ace.finetuning.look": "vlact.papers.ace.finetuning.encode",
    "vlact.papers.actionvlm.experiments.VisionLanguageLocaliser": (
        "vlact.papers.actionvlm.experiments.VisionLanguageLocalizer"
    ),
    "vlact.papers.actionvlm.localizing.Localiser": "vlact.papers.actionvlm.localizing.Localizer",
    "vlact.papers.actionvlm.localizing.localise_job": (
        "vlact.papers.actionvlm.localizing.localize_job"
    ),
    **{f"vlact.training.{name}": f"vlact.training.loop.{name}" for name in LOOP},
}


def _warn(old: str, new: str) -> None:
    text = f"{old} is now {new}; the old name goes with the next version"
    warnings.warn(text, DeprecationWarning, stacklevel=3)


class Moved(MetaPathFinder, Loader):
    """Finds a module under its old name, after everything else has not."""

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MODULES else None

    def create_module(self, spec: ModuleSpec):
        _warn(spec.name, MODULES[spec.name])
        module = import_module(MODULES[spec.name])
        self.own = module.__spec__  # the import system is about to write over it
        return module

    def exec_module(self, module) -> None:
        module.__spec__ = self.own  # it ran under its new name

    def get_code(self, name: str):
        """What `python -m` runs."""
        _warn(name, MODULES[name])
        return find_spec(MODULES[name]).loader.get_code(MODULES[name])


def names_of(module: str) -> Callable[[str], object]:
    """`__getattr__` of a module of which `NAMES` has old names."""

    def __getattr__(name: str):
        new = NAMES.get(f"{module}.{name}")
        if new is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", new)
        place, _, name = new.rpartition(".")
        return getattr(import_module(place), name)

    return __getattr__


sys.meta_path.append(Moved())
