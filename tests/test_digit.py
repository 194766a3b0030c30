"""DiGIT: what its authors' code answered once on weights that anyone can make again.

Dotori-HJ/DiGIT at bed9433, its kernel of deformable attention by its own loop in torch.
"""

import pytest
import torch
from safetensors.torch import save_file
from test_known_answers import waves

from vlact.models import digit
from vlact.models.detection import members
from vlact.models.digit import DiGIT, DiGITConfig

SMALL = DiGITConfig(12, 3, dim=16, heads=2, levels=3, layers=2, mlp_dim=24, kernel=5)


def published(config=SMALL):
    """A model of a small shape, and weights by formula under the names of its authors' code."""
    model = DiGIT(config).eval()
    return model, waves(model.state_dict())


def features():
    """Two videos of 50 and 37 steps, padded to 52."""
    n = torch.arange(52 * 12 * 2, dtype=torch.float64)
    mask = torch.arange(52)[None] < torch.tensor([[50], [37]])
    return torch.sin(0.37 * n**1.1).float().view(2, 52, 12) * mask[..., None], mask


WANTED = [
    (torch.tensor([[3.0, 9.0], [20.0, 44.0], [20.0, 44.0], [30.0, 33.5]]), [0, 1, 2, 1]),
    (torch.tensor([[5.0, 21.0]]), [2]),
]
WANTED = [(spans, torch.tensor(kinds)) for spans, kinds in WANTED]


def as_left_by_training(state, layers):
    """The file of its authors' training: shared heads under every name, weights that are idle."""
    out = dict(state)
    for k in range(1, layers):
        for key in [k for k in state if k.startswith("class_embed.0.")]:
            out[key.replace("embed.0.", f"embed.{k}.")] = state[key]
    shared = ("class_embed.", "segment_embed.")
    out |= {f"transformer.decoder.{k}": x for k, x in out.items() if k.startswith(shared)}
    idle = ["transformer.one_to_many_cls.weight", "transformer.learnable_scale"]
    idle += ["transformer.decoder.layers.0.cross_attn_se.output_proj.bias"]
    idle += [
        "input_proj.norm.weight",
        "segment_embed.1.layers.0.bias",
        "segment_embed.2.layers.2.bias",
    ]
    return out | {k: torch.ones(2) for k in idle}


# Video, query, logits, centre and log width in seconds
ANSWERS = [
    (0, 0, [0.737024, -0.249198, -0.292882], [-0.818346, 1.345671]),
    (0, 10, [0.685441, -0.162303, -0.324079], [-0.999819, 1.318301]),
    (1, 3, [0.750856, -0.274701, -0.282419], [-0.660307, 1.355145]),
]
LOSSES = {0.0: 98.300781, 0.1: 87.910446}  # by label smoothing


def test_answers_are_those_of_the_authors_code(tmp_path):
    model, state = published()
    torch.save({"model": 0, "state_dict_ema": as_left_by_training(state, 2)}, tmp_path / "d.pth")
    model = digit.load(tmp_path / "d.pth", model)
    with torch.no_grad():
        first, layers = model.guesses(*features())
    last = layers[-1]
    assert last.valid.sum(1).tolist() == [44, 33]
    for row, query, logits, segment in ANSWERS:
        found = last.logits[row, query], last.segment[row, query]
        for a, b in zip(found, (logits, segment), strict=True):
            torch.testing.assert_close(a, torch.tensor(b), atol=1e-5, rtol=1e-5)
    assert first.logits.sum().item() == pytest.approx(357.93, abs=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_the_authors_code(smoothing):
    model, state = published()
    model.load_state_dict(state)
    found = model.loss(*features(), WANTED, smoothing)
    assert found.item() == pytest.approx(LOSSES[smoothing], rel=1e-5)


def test_what_is_not_its_file_is_named(tmp_path):
    model, state = published()
    for change, message in (
        ({"level_embed": 1}, "missing .'transformer.level_embed.weight'"),
        (
            {"class_embed.0": torch.ones(5, 16)},
            r"of another shape .'class_embed.0.weight: \(5, 16\)",
        ),
    ):
        name, value = next(iter(change.items()))
        other = {k: x for k, x in state.items() if name not in k or torch.is_tensor(value)}
        other |= {f"{name}.weight": value} if torch.is_tensor(value) else {}
        save_file(other, tmp_path / "d.safetensors")
        with pytest.raises(ValueError, match=message):
            digit.load(tmp_path / "d.safetensors", model)


def test_padding_and_neighbours_change_nothing():
    model, state = published()
    model.load_state_dict(state)
    x, mask = features()
    with torch.no_grad():
        alone, both = model(x[1:, :40], mask[1:, :40]), model(x, mask)
    n = int(alone[2].sum())
    assert n == int(both[2][1].sum())
    for a, b in zip(alone[:2], both[:2], strict=True):
        torch.testing.assert_close(a[0, :n], b[1, :n], atol=1e-4, rtol=1e-4)


def test_a_set_is_one_class_a_query():
    logits = torch.tensor([[2.0, 1.0], [3.0, 4.0], [9.0, 9.0], [0.0, 1.0]])
    segments = torch.tensor([[0.0, 4.0], [1.0, 3.0], [5.0, 6.0], [7.0, 7.0]])
    found = members(logits, segments, torch.tensor([True, True, False, True]), 10)
    assert found["point"].tolist() == [1, 0] and found["label"].tolist() == [1, 0]
    assert found["segment"].tolist() == [[11, 13], [10, 14]]
