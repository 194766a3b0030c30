"""Published models by name, as their own libraries make them: `vlact.hub.load`.

    open_clip:ARCHITECTURE/PRETRAINED   any of open_clip, with a tag or a local file of weights
    open_clip:local-dir:FOLDER          one in open_clip's own layout (hf-hub:ID from the hub)
    videomae:FILE                       VideoMAE or VideoMAEv2 as its authors publish it
    transformers:FOLDER-OR-ID           a video classifier, VideoMAE, X-CLIP, from safetensors

What comes back takes clips as every encoder here does, uint8 (B, T, H, W, 3), and has two methods:
`describe()` and `encode(clips)`; a classifier also `classify(clips)`, a model with a text side
`embed_text(texts)`. Weights are the library's own, pixels are normalised as it says; no code of a
stranger is run.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vlact.runtime.extras import needs

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std where nothing is said
MOST_SIDE, MOST_FRAMES = 2048, 1024  # of clips that a model may ask for
VOCABULARIES = ("tokenizer.json", "vocab.json", "tokenizer.model")
PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json")


class Published(nn.Module):
    """A model of another library behind the two methods of an encoder.

    Args:
        name: As it was asked for.
        model: Of the library, in evaluation mode.
        num_frames: Frames of a clip.
        image_size: Pixels of a frame's side.
        mean, std: Of the pixels, three numbers each, after division by 255.
    """

    def __init__(self, name: str, model: nn.Module, num_frames: int, image_size: int, mean, std):
        super().__init__()
        self.name, self.model = name, model.eval()
        self.num_frames, self.image_size = num_frames, image_size
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        for what, value, most in (
            ("frames a clip", num_frames, MOST_FRAMES),
            ("pixels a side", image_size, MOST_SIDE),
        ):
            if not isinstance(value, int) or not 1 <= value <= most:
                raise ValueError(f"{name}: expected 1..{most} {what}; got {value!r}")

    def describe(self) -> dict[str, int]:
        """What a clip must have."""
        return {"num_frames": self.num_frames, "image_size": self.image_size}

    def pixels(self, clips) -> Tensor:
        """uint8 (B, T, H, W, 3) to normalised float32 (B, T, 3, H, W), where the model lies.

        Raises:
            ValueError: Clips of another shape; says which is expected.
        """
        clips = torch.as_tensor(clips)
        size = (self.num_frames, self.image_size, self.image_size, 3)
        if clips.ndim != 5 or tuple(clips.shape[1:]) != size or clips.dtype != torch.uint8:
            raise ValueError(
                f"{self.name}: expected uint8 clips (B, {', '.join(map(str, size))}); got "
                f"{clips.dtype} {tuple(clips.shape)}"
            )
        x = clips.to(self.mean.device).permute(0, 1, 4, 2, 3).float() / 255
        return (x - self.mean) / self.std

    def features(self, pixels: Tensor) -> Tensor:
        """(B, T, 3, H, W) to (B, D)."""
        raise NotImplementedError

    @torch.no_grad()
    def encode(self, clips) -> np.ndarray:
        """uint8 (B, T, H, W, 3) to features (B, D), float32."""
        return self.features(self.pixels(clips)).float().cpu().numpy()


class OpenClip(Published):
    """An image-text model of open_clip; a clip is one frame, its feature that of the image."""

    def __init__(self, name: str, model: nn.Module, size: int, mean, std, tokenize):
        super().__init__(name, model, 1, size, mean, std)
        self.tokenize = tokenize

    def features(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels[:, 0])

    @torch.no_grad()
    def embed_text(self, texts: list[str]) -> np.ndarray:
        """Strings to (N, D).

        Raises:
            ValueError: One that is longer than the text tower reads, which the library would cut.
        """
        tokens = self.tokenize(texts)
        length = tokens.shape[1]
        # the library cuts silently; with twice the room a long text is seen to go on
        roomy = self.tokenize([*texts, "a"], context_length=2 * length)[:, length:]
        long = (roomy[:-1] != roomy[-1]).any(1)
        if long.any():
            raise ValueError(
                f"{self.name}: {texts[int(long.nonzero()[0, 0])]!r:.80} is longer than the "
                f"{length} tokens that its text tower reads; shorten it"
            )
        return self.model.encode_text(tokens.to(self.mean.device)).float().cpu().numpy()


class Transformer(Published):
    """A video model of transformers.

    Its features are what its classifier is given; without a classifier, the mean of its tokens, or
    what an X-CLIP compares with texts.
    """

    def __init__(self, name: str, model: nn.Module, frames: int, size: int, mean, std, tokenize):
        super().__init__(name, model, frames, size, mean, std)
        self.tokenize = tokenize

    @property
    def classes(self) -> list[str]:
        """Names, by number; empty where there is no classifier."""
        names = self.model.config.id2label if hasattr(self.model, "classifier") else {}
        return [names[i] for i in sorted(names)]

    def features(self, pixels: Tensor) -> Tensor:
        if hasattr(self.model, "get_video_features"):
            found = self.model.get_video_features(pixel_values=pixels)
            return found if isinstance(found, Tensor) else found.pooler_output
        if not hasattr(self.model, "classifier"):
            return self.model(pixel_values=pixels).last_hidden_state.mean(1)
        seen = []
        handle = self.model.classifier.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
        try:
            self.model(pixel_values=pixels)
        finally:
            handle.remove()
        return seen[0]

    @torch.no_grad()
    def classify(self, clips) -> np.ndarray:
        """uint8 (B, T, H, W, 3) to the scores of `classes` before softmax, (B, classes).

        Raises:
            ValueError: A model without a classifier.
        """
        if not self.classes:
            raise ValueError(f"{self.name}: has no classifier; use encode")
        return self.model(pixel_values=self.pixels(clips)).logits.float().cpu().numpy()

    @torch.no_grad()
    def embed_text(self, texts: list[str]) -> np.ndarray:
        """Strings to (N, D).

        Raises:
            ValueError: A model without a text side, or a text that is longer than it reads.
        """
        if self.tokenize is None:
            raise ValueError(f"{self.name}: has no text side with a tokenizer")
        most = self.model.config.text_config.max_position_embeddings
        given = self.tokenize(texts, return_tensors="pt", padding=True)
        long = given["attention_mask"].sum(1) > most
        if long.any():
            raise ValueError(
                f"{self.name}: {texts[int(long.nonzero()[0, 0])]!r:.80} is longer than the {most} "
                "tokens that its text tower reads; shorten it"
            )
        found = self.model.get_text_features(**given)
        found = found if isinstance(found, Tensor) else found.pooler_output
        return found.float().cpu().numpy()


LIBRARIES = ("open_clip:", "transformers:", "videomae:")


def load(spec: str) -> Published:
    """A model by its name, see the module.

    Raises:
        ValueError: A library, an architecture or weights that are not known.
        FileNotFoundError: A folder that is not there.
    """
    library, _, rest = spec.partition(":")
    known = {"open_clip": _open_clip, "transformers": _transformers, "videomae": _videomae}
    if library not in known or not rest:
        raise ValueError(
            f"{spec!r}: expected open_clip:ARCHITECTURE/PRETRAINED, transformers:FOLDER-OR-ID or "
            "videomae:FILE"
        )
    return known[library](spec, rest)


def _videomae(spec: str, path: str) -> Transformer:
    """Of sixteen frames of 224 pixels, as its authors use it."""
    from vlact.models.checkpoints import videomae

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: expected a checkpoint of VideoMAE; there is no such file")
    model = videomae(path)
    size, frames = model.config.image_size, model.config.num_frames
    return Transformer(spec, model, frames, size, *IMAGENET, None)


def _open_clip(spec: str, rest: str) -> OpenClip:
    """Never with random weights."""
    with needs(spec):
        import open_clip
    name, pretrained = rest, ""
    if not rest.startswith(("hf-hub:", "local-dir:")):
        mark = ":" if ":" in rest else "/"
        name, _, pretrained = rest.partition(mark)
        if not pretrained:
            raise ValueError(f"{spec}: say which weights, a tag or a file: open_clip:{name}/TAG")
        if name not in open_clip.list_models():
            near = [m for m in open_clip.list_models() if m.lower() == name.lower()]
            hint = f"; {near[0]!r} is one" if near else "; see open_clip.list_models()"
            raise ValueError(f"{spec}: open_clip knows no architecture {name!r}{hint}")
    try:
        model = open_clip.create_model(
            name, pretrained or None, load_weights=True, require_pretrained=True
        )
    except (RuntimeError, OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{spec}: no such weights; {first}") from None
    size = model.visual.image_size
    size = size[0] if isinstance(size, tuple | list) else size
    norm = open_clip.get_model_preprocess_cfg(model)
    tokenize = open_clip.get_tokenizer(name)
    return OpenClip(spec, model, size, norm["mean"], norm["std"], tokenize)


def _transformers(spec: str, name: str) -> Transformer:
    with needs(spec):
        import transformers
    local = Path(name).expanduser()
    if local.exists() or local.is_absolute() or name.startswith((".", "~")):
        if not (local / "config.json").is_file():
            raise FileNotFoundError(f"{local / 'config.json'}: expected a folder of transformers")
        name = str(local)
    safe = {"trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **safe)
        kind = (getattr(config, "architectures", None) or [""])[0]
        maker = transformers.AutoModel
        if kind.endswith("ForVideoClassification"):
            maker = transformers.AutoModelForVideoClassification
        model, told = maker.from_pretrained(
            name, config=config, use_safetensors=True, output_loading_info=True, **safe
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        first = " ".join(str(error).split())[:200]
        raise ValueError(f"{spec}: transformers cannot load it; {first}") from None
    if missing := sorted(told["missing_keys"]):
        raise ValueError(
            f"{spec}: its file lacks {len(missing)} of the weights, such as {missing[0]!r}; they "
            "would be random"
        )
    sees = getattr(config, "vision_config", config)
    frames = getattr(sees, "num_frames", None) or getattr(sees, "frames_per_clip", None)
    size = getattr(sees, "image_size", None) or getattr(sees, "crop_size", None)
    if frames is None or size is None:
        raise ValueError(f"{spec}: expected a model of videos; its config says no num_frames")
    size = size[0] if isinstance(size, tuple | list) else size
    mean, std = _normalisation(name, local)
    tokenize = None
    if hasattr(model, "get_text_features"):
        # without its files the library makes up one of no words
        if local.is_dir() and not any((local / f).is_file() for f in VOCABULARIES):
            warnings.warn(f"{spec}: no tokenizer, so no texts", stacklevel=3)
        else:
            tokenize = transformers.AutoTokenizer.from_pretrained(name, **safe)
    return Transformer(spec, model, frames, size, mean, std, tokenize)


def _normalisation(name: str, local: Path):
    """Mean and std that the model's own processor subtracts and divides by."""
    for file in PROCESSORS:
        path = local / file
        if not local.is_dir():
            from transformers.utils import cached_file

            found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
            path = Path(found) if found else path
        if path.is_file():
            said = json.loads(path.read_text(encoding="utf-8"))
            if said.get("do_normalize") is False:
                return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            return said.get("image_mean", IMAGENET[0]), said.get("image_std", IMAGENET[1])
    warnings.warn(
        f"transformers:{name}: no preprocessor_config.json; ImageNet's mean and std are taken",
        stacklevel=4,
    )
    return IMAGENET
