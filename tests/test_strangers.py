"""Files of strangers: whatever is in a model's folder or a checkpoint, it is loaded or a ValueError
names the file; no path in it leads anywhere else.

`make fuzz` tries 1,000 files of each kind, other ones each time.
"""

import json
import shutil
import struct
from dataclasses import asdict, replace

import pytest
import test_checkpoints as published
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save, save_file

from vlact import hub
from vlact.language.descriptions import WORDS, describe
from vlact.language.prompts import encode_clauses, prompt_of, tokenizer
from vlact.models import checkpoints, files
from vlact.models.actionformer import ActionFormer, LocalizerConfig
from vlact.models.actionvlm import ActionVLM, Reader, ReaderConfig, Variant, lora
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.frames import FrameEncoder
from vlact.models.poses import PoseConfig, PoseEncoder
from vlact.papers.actionvlm import experiments
from vlact.papers.actionvlm.localizing import Clock, Localizer

SMALL = DualConfig(32, 16, 4, 32, 1, 2, 16, 384, "mean")
SHAPE = LocalizerConfig(feature_dim=32, classes=2, dim=16, heads=2, embeds=1, stems=1, levels=2)
RECIPE = {"window": 16, "pre_nms_topk": 20, "nms": {"method": "gaussian", "max_seg_num": 5}}
NUMBERS = [0, -1, 1, 3, 10**7, 2**40, 10**30, 1e-30, -0.5, 1e308]
anything = st.recursive(
    st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.text(max_size=8),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=6), x, max_size=3),
    max_leaves=6,
)


def actionvlm():
    """A small ActionVLM with LoRA, as a localizer."""
    classes = {"Leap": describe(["run left", "leap"]), "Squat": describe(["squat", "rack"])}
    words = tokenizer(list(classes), 17)
    said = encode_clauses(
        [f"the person {w}" for x in WORDS.values() for w in x], lambda x: torch.randn(len(x), 8)
    )
    language = {"feature_dim": 32, "numbers": words.convert_tokens_to_ids("0")}
    reader = lora(Reader(ReaderConfig(len(words), len(WORDS), 8, 16, 2, 1, 8, language)), 4)
    mean, std = torch.zeros(32), torch.ones(32)
    model = ActionVLM(ActionFormer(SHAPE), reader, mean, std, Variant("row", 0.7), 16).eval()
    prompt = prompt_of(words, list(classes), list(classes.values()), said)
    return experiments.VisionLanguageLocalizer(
        model, list(classes), Clock(0.25), RECIPE, mean, std, prompt
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One saved model of every kind."""
    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("models")
    FrameEncoder(SMALL).save(home / "clip.safetensors")
    localizer = Localizer(
        ActionFormer(SHAPE).eval(), ["a", "b"], Clock(0.25), RECIPE, torch.zeros(32), torch.ones(32)
    )
    poses = PoseEncoder(PoseConfig(32, (4, 8), 32, 3))
    models = [
        hub.ActionRecognizer(DualEncoder(SMALL), tau=0.1),
        hub.MotionRecognizer.build(
            home / "clip.safetensors",
            ["rising", "falling"],
            ["rising fast", "falling"],
            [0, 1],
            {"tau": 0.05, "frames": 4},
            {"branches": True, "decorrelate": 0.1},
        ),
        hub.ActionLocalizer(poses, localizer, 8.0, 2),
        hub.VisionLanguageLocalizer(DualEncoder(SMALL), actionvlm(), 8.0, 2),
    ]
    for model in models:
        model.save_pretrained(home / type(model).__name__)
    return home


def header_of(data: bytes) -> tuple[dict, bytes]:
    """A safetensors file's header and the rest."""
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header: dict, rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def places(note, at=()):
    """Paths to everything in a note out of JSON."""
    yield at
    if isinstance(note, dict | list):
        for key, value in note.items() if isinstance(note, dict) else enumerate(note):
            yield from places(value, (*at, key))


def put(note, at, value):
    """The note with something else at a place."""
    if not at:
        return value
    note = note.copy()
    note[at[0]] = put(note[at[0]], at[1:], value)
    return note


def with_tensor(draw, data: bytes) -> bytes:
    """A safetensors file's bytes with one tensor left out or another one."""
    note, state = header_of(data)[0]["__metadata__"], load(data)
    key = draw(st.sampled_from(sorted(state)))
    like, number = state.pop(key), draw(st.sampled_from([-1, 0, 1, 10**7, float("nan")]))
    match draw(st.sampled_from(["none", "shape", "values"])):
        case "shape":
            state[key] = torch.ones(draw(st.lists(st.integers(0, 4), max_size=3)))
        case "values":
            whole = not like.is_floating_point() and number != number
            state[key] = torch.full_like(like, 0 if whole else number)
    return save(state, metadata=note)


def spoilt(draw, data: bytes, name: str) -> bytes:
    """A file's bytes with something wrong with them."""
    how = draw(st.sampled_from(["note", "note", "tensor", "cut", "flip", "other"]))
    if how == "cut":
        return data[: draw(st.integers(0, len(data) - 1))]
    if how == "flip":
        i = draw(st.integers(0, min(len(data), 3000) - 1))
        return data[:i] + bytes([draw(st.integers(0, 255))]) + data[i + 1 :]
    if how == "other":
        return draw(st.binary(max_size=64))
    if how == "tensor" and not name.endswith(".json"):
        return with_tensor(draw, data)
    value = draw(anything)
    if name.endswith(".json"):
        note = json.loads(data)
        return json.dumps(put(note, draw(st.sampled_from(list(places(note)))), value)).encode()
    header, rest = header_of(data)
    (kind,) = header["__metadata__"]
    note = json.loads(header["__metadata__"][kind])
    note = put(note, draw(st.sampled_from(list(places(note)))), value)
    header["__metadata__"] = {kind: json.dumps(note)}
    return with_header(header, rest)


@pytest.mark.fuzz
@pytest.mark.parametrize(
    "kind", ["ActionRecognizer", "MotionRecognizer", "ActionLocalizer", "VisionLanguageLocalizer"]
)
def test_a_folder_loads_or_says_which_file_is_wrong(kind, folders, tmp_path_factory):
    source, mine = folders / kind, tmp_path_factory.mktemp(kind) / "mine"
    shutil.copytree(source, mine)
    names = sorted(p.name for p in source.iterdir() if p.suffix in (".json", ".safetensors"))

    @given(st.data())
    def try_one(data):
        name = data.draw(st.sampled_from(names))
        bad = spoilt(data.draw, (source / name).read_bytes(), name)
        (mine / name).write_bytes(bad)
        try:
            getattr(hub, kind).from_pretrained(mine)
        except (ValueError, FileNotFoundError) as error:
            assert str(mine) in str(error)
        finally:
            (mine / name).write_bytes((source / name).read_bytes())

    try_one()
    assert type(getattr(hub, kind).from_pretrained(mine)).__name__ == kind


LOADERS = {
    "timesformer": (
        lambda: published.published_timesformer(dim=64),
        lambda path: checkpoints.timesformer(path, published.encoder()),
    ),
    "videomae": (
        lambda: published.published_videomae(),
        lambda path: checkpoints.videomae(path, 4, 16, 2),
    ),
    "internvideo2": (
        lambda: published.published_internvideo2(),
        lambda path: checkpoints.internvideo2(path, 2, heads=2, pool_heads=4),
    ),
    "clip": (None, lambda path: checkpoints.openai_clip(path, 4)),
}


@pytest.mark.fuzz
@pytest.mark.parametrize("family", LOADERS)
def test_a_checkpoint_loads_or_says_what_is_wrong(family, tmp_path_factory):
    folder = tmp_path_factory.mktemp(family)
    make, loader = LOADERS[family]
    if make is None:
        published.published_clip(folder / "whole.safetensors")
        state = checkpoints.read(folder / "whole.safetensors")
    else:
        state = make()
    path = folder / "x.safetensors"

    @given(st.data())
    def try_one(data):
        bad, key = dict(state), data.draw(st.sampled_from(sorted(state)))
        how = data.draw(st.sampled_from(["drop", "rename", "shape", "number", "cut"]))
        if how == "drop":
            del bad[key]
        elif how == "rename":
            other = key.replace("0", "99999999") + data.draw(st.text("ab.0", max_size=3))
            bad[other] = bad.pop(key)
        elif how == "shape":
            shape = data.draw(st.lists(st.integers(0, 5), max_size=5))
            bad[key] = torch.zeros(shape)
        elif how == "number":  # a wide first layer makes every other one wider
            rest = bad[key].shape[1:]
            bad[key] = torch.zeros(max(2, 10**6 // max(1, rest.numel())), *rest)
        save_file({k: v.contiguous().clone() for k, v in bad.items()}, path)
        if how == "cut":
            whole = path.read_bytes()
            path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        try:
            loader(path)
        except ValueError as error:
            assert str(path) in str(error)

    try_one()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"depth": 10**7}, "depth must be a whole number in 1"),
        ({"dim": 10**7}, "dim must be a whole number in 1"),
        ({"heads": 0}, "heads must be a whole number in 1"),
        ({"heads": 3}, "dim must be a multiple of heads; got 32 and 3"),
        ({"depth": True}, "depth must be a whole number in 1"),
        ({"image_size": 0}, "image_size must be a whole number in 1"),
        ({"num_frames": 2**40}, "num_frames must be a whole number in 1"),
    ],
)
def test_shapes_have_bounds(more, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **more)
    files.save(tmp_path / "e.safetensors", "config", asdict(SMALL) | more, {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"e\.safetensors"):
        DualEncoder.load(tmp_path / "e.safetensors")


def test_a_wide_config_takes_no_memory(tmp_path, monkeypatch):
    """The module of 300 GB is never made: its shapes are compared first."""
    DualEncoder(SMALL).save(tmp_path / "e.safetensors")
    note, state = files.read(tmp_path / "e.safetensors", "config")
    files.save(tmp_path / "e.safetensors", "config", note | {"dim": 2**15, "depth": 2}, state)
    made, real = [], torch.nn.Linear.__init__

    def spy(self, *args, **kwargs):
        real(self, *args, **kwargs)
        made.append(self.weight.device.type)

    monkeypatch.setattr(torch.nn.Linear, "__init__", spy)
    with pytest.raises(ValueError, match=r"e.safetensors: missing .*of another shape"):
        DualEncoder.load(tmp_path / "e.safetensors")
    assert set(made) == {"meta"}


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan"), float("inf"), 1e-30])
def test_a_temperature_that_makes_no_scores(tau):
    from vlact.models.zoo import Recognizer

    with pytest.raises(ValueError, match="tau must be"):
        hub.ActionRecognizer(DualEncoder(SMALL), tau=tau)
    if tau != 1e-30:
        with pytest.raises(ValueError, match="tau must be"):
            Recognizer({}, ["take block"], tau)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("vlact.json", "{", r"vlact\.json: expected JSON"),
        ("vlact.json", "[]", r"vlact\.json: expected a JSON object; got list"),
        ("vlact.json", '{"kind": ["ActionRecognizer"]}', r"vlact\.json: expected a ActionRec"),
        ("config.json", "{", r"config\.json: expected JSON"),
        ("config.json", "[1]", r"config\.json: expected a JSON object"),
        ("config.json", '{"tau": "hot"}', r"config\.json: .*tau: expected float; got 'hot'"),
        ("config.json", '{"tau": 0}', r"tau must be in 0\.0001\.\.10000; got 0"),
        ("encoder.safetensors", "no", r"encoder\.safetensors: expected a whole safetensors file"),
    ],
)
def test_what_is_wrong_with_a_folder(name, text, message, folders, tmp_path):
    shutil.copytree(folders / "ActionRecognizer", tmp_path / "m")
    (tmp_path / "m" / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        hub.ActionRecognizer.from_pretrained(tmp_path / "m")


def encoder_with_text(path, text: str) -> None:
    """A frame encoder whose text tower is said to lie at `text`."""
    clip = FrameEncoder(replace(SMALL, text_dim=384))
    clip.config = replace(clip.config, text=text)
    clip.save(path)


@pytest.mark.parametrize("text", ["../../../etc/passwd", "/etc/passwd", "a/../../b", "x\0y"])
def test_an_encoder_s_text_stays_in_the_repository_or_beside_it(text, tmp_path):
    encoder_with_text(tmp_path / "e.safetensors", text)
    with pytest.raises(ValueError, match=r"e\.safetensors: text: expected a path in the repos"):
        FrameEncoder.load(tmp_path / "e.safetensors")


def test_what_is_saved_holds_its_own_files_only(tmp_path):
    """A path inside the repository, but not to a text tower, is not copied."""
    encoder_with_text(tmp_path / "e.safetensors", "pyproject.toml")
    model = hub.ActionRecognizer(FrameEncoder.load(tmp_path / "e.safetensors"))
    with pytest.raises(ValueError, match=r"pyproject\.toml: expected a whole file of tensors"):
        model.save_pretrained(tmp_path / "m")
    assert not list((tmp_path / "m").glob("text*"))


def test_a_saved_text_tower_names_no_folder_of_this_machine(tmp_path):
    published.published_clip(path := tmp_path / "c.safetensors")
    clip, _ = checkpoints.openai_clip(path, 4)
    model = hub.ActionRecognizer(clip)
    model.save_pretrained(tmp_path / "m")
    assert model.encoder.config.text == str(path)  # in memory it is where it was
    note, _ = files.read(tmp_path / "m" / "encoder.safetensors", "config")
    assert note["text"] == "text.safetensors"
    again = hub.ActionRecognizer.from_pretrained(tmp_path / "m")
    again.save_pretrained(tmp_path / "m")  # over itself
    again.save_pretrained(tmp_path / "n")
    names = ("encoder.safetensors", "text.safetensors")
    for name in names:
        assert (tmp_path / "n" / name).read_bytes() == (tmp_path / "m" / name).read_bytes()


def test_a_language_model_s_folder_stays_in_the_repository(tmp_path):
    config = ReaderConfig(60, 0, 0, 16, 2, 1, 8, {"feature_dim": 4})
    note = asdict(config) | {"lm": "../../elsewhere"}
    files.save(tmp_path / "r.safetensors", "reader", note, {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"r\.safetensors: lm: expected a path in the repository"):
        Reader.load(tmp_path / "r.safetensors")
    files.save(tmp_path / "r.safetensors", "reader", note | {"lm": "0"}, {"a": torch.zeros(1)})
    with pytest.raises(FileNotFoundError, match=r"r\.safetensors: .*expected a transformers fold"):
        Reader.load(tmp_path / "r.safetensors")


def test_a_saved_folder_is_for_everybody_and_says_what_is_known(tmp_path):
    model = hub.ActionRecognizer(DualEncoder(SMALL))
    known = {"license": "cc-by-4.0", "metrics": {"accuracy": 0.5}}
    model.save_pretrained(tmp_path / "m", model_card_kwargs=known)
    for name in ("encoder.safetensors", "vlact.json"):
        assert (tmp_path / "m" / name).stat().st_mode & 0o777 == 0o644
    card = (tmp_path / "m" / "README.md").read_text()
    assert "license: cc-by-4.0" in card and "| accuracy | 0.5 |" in card
    model.save_pretrained(tmp_path / "n")
    card = (tmp_path / "n" / "README.md").read_text()
    assert "Licence of the weights: not stated." in card and "No scores were stated." in card


def test_repeated_bytes_cannot_claim_to_be_a_large_tensor(tmp_path):
    """A view that repeats one number is refused, not unfolded."""
    wide = torch.zeros(1).expand(10**6)
    torch.save({"a": wide}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: a: expected numbers that the file holds"):
        checkpoints.read(tmp_path / "a.pth")
