"""Trained models as citizens of the Hugging Face hub: a folder of safetensors, config and card,
prediction from a video's path.

    from vlact.hub import Namer
    model = Namer.from_pretrained("folder or hub id")
    print(model.predict("clip.mp4", ["drop item", "spin block"]))

`save_pretrained(folder)` writes, `push_to_hub(id)` publishes, see `huggingface_hub.ModelHubMixin`.
Nothing that is loaded can run code.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from huggingface_hub import ModelHubMixin, hf_hub_download

from vlact import ROOT, video
from vlact.models import files
from vlact.models.disentangled import Disentangled
from vlact.models.dual import DualEncoder
from vlact.models.frames import FrameEncoder
from vlact.models.moving import MovingFrames
from vlact.models.poses import PoseEncoder
from vlact.models.text import sentence_encoder
from vlact.models.zoo.ezclip import EZCLIP
from vlact.papers.actionvlm.experiments import VisionLanguageLocaliser
from vlact.papers.actionvlm.localizing import Localiser
from vlact.runtime.jobs import write_whole
from vlact.training.features import extract
from vlact.training.loop import autocast
from vlact.video.clips import fit

ENCODERS = {"DualEncoder": DualEncoder, "FrameEncoder": FrameEncoder, "PoseEncoder": PoseEncoder}
CONFIG = "vlact.json"
CARD = """
---
{{ card_data }}
---

# {{ title }}

{{ text }}

```python
{{ code }}
```
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


def _text_file(text: str) -> str:
    """What a text tower, `DualConfig.text`, is called in a folder that was saved."""
    return "text" + Path(text).suffix


def _config(model_id: str, kind: str, **given) -> dict:
    path = _file(model_id, CONFIG, **given)
    config = json.loads(path.read_text())
    if config.get("kind") != kind or config.get("encoder") not in ENCODERS:
        raise ValueError(
            f"{path}: expected a {kind} with an encoder of {sorted(ENCODERS)}; got {config}"
        )
    return config


class _Citizen(ModelHubMixin, library_name="vlact", model_card_template=CARD):
    """What all have in common: the encoder's file, that of its text tower if it has one, and a note
    of its kind.
    """

    def _save_pretrained(self, save_directory: Path) -> None:
        self.encoder.save(save_directory / "encoder.safetensors")
        if text := getattr(self.encoder.config, "text", ""):
            shutil.copy(ROOT / text, save_directory / _text_file(text))
        note = {"kind": type(self).__name__, "encoder": type(self.encoder).__name__}
        write_whole(
            save_directory / CONFIG,
            lambda text, f: f.write_text(text),
            json.dumps(note, indent=1) + "\n",
        )

    @classmethod
    def _is_jsonable(cls, value) -> bool:
        """What goes into config.json; models have files of their own."""
        return isinstance(value, int | float)

    def generate_model_card(self, *args, **kwargs):
        name = type(self).__name__
        call = '"clip.mp4", ["drop item", "spin block"]' if name == "Namer" else '"clip.mp4"'
        code = f'from vlact.hub import {name}\n\nmodel = {name}.from_pretrained("this folder or id")\nprint(model.predict({call}))'
        return super().generate_model_card(
            *args,
            title=f"vlact {name}",
            text=self.__doc__.strip().split("\n")[0],
            code=code,
            **kwargs,
        )

    @classmethod
    def _load(cls, model_id: str, config: dict, **given) -> dict:
        encoder = ENCODERS[config["encoder"]].load(_file(model_id, "encoder.safetensors", **given))
        if text := getattr(encoder.config, "text", ""):
            encoder.config = replace(
                encoder.config, text=str(_file(model_id, _text_file(text), **given).resolve())
            )
        return {"encoder": encoder}

    @classmethod
    def _from_pretrained(
        cls, *, model_id, revision, cache_dir, force_download, local_files_only, token, **kwargs
    ):
        given = {"revision": revision, "cache_dir": cache_dir, "force_download": force_download}
        given |= {"local_files_only": local_files_only, "token": token}
        config = _config(model_id, cls.__name__, **given)
        # numbers come from config.json
        return cls(**(kwargs | cls._load(model_id, config, **given)))


class Namer(_Citizen):
    """Says which of some names fits a clip: ProcVLR, ACE, or CLIP on frames.

    Args:
        encoder: Its text side goes by all-MiniLM-L6-v2, or by the tower that its configuration
            names.
        tau: Temperature of the scores.
    """

    def __init__(self, encoder: DualEncoder | FrameEncoder, tau: float = 0.02):
        self.encoder, self.tau = encoder.eval(), tau

    @torch.inference_mode()
    def predict(
        self, path: str | Path, names: list[str], start_s: float = 0.0, end_s: float | None = None
    ) -> pd.DataFrame:
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
        clip = _clip(
            path, start_s, end_s, self.encoder.config.num_frames, self.encoder.config.image_size
        )
        with autocast():
            seen = self.encoder(clip)[0].float()
        return _ranked(
            names,
            self.encoder.embed_text(sentence_encoder(self.encoder.config.text)(names))
            @ seen
            / self.tau,
        )


def _clip(
    path: str | Path, start_s: float, end_s: float | None, num_frames: int, size: int
) -> torch.Tensor:
    """Evenly spaced frames of part of a video: uint8 (1, T, H, W, 3)."""
    info = video.probe(Path(path))
    end_s = info.duration_s if end_s is None else end_s
    if not 0 <= start_s < end_s <= info.duration_s + 0.5 / info.fps:
        raise ValueError(
            f"{path}: expected 0 <= start_s < end_s <= {info.duration_s:.3f}; got {start_s} and "
            f"{end_s}"
        )
    wanted = video.nearest_frames(
        info, video.clip_times(start_s, min(end_s, info.duration_s), num_frames, None, 1)
    )[0]
    needed = np.unique(wanted)
    return torch.from_numpy(
        fit(video.read(info.path, needed, info), size)[np.searchsorted(needed, wanted)]
    )[None]


def _ranked(names: list[str], logits: torch.Tensor) -> pd.DataFrame:
    """`name, score`, scores that sum to one, best first."""
    table = pd.DataFrame({"name": names, "score": logits.softmax(0).numpy().astype(np.float64)})
    return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)


class Mover(_Citizen):
    """Names the coarse motion of a clip: EZ-CLIP with a coarse and a fine branch.

    Args:
        encoder: CLIP on frames, which the model was built on.
        model: Trained, see `vlact.models.disentangled`.
        trunk: Options of the trunk: `tau`, `motion`, `frames`, and others of `EZCLIP`.
        options: Options of `Disentangled`.
    """

    def __init__(self, encoder: FrameEncoder, model: Disentangled, trunk: dict, options: dict):
        self.encoder, self.model, self.trunk, self.options = (
            encoder.eval(),
            model.eval(),
            trunk,
            options,
        )

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
    ) -> "Mover":
        """Before its weights: the encoder's file, coarse and fine names, the coarse class of each
        fine one, both options, and the text tower's file, if it is not where the encoder's file
        says.
        """
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
        super()._save_pretrained(save_directory)
        note = {
            "names": self.names,
            "fine": [n for (n,) in self.model.fine],
            "parent": self.model.parent.tolist(),
        }
        files.save(
            save_directory / "mover.safetensors",
            "mover",
            note | {"trunk": self.trunk, "options": self.options},
            self.model.state_dict(),
        )

    @classmethod
    def _load(cls, model_id: str, config: dict, **given) -> dict:
        path = _file(model_id, "mover.safetensors", **given)
        note, state = files.read(path, "mover")
        encoder = super()._load(model_id, config, **given)["encoder"]
        made = cls.build(
            _file(model_id, "encoder.safetensors", **given), **note, text=encoder.config.text
        )
        files.fill(made.model, state, path)
        return {
            "encoder": encoder,
            "model": made.model,
            "trunk": made.trunk,
            "options": made.options,
        }

    @torch.inference_mode()
    def predict(
        self, path: str | Path, start_s: float = 0.0, end_s: float | None = None
    ) -> pd.DataFrame:
        """Coarse motions with scores that sum to one, best first; arguments and errors as
        `Namer.predict`.
        """
        clip = _clip(path, start_s, end_s, self.model.frames, self.encoder.config.image_size)
        with autocast():
            logits = self.model(clip)[0].float()
        return _ranked(self.names, logits)


class Finder(_Citizen):
    """Finds actions in an untrimmed video: a localiser with the encoder whose features it was
    trained on.

    Args:
        encoder: Of the features.
        localiser: ActionFormer, TriDet or DyFADet.
        fps, stride: See `vlact.training.features.extract`.
    """

    def __init__(
        self,
        encoder: DualEncoder | FrameEncoder | PoseEncoder,
        localiser: Localiser,
        fps: float,
        stride: int,
    ):
        self.encoder, self.localiser, self.fps, self.stride = encoder.eval(), localiser, fps, stride

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        self.localiser.save(save_directory / "localiser.safetensors")

    @classmethod
    def _load(cls, model_id: str, config: dict, **given) -> dict:
        localiser = Localiser.load(_file(model_id, "localiser.safetensors", **given))
        return super()._load(model_id, config, **given) | {"localiser": localiser}

    @torch.inference_mode()
    def predict(self, path: str | Path) -> pd.DataFrame:
        """Detections `video, start_s, end_s, label, score`, best first.

        Raises:
            vlact.video.VideoError: It cannot be read.
        """
        name = Path(path).name
        found = extract(self.encoder, Path(path), self.fps, self.stride)
        table = self.localiser.detect({name: found}, {name: video.probe(Path(path)).duration_s})
        return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)


class Reasoner(Finder):
    """Finds actions in an untrimmed video with ActionVLM: a language model adds what it read of the
    classes' descriptions.

    Args:
        encoder, fps, stride: See `Finder`.
        localiser: From `vlact.papers.actionvlm.experiments`, with the prompt that it reads.
    """

    @classmethod
    def _load(cls, model_id: str, config: dict, **given) -> dict:
        localiser = VisionLanguageLocaliser.load(_file(model_id, "localiser.safetensors", **given))
        return super(Finder, cls)._load(model_id, config, **given) | {"localiser": localiser}
