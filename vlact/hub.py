"""Trained models as citizens of the Hugging Face hub: a folder of safetensors, config and card,
prediction from a video's path.

    from vlact.hub import ActionRecognizer
    model = ActionRecognizer.from_pretrained("folder or hub id")
    print(model.predict("clip.mp4", ["drop item", "spin block"]))

`save_pretrained(folder)` writes, `push_to_hub(id)` publishes, see `huggingface_hub.ModelHubMixin`.
A folder of somebody else's is not trusted: nothing in it can run code, no path in it leads out of
it, and what does not fit is a ValueError that names the file.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from vlact import ROOT, video
from vlact.models import by_name, files
from vlact.models.clip_text import openai_text
from vlact.models.disentangled import Disentangled
from vlact.models.dual import DualEncoder
from vlact.models.frames import FrameEncoder
from vlact.models.moving import MovingFrames
from vlact.models.poses import PoseEncoder
from vlact.models.text import sentence_encoder
from vlact.models.zoo.ezclip import EZCLIP
from vlact.runtime.device import autocast
from vlact.runtime.extras import needs
from vlact.runtime.jobs import write_whole
from vlact.schema import json_object
from vlact.training.features import extract
from vlact.video.clips import fit

with needs("vlact.hub"):
    from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

if TYPE_CHECKING:
    import pandas as pd

    from vlact.papers.actionvlm.localizing import Localizer

ENCODERS = {"DualEncoder": DualEncoder, "FrameEncoder": FrameEncoder, "PoseEncoder": PoseEncoder}
CONFIG, NUMBERS = "vlact.json", "config.json"  # what a model is; the numbers that it is made with
ENCODER, MOTION, LOCALIZER = "encoder.safetensors", "motion.safetensors", "localizer.safetensors"
READABLE = 0o644  # mode of a saved file: anybody may read it, as is the use of a folder to share
TAU = (1e-4, 1e4)  # least and greatest temperature
FPS = (1e-3, 1e4)  # least and greatest frame rate that features are taken at
MOST_NAMES = 10_000  # of motions that a file may list
OPTIONS = {  # of `Disentangled`
    "branches": bool,
    "fine_weight": float,
    "decorrelate": float,
    "consistent": float,
    "adversary": float,
    "independent": float,
    "head": str,
    "dynamic": bool,
    "swap": bool,
    "tempo": bool,
}
TRUNK = {"tau": float, "motion": bool, "frames": int | None}
CARD = """
---
{{ card_data }}
---

# {{ title }}

{{ text }}

```python
{{ code }}
```

Licence of the weights: {{ licence }}. The code that loads them is MIT.

{{ scores }}
"""


def _file(model_id: str, name: str, **given) -> Path:
    """A file of a folder, or of a repository on the hub."""
    local = Path(model_id) / name
    if local.is_file():
        return local
    if Path(model_id).is_dir():
        raise FileNotFoundError(
            f"{local}: expected a file that `save_pretrained` wrote; found "
            f"{sorted(p.name for p in local.parent.iterdir())}"
        )
    return Path(hf_hub_download(model_id, name, **given))


def _json(path: Path) -> dict:
    """A dict out of a file, or a ValueError that names it."""
    return json_object(path)


def _text_file(text: str) -> str:
    """What a text tower, `DualConfig.text`, is called in a folder that was saved."""
    return "text" + Path(text).suffix


def _within(name: str, value: float, bounds: tuple[float, float]) -> float:
    """The number, if it is in its bounds; nan is in none."""
    if not bounds[0] <= value <= bounds[1]:
        raise ValueError(f"{name} must be in {bounds[0]:g}..{bounds[1]:g}; got {value}")
    return value


class _Citizen(ModelHubMixin, library_name="vlact", model_card_template=CARD):
    """What all have in common: the encoder's file, that of its text tower if it has one, and a note
    of its kind.
    """

    numbers: ClassVar[dict[str, type]] = {}  # arguments that are numbers, which config.json holds
    call: ClassVar[str] = '"clip.mp4"'  # of `predict` in the card

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the model's own files and no others; a subclass writes its own before."""
        encoder, config = self.encoder, self.encoder.config
        if text := getattr(config, "text", ""):
            # the path may be a stranger's: it must lead to a text tower
            source, name = ROOT / text, _text_file(text)
            openai_text(source)
            if not (save_directory / name).exists() or not source.samefile(save_directory / name):
                shutil.copyfile(source, save_directory / name)
            # nor does the folder that it lies in on this machine go into the file
            encoder.config = replace(config, text=name)
        try:
            encoder.save(save_directory / ENCODER)
        finally:
            encoder.config = config
        note = {"kind": type(self).__name__, "encoder": type(encoder).__name__}
        write_whole(
            save_directory / CONFIG,
            lambda text, f: f.write_text(text),
            json.dumps(note, indent=1) + "\n",
        )
        for name in (ENCODER, MOTION, LOCALIZER, CONFIG, _text_file(text)):
            if (path := save_directory / name).is_file():
                path.chmod(READABLE)

    @classmethod
    def _is_jsonable(cls, value) -> bool:
        """What goes into config.json; models have files of their own."""
        return isinstance(value, int | float)

    def generate_model_card(
        self, license: str = "", metrics: dict[str, float] | None = None, **given
    ) -> ModelCard:
        """The card of the folder.

        Args:
            license: Of the weights, as the hub spells it, such as "mit"; not stated if empty.
            metrics: What was measured, by name.
            given: See `huggingface_hub.ModelHubMixin`, which passes `model_card_kwargs` here.
        """
        name, scores = type(self).__name__, metrics or {}
        data = self._hub_mixin_info.model_card_data.to_dict()
        data |= {"license": license} if license else {}
        data |= {"metrics": list(scores)} if scores else {}
        rows = [f"| {k} | {v:g} |" for k, v in scores.items()]
        return ModelCard.from_template(
            card_data=ModelCardData(**data),
            template_str=CARD,
            title=f"vlact {name}",
            text=self.__doc__.strip().split("\n")[0],
            code=f"from vlact.hub import {name}\n\n"
            f'model = {name}.from_pretrained("this folder or id")\n'
            f"print(model.predict({self.call}))",
            licence=license or "not stated",
            scores="\n".join(["| metric | value |", "|---|---|", *rows])
            if rows
            else "No scores were stated.",
            **given,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **given):
        """A model from a folder that `save_pretrained` wrote, or from the hub.

        Raises:
            FileNotFoundError: A folder without one of the files.
            ValueError: A file that is damaged, or of another kind of model; names file and entry.
        """
        where = {k: v for k, v in given.items() if k not in cls.numbers}
        try:
            path = _file(str(pretrained_model_name_or_path), NUMBERS, **where)
        except (FileNotFoundError, EntryNotFoundError):
            pass  # of a model without numbers
        else:
            wanted = {k: v for k, v in _json(path).items() if k in cls.numbers}
            files.checked(wanted, cls.numbers, path, cls.__name__, free=cls.numbers)
        return super().from_pretrained(pretrained_model_name_or_path, **given)

    @classmethod
    def _load(cls, model_id: str, config: dict, **given) -> dict:
        path = _file(model_id, ENCODER, **given)
        encoder = ENCODERS[config["encoder"]].load(path)
        if text := getattr(encoder.config, "text", ""):
            own = _file(model_id, _text_file(text), **given)
            encoder.config = replace(encoder.config, text=str(own.absolute()))
        return {"encoder": encoder}

    @classmethod
    def _from_pretrained(
        cls, *, model_id, revision, cache_dir, force_download, local_files_only, token, **kwargs
    ):
        given = {"revision": revision, "cache_dir": cache_dir, "force_download": force_download}
        given |= {"local_files_only": local_files_only, "token": token}
        path = _file(model_id, CONFIG, **given)
        config = _json(path)
        same = config.get("kind") == cls.__name__
        if not same or config.get("encoder") not in list(ENCODERS):
            raise ValueError(
                f"{path}: expected a {cls.__name__} with an encoder of {sorted(ENCODERS)}; got "
                f"{config!r:.200}"
            )
        # numbers come from config.json
        made = {k: v for k, v in kwargs.items() if k in cls.numbers}
        if missing := sorted(set(cls.needed()) - set(made)):
            raise ValueError(f"{path.with_name(NUMBERS)}: missing {missing}")
        try:
            return cls(**made, **cls._load(model_id, config, **given))
        except ValueError as error:
            if str(model_id) in str(error) or str(path.parent) in str(error):
                raise
            raise ValueError(f"{path.parent}: {error}") from error

    @classmethod
    def needed(cls) -> tuple[str, ...]:
        """Numbers without a default."""
        return ()


class ActionRecognizer(_Citizen):
    """Says which of some names fits a clip: ProcVLR, ACE, or CLIP on frames.

    Args:
        encoder: Its text side goes by all-MiniLM-L6-v2, or by the tower that its configuration
            names.
        tau: Temperature of the scores, in 1e-4..1e4.

    Raises:
        ValueError: Another temperature.
    """

    numbers = {"tau": float}
    call = '"clip.mp4", ["drop item", "spin block"]'

    def __init__(self, encoder: DualEncoder | FrameEncoder, tau: float = 0.02):
        if not isinstance(encoder, DualEncoder | FrameEncoder):
            raise ValueError(
                f"encoder must be a DualEncoder or a FrameEncoder; got {type(encoder).__name__}"
            )
        self.encoder, self.tau = encoder.eval(), _within("tau", tau, TAU)

    @torch.inference_mode()
    def predict(
        self, path: str | Path, names: list[str], start_s: float = 0.0, end_s: float | None = None
    ) -> "pd.DataFrame":
        """Names with scores that sum to one, best first.

        Args:
            path: A video.
            names: Two or more.
            start_s, end_s: Of the clip; the whole video if not given.

        Raises:
            vlact.video.VideoError: It cannot be read.
            ValueError: Fewer than two names, or a clip that is not inside the video.
        """
        if len(names) < 2:
            raise ValueError(f"names must be two or more, to tell apart; got {names}")
        config = self.encoder.config
        clip = _clip(path, start_s, end_s, config.num_frames, config.image_size)
        with autocast():
            seen = self.encoder(clip)[0].float()
        said = self.encoder.embed_text(sentence_encoder(config.text)(names))
        return _ranked(names, said @ seen / self.tau)


def _clip(
    path: str | Path, start_s: float, end_s: float | None, num_frames: int, size: int
) -> torch.Tensor:
    """Evenly spaced frames of part of a video: uint8 (1, T, H, W, 3)."""
    info = video.probe(Path(path))
    end_s = info.duration_s if end_s is None else end_s
    # the last frame is shown for a while; half of that may be asked for
    if not 0 <= start_s < end_s <= info.duration_s + 0.5 / info.fps:
        raise ValueError(
            f"{path}: expected 0 <= start_s < end_s <= {info.duration_s:.3f}; got {start_s} and "
            f"{end_s}"
        )
    times = video.clip_times(start_s, min(end_s, info.duration_s), num_frames, None, 1)
    wanted = video.nearest_frames(info, times)[0]
    needed = np.unique(wanted)
    frames = fit(video.read(info.path, needed, info), size)
    return torch.from_numpy(frames[np.searchsorted(needed, wanted)])[None]


def _ranked(names: list[str], logits: torch.Tensor) -> "pd.DataFrame":
    """`name, score`, scores that sum to one, best first."""
    import pandas as pd

    table = pd.DataFrame({"name": names, "score": logits.softmax(0).numpy().astype(np.float64)})
    return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)


class MotionRecognizer(_Citizen):
    """Names the coarse motion of a clip: EZ-CLIP trained by one of the designs of disentanglement.

    Args:
        encoder: CLIP on frames, which the model was built on.
        model: Trained, see `vlact.models.disentangled`.
        trunk: Options of the trunk: `tau`, `motion` (frames with differences) and `frames` (T).
        options: Options of `Disentangled`.
    """

    def __init__(self, encoder: FrameEncoder, model: Disentangled, trunk: dict, options: dict):
        self.encoder, self.model = encoder.eval(), model.eval()
        self.trunk, self.options = trunk, options

    @classmethod
    def build(
        cls,
        path: str | Path,
        names: list[str],
        fine: list[str],
        parent: list[int],
        trunk: dict,
        options: dict,
        text: str = "",
    ) -> "MotionRecognizer":
        """Before its weights.

        Args:
            path: The encoder's file.
            names, fine: Coarse and fine motions.
            parent: The coarse motion of each fine one.
            trunk, options: See the class.
            text: The text tower's file, if it is not where the encoder's file says.

        Raises:
            ValueError: Motions or options that make no model.
        """
        _within("tau", trunk.get("tau", math.nan), TAU)
        if len(parent) != len(fine) or not all(0 <= k < len(names) for k in parent):
            raise ValueError(
                f"parent must hold a number in 0..{len(names) - 1} for each of {len(fine)} fine "
                f"motions; got {parent!r:.80}"
            )
        own = {k: v for k, v in trunk.items() if k not in ("motion", "frames")}
        clip = MovingFrames.start(path, trunk.get("motion", False), trunk.get("frames"))
        texts = [*names, *fine]
        words = dict(zip(texts, sentence_encoder(text or clip.config.text)(texts), strict=True))
        model = Disentangled(
            EZCLIP(clip, words, names, **own), fine, torch.tensor(parent), **options
        )
        return cls(FrameEncoder.load(path), model, trunk, options)

    @property
    def names(self) -> list[str]:
        """The coarse motions."""
        return [n for (n,) in self.model.trunk.base]

    def _save_pretrained(self, save_directory: Path) -> None:
        note = {
            "names": self.names,
            "fine": [n for (n,) in self.model.fine],
            "parent": self.model.parent.tolist(),
            "trunk": self.trunk,
            "options": self.options,
        }
        files.save(save_directory / MOTION, "motion", note, self.model.state_dict())
        super()._save_pretrained(save_directory)

    @classmethod
    def _load(cls, model_id: str, config: dict, **given) -> dict:
        path = _file(model_id, MOTION, **given)
        note, state = files.read(path, "motion")
        names, parts = list[str], {"trunk": TRUNK, "options": OPTIONS}
        wanted = {"names": names, "fine": names, "parent": list[int], "trunk": dict}
        note = files.checked(note, wanted | {"options": dict}, path, "motion")
        for part, entries in parts.items():
            files.checked(note[part], entries, path, part, free=entries)
        if not 1 <= len(note["names"]) + len(note["fine"]) <= MOST_NAMES:
            raise ValueError(f"{path}: expected 1..{MOST_NAMES} names of motions")
        if not 1 <= (note["trunk"].get("frames") or 1) <= files.FRAMES:
            raise ValueError(f"{path}: trunk: frames must be in 1..{files.FRAMES}")
        encoder = super()._load(model_id, config, **given)["encoder"]
        if not isinstance(encoder, FrameEncoder):
            raise ValueError(f"{path}: expected a FrameEncoder beside it")
        place = _file(model_id, ENCODER, **given)
        made = cls.build(place, **note, text=encoder.config.text)
        files.fill(made.model, state, path)
        return {"encoder": encoder} | {k: getattr(made, k) for k in ("model", "trunk", "options")}

    @torch.inference_mode()
    def predict(
        self, path: str | Path, start_s: float = 0.0, end_s: float | None = None
    ) -> "pd.DataFrame":
        """Coarse motions with scores that sum to one, best first; arguments and errors as
        `ActionRecognizer.predict`.
        """
        clip = _clip(path, start_s, end_s, self.model.frames, self.encoder.config.image_size)
        with autocast():
            logits = self.model(clip)[0].float()
        return _ranked(self.names, logits)


class ActionLocalizer(_Citizen):
    """Finds actions in an untrimmed video: a localizer with the encoder whose features it was
    trained on.

    Args:
        encoder: Of the features.
        localizer: ActionFormer, TriDet or DyFADet.
        fps, stride: See `vlact.training.features.extract`.

    Raises:
        ValueError: A frame rate or stride that is none.
    """

    numbers = {"fps": float, "stride": int}

    def __init__(
        self,
        encoder: DualEncoder | FrameEncoder | PoseEncoder,
        localizer: "Localizer",
        fps: float,
        stride: int,
    ):
        self.encoder, self.localizer = encoder.eval(), localizer
        self.fps, self.stride = _within("fps", fps, FPS), stride
        _within("stride", stride, (1, files.FRAMES))

    @staticmethod
    def read(path: Path) -> "Localizer":
        """A localizer's file."""
        from vlact.papers.actionvlm.localizing import Localizer  # brings pandas

        return Localizer.load(path)

    @classmethod
    def needed(cls) -> tuple[str, ...]:
        return tuple(cls.numbers)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.localizer.save(save_directory / LOCALIZER)
        super()._save_pretrained(save_directory)

    @classmethod
    def _load(cls, model_id: str, config: dict, **given) -> dict:
        localizer = cls.read(_file(model_id, LOCALIZER, **given))
        return super()._load(model_id, config, **given) | {"localizer": localizer}

    @torch.inference_mode()
    def predict(
        self, path: str | Path, tell: Callable[[float], None] | None = None
    ) -> "pd.DataFrame":
        """Detections `video, start_s, end_s, label, score`, best first.

        Args:
            path: A video.
            tell: See `vlact.training.features.extract`.

        Raises:
            vlact.video.VideoError: It cannot be read.
        """
        name = Path(path).name
        found = extract(self.encoder, Path(path), self.fps, self.stride, tell=tell)
        table = self.localizer.detect({name: found}, {name: video.probe(Path(path)).duration_s})
        return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)


class VisionLanguageLocalizer(ActionLocalizer):
    """Finds actions in an untrimmed video with ActionVLM: a language model adds what it read of the
    classes' descriptions.

    Args:
        encoder, fps, stride: See `ActionLocalizer`.
        localizer: From `vlact.papers.actionvlm.experiments`, with the prompt that it reads.
    """

    @staticmethod
    def read(path: Path) -> "Localizer":
        """A localizer's file, and that of what reads for it."""
        from vlact.papers.actionvlm.experiments import VisionLanguageLocalizer

        return VisionLanguageLocalizer.load(path)


def load(name: str):
    """Any model by its name, in one line.

        model = load("open_clip:ViT-B-16/openai")
        features = model.encode(clips)  # uint8 (B, T, H, W, 3) to (B, D)

    Args:
        name: "open_clip:ARCHITECTURE/PRETRAINED", "transformers:FOLDER-OR-ID" or
            "videomae:FILE", see `vlact.models.by_name`; or a folder or hub id of what
            `save_pretrained` of this module wrote, whose kind is read from it.

    Raises:
        ValueError, FileNotFoundError: No such model; says what is known.
    """
    if name.startswith(by_name.LIBRARIES):
        return by_name.load(name)
    path = _file(name, CONFIG)
    said = _json(path).get("kind")
    if not isinstance(said, str) or said not in KINDS:
        raise ValueError(f"{path}: expected one of {sorted(KINDS)}; got {said!r:.80}")
    return KINDS[said].from_pretrained(name)


KINDS = {
    kind.__name__: kind
    for kind in (ActionLocalizer, ActionRecognizer, MotionRecognizer, VisionLanguageLocalizer)
}
