"""Localizers that bring their own loss: what it says by hand where there is no public code, and
that it teaches.
"""

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from vlact.models.asl import ASL, ASLConfig
from vlact.models.pred_detr import PredDETR, PredDETRConfig
from vlact.papers.actionvlm import localizing

SPANS = [(torch.tensor([[4.0, 20.0], [18.0, 30.0]]), torch.tensor([0, 1]))]
NONE = [(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))]


def features():
    chance = torch.Generator().manual_seed(0)
    return torch.randn(1, 32, 6, generator=chance), torch.ones(1, 32, dtype=torch.bool)


def test_sensitivity_is_greatest_in_the_middle_for_the_class_and_near_the_ends_for_them():
    model = ASL(ASLConfig(6, 2, dim=16, heads=2, embeds=1, stems=1, levels=3))
    place, kind = torch.tensor([-0.5, 0.0, 0.5, 1.0]), torch.zeros(4, dtype=torch.long)
    found = model.sensitivity(place, kind)
    by_hand = torch.exp(-0.5 * ((place - torch.tensor([[-0.5], [0.5]])) / 0.5) ** 2).sum(0)
    torch.testing.assert_close(found[:, 1], by_hand)
    assert found[:, 0].argmax() == 1 and found[1, 0] == 1


def test_asl_with_even_weights_is_actionformer():
    from vlact.losses.localization import assign, detection_loss, points

    torch.manual_seed(0)
    model = ASL(ASLConfig(6, 2, dim=16, heads=2, embeds=1, stems=1, levels=3))
    with torch.no_grad():
        model.width.fill_(1e6)  # every place tells as much
    before = model.positives.clone()
    found = model.loss(*features(), SPANS, 0.1)
    logits, distances, valid = model(*features())
    target, offset, owner = assign(points(32, 3), *SPANS[0], 2)
    count = before.lerp((owner >= 0).sum().float(), 0.1)
    given = logits, distances, target[None], offset[None], valid, count, 0.1
    plain = sum(detection_loss(*given).values())
    levels, masks = model.backbone(*features())
    own = torch.cat(model.quality(model.neck(levels, masks), masks), 1).sigmoid()[0][owner >= 0]
    assert own.std() < 0.1  # next to even, as yet
    assert found.item() == pytest.approx(plain.item() + _missed(own, given, owner), rel=0.02)


def _missed(own, given, owner) -> float:
    """Squared error of the quality, over the count, by a loop."""
    from vlact.losses.localization import giou

    logits, distances, _, offset, _, count, _ = given
    total = 0.0
    for i, point in enumerate(torch.nonzero(owner >= 0)[:, 0].tolist()):
        p = logits[0, point].sigmoid()[SPANS[0][1][owner[point]]]
        overlap = 1 - giou(distances[0, point], offset[0, point])
        total += (own[i, 0] - p) ** 2 + (own[i, 1] - overlap) ** 2
    return float(total / count)


def test_feedback_is_nothing_where_queries_attend_as_they_overlap():
    torch.manual_seed(0)
    shape = PredDETRConfig(6, 2, dim=16, heads=2, levels=3, layers=2, kernel=5)
    model = PredDETR(shape)
    _, layers = model.guesses(*features())
    looked = model.transformer.decoder.layers[0].looked
    torch.testing.assert_close(looked.sum(-1), torch.ones(1, looked.shape[1]))
    from vlact.models.digit import overlaps

    wanted = overlaps(layers[-1].ends[0], layers[-1].ends[0])
    assert model.more(layers) > 0.01
    for layer in model.transformer.decoder.layers:
        layer.looked = (wanted / wanted.sum(-1, keepdim=True))[None]
    assert model.more(layers).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", ["ASL", "Pred-DETR"])
def test_a_window_without_an_action_teaches_background(kind):
    torch.manual_seed(0)
    make, shape = localizing.KINDS[kind]
    model = make(shape(6, 2, dim=16, heads=2, embeds=1, stems=1, levels=3))
    loss = model.loss(*features(), NONE)
    loss.backward()
    assert loss.isfinite() and loss > 0


@pytest.mark.parametrize("kind", ["ASL", "DiGIT", "Pred-DETR"])
def test_they_learn_by_the_recipe_of_every_localizer(kind, tmp_path):
    chance, found, rows = torch.Generator().manual_seed(0), {}, []
    for i in range(6):
        x = 0.3 * torch.randn(60, 6, generator=chance)
        x[10 + 4 * i : 22 + 4 * i, i % 2] += 3
        found[f"v{i}"] = x
        rows.append((f"v{i}", 5 + 2.0 * i, 11 + 2.0 * i, ("jump", "run")[i % 2]))
    save_file(found, tmp_path / "f.safetensors")
    truth = pd.DataFrame(rows, columns=["video", "start_s", "end_s", "label"])
    truth.to_parquet(tmp_path / "t.parquet")
    shape = {"feature_dim": 6, "classes": 2, "dim": 16, "heads": 2, "stems": 1, "levels": 3}
    shape |= {"embeds": 1} if kind == "ASL" else {"layers": 2, "kernel": 5, "scale": 16.0}
    recipe = {"window": 64, "batch_size": 3, "epochs": 40, "lr": 3e-3, "weight_decay": 0.05}
    recipe |= {"noise": 0.1, "reg_weight": 1.0, "ema": 0.9, "pre_nms_topk": 50}
    recipe |= {"nms": {"sigma": 0.5, "max_seg_num": 20}}
    seconds = dict.fromkeys(found, 30.0)
    given = str(tmp_path / "f.safetensors"), {"train": seconds, "test": seconds}
    more = str(tmp_path / "t.parquet"), ["jump", "run"], {"step_s": 0.5, "offset_s": 0.0}
    problem = localizing.Problem(*given, *more, shape, recipe)
    localizing.localize_job(kind, problem, 0, str(tmp_path / "o"), None)
    table = pd.read_parquet(tmp_path / "o.parquet")
    best = table.sort_values("score").groupby("video").tail(1).set_index("video").loc[list(found)]
    assert (best["label"].to_numpy() == truth["label"].to_numpy()).mean() > 0.8
    again = localizing.Localizer.load(tmp_path / "o.safetensors")
    assert localizing.name_of(again.model) == kind
