"""Steps on a real GPU against the same on the CPU: same weights and inputs, single precision, no
TF32. Without a GPU they are skipped; `test_device.py` has what a pretended one can show.
"""

from copy import deepcopy

import pytest
import torch
from test_published_localizers import CONFIGS, KINDS
from torch import nn

from vlact.losses.localization import detection_loss
from vlact.models.actionformer import dense_attention, local_attention
from vlact.models.adatad import AdaTAD, AdaTADConfig, TowerConfig
from vlact.models.cost import Decoder
from vlact.models.dual import DualConfig, DualEncoder
from vlact.runtime import device
from vlact.tools import measuring

PLACE = "cuda"
CLOSE = 1e-3  # of the greatest number of a tensor
pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU here; what it computes is compared where one is"
)


@pytest.fixture(autouse=True)
def exact():
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


def close(here, there) -> None:
    here, there = here.detach().float(), there.detach().float().cpu()
    assert (here - there).abs().max() <= CLOSE * here.abs().max().clamp(min=1e-6)


def compare(model: nn.Module, loss_of) -> None:
    """`loss_of(model, place)` and its gradients on both."""
    found = []
    for place in ("cpu", PLACE):
        one = deepcopy(model).to(place)
        loss = loss_of(one, place)
        loss.backward()
        found.append((loss, dict(one.named_parameters())))
    (here, mine), (there, theirs) = found
    close(here, there)
    for name, weight in mine.items():
        if weight.grad is not None:
            close(weight.grad, theirs[name].grad)


def detected(model, given, mask, place):
    logits, reach, valid = model(given.to(place), mask.to(place))
    target = torch.zeros(logits.shape, device=place)
    target[:, ::5, 0] = 1
    offset = torch.ones(*logits.shape[:2], 2, device=place)
    loss = detection_loss(logits, reach, target, offset, valid, 20.0)
    return loss["cls"] + loss["reg"]


@pytest.mark.parametrize("kind", KINDS)
def test_localizers(kind):
    torch.manual_seed(0)
    model, x = KINDS[kind](CONFIGS[kind]).eval(), torch.randn(2, 64, 12)
    mask = torch.arange(64)[None] < torch.tensor([[64], [40]])
    compare(model, lambda one, place: detected(one, x, mask, place))


def test_attention_in_blocks():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 100, 2, 8) for _ in range(3))
    mask = torch.arange(100)[None] < torch.tensor([[100], [77]])
    there = local_attention(*(x.to(PLACE) for x in (q, k, v, mask)), 19)
    close(dense_attention(q, k, v, mask, 19)[mask], there[mask.to(PLACE)])


def test_adapters_in_a_tower():
    torch.manual_seed(0)
    tower = TowerConfig(16, 2, 2, patch=16, num_frames=4, image_size=32, dropout=0.0)
    shape = CONFIGS["ActionFormer"]
    config = AdaTADConfig(type(shape)(16, 3, dim=16, heads=2, levels=3, official=True), tower)
    frames = torch.randint(0, 255, (1, 16, 1, 32, 32, 3), dtype=torch.uint8)
    mask = torch.ones(1, 16, dtype=torch.bool)
    compare(AdaTAD(config).eval(), lambda one, place: detected(one, frames, mask, place))


def test_the_dual_encoder():
    torch.manual_seed(0)
    encoder = DualEncoder(DualConfig(32, 16, 4, 32, 3, 2, 16, 384)).eval()
    clips = torch.randint(0, 255, (3, 4, 32, 32, 3), dtype=torch.uint8)
    compare(encoder, lambda one, place: one(clips.to(place)).square().sum())


def test_the_language_branch():
    torch.manual_seed(0)
    branch = measuring.language(Decoder(32, 2, 64, 4, 2, 50), 24, 4, 4).float().train()
    x, mask = torch.randn(1, 32, 24), torch.ones(1, 32, dtype=torch.bool)
    words, answer = torch.randint(0, 50, (1, 12)), torch.randint(0, 50, (1, 5))
    given = x, mask, words, torch.ones_like(words, dtype=torch.bool), answer

    def loss_of(one, place):
        out = one(*(t.to(place) for t in given))
        return out["text_loss"] + out["cls"].square().mean() + out["loc"].square().mean()

    compare(branch, loss_of)


def test_steps_in_half_precision_are_finite_and_close():
    torch.manual_seed(0)
    model, x = KINDS["ActionFormer"](CONFIGS["ActionFormer"]).to(PLACE), torch.randn(2, 64, 12)
    mask, found = torch.ones(2, 64, dtype=torch.bool), []
    for narrow in (False, True):
        with torch.autocast(PLACE, torch.bfloat16, narrow):
            found.append(model(x.to(PLACE), mask.to(PLACE))[0].float())
    assert (found[0] - found[1]).abs().max() < 0.05 * found[0].abs().max()


def test_a_model_goes_where_auto_says():
    try:
        device.choose("auto")
        assert device.put(nn.Linear(1, 1)).weight.is_cuda
    finally:
        device.choose("cpu")
