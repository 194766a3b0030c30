"""Trees, tasks, losses and the fine-tuning step of ACE."""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from vlact import params
from vlact.language import tasks
from vlact.language.trees import ActionTexts, Trees, context_free, nearest_trees, phrase
from vlact.losses.ace import ace_loss, classification_loss, leaf_average
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.zoo.ace import ACE, ANCHORED, LITERAL
from vlact.papers.ace.trials import Trial
from vlact.report.results import ace_regime
from vlact.stages.ace import Bench, Unit, caption_words, tasks_of
from vlact.tools import calibrate_ace as calibration

sys.path.insert(0, str(Path(__file__).parent))
from reference.ace_naive import naive_ace_step

ACTIONS = [("fasten", "screw"), ("insert", "screw"), ("insert", "pin"), ("idle", "")]


def fake_encode(texts):
    """Fixed pseudo-random unit features of a string."""
    rows = [
        torch.randn(16, generator=torch.Generator().manual_seed(sum(map(ord, t)) * 31 + len(t)))
        for t in texts
    ]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def small_trees():
    words = {
        v: {v: [f"{v}a", f"{v}b"], f"{v}a": [f"{v}c", v], f"{v}b": [f"{v}d", f"{v}e"]}
        for v in ("fasten", "insert", "idle")
    }
    return Trees("small", words)


# Trees
@pytest.mark.parametrize(
    "name, m, base, novel", [("ata", 11, 10, 5), ("ikea", 2, 21, 10), ("gtea", 9, 6, 4)]
)
def test_shipped_trees_have_the_paper_s_sizes_and_every_test_name(name, m, base, novel):
    task = tasks.dataset(name)
    assert (task.trees.m, len(task.base), len(task.novel), len(task.srt)) == (m, base, novel, 10)
    assert task.srt[0] == tuple(v for v, _ in task.novel)
    # rows are no permutations of each other
    assert max(task.overlaps().values()) < (0.3 if name == "ikea" else 0.1)
    assert (
        set(task.classes) == {phrase(*a) for a in task.base + task.novel}
        and len(task.classes) == base + novel
    )


def test_options_of_the_datasets():
    assert len(tasks.dataset("ata", idle=False).base) == 9
    assert (
        tasks.dataset("ikea").shared_verbs == ["lay down"]
        and tasks.dataset("gtea").shared_verbs == []
    )
    with pytest.raises(ValueError, match="dataset must be one of"):
        tasks.dataset("coin")


def test_the_edited_trees_share_no_first_order_word_and_the_shipped_ones_do():
    def shared(trees):
        first = [w for root in trees.words for w in trees.children(root)]
        return {w for w in first if first.count(w) > 1}

    assert shared(Trees.load("gtea")) and not shared(Trees.load("gtea_manual"))
    crossings = Trees.load("gtea").crossings()
    assert {"close", "spread"} <= set(crossings["cover"])


def test_verb_only_merges_classes_of_one_verb():
    task = tasks.verb_only(tasks.dataset("ikea"))
    assert len(task.base) == 9 and task.novel == tuple(
        (v, "item") for v in ("lay down", "push", "position", "slide")
    )
    assert task.classes["lay down leg"] == ("base", 4) and task.classes["lay down back panel"] == (
        "novel",
        0,
    )
    assert all(len(run) == 4 for run in task.srt) and task.srt[1] == (
        "set down",
        "press",
        "place",
        "insert",
    )
    assert ("idle", "") in tasks.verb_only(tasks.dataset("ata")).base


def test_a_child_that_names_the_object_is_refused():
    trees = Trees.load("ata")
    words = trees.words | {
        "drop": trees.words["drop"]
        | {"drop": ["let go of the item", *trees.words["drop"]["drop"][1:]]}
    }
    with pytest.raises(ValueError, match="'let go of the item' names the object 'item'"):
        tasks.dataset("ata", Trees("mine", words))


def test_names_from_the_edited_tree_are_its_first_order_and_no_captions():
    trial = Trial("gtea", "manual tree", "ace", tree="manual", tests=("manual",))
    task = tasks_of(trial, params.load("mini").ace)["manual"]
    assert len(task.srt) == 10 and task.srt[0] == ("shake", "fold", "stir", "spread")
    for run in task.srt[1:]:
        for word, (verb, _) in zip(run, task.novel, strict=True):
            assert word in task.trees.children(verb)[1:] and word not in caption_words()
    with pytest.raises(ValueError, match=r"every child of \['fold'\]"):
        tasks.named_by_tree(task, heard=task.trees.children("fold"))


def test_limited_trees_have_the_asked_sizes_and_draw_from_them():
    small = Trees.load("ata").limited(3, 5)
    plan = ActionTexts([("fasten", "screw"), ("take", "block")], small)
    assert (
        plan.fixed.shape == (2, 3)
        and plan.drawn.shape == (2, 3, 5)
        and plan.shadow[0].shape[1] == 5
    )
    first = [plan.texts[i] for i in plan.drawn[0, 0]]
    # the root's own, in turn
    assert first == [f"{w} screw" for w in (["fasten", "secure", "attach"] * 2)[:5]]
    alone = ActionTexts([("fasten", "screw"), ("take", "block")], Trees.load("ata").limited(1, 1))
    assert alone.fixed.shape == (2, 1) and alone.drawn.shape == (2, 1, 1)
    with pytest.raises(ValueError, match=r"expected 1..11 children, got 0"):
        Trees.load("ata").limited(0, 3)


# sha256 of the label sets as printed in Tables 7 to 9 of the paper, json of the runs
PRINTED = {"ATA": "11052cccdfdc4388", "IKEA": "f6eca2e21ccbb7df", "GTEA": "178aa82faeca6803"}


@pytest.mark.parametrize("name, digest", PRINTED.items())
def test_srt_labels_are_those_of_the_paper(name, digest):
    text = json.dumps(tasks.srt_labels(name))
    assert hashlib.sha256(text.encode()).hexdigest()[: len(digest)] == digest


def test_a_dataset_without_label_sets_is_named():
    with pytest.raises(ValueError, match="no label sets"):
        tasks.srt_labels("COIN")


def test_caption_words_hold_no_test_synonym_except_names_of_programs():
    captions = yaml.safe_load(
        (Path(tasks.__file__).parent / "captions.yaml").read_text(encoding="utf-8")
    )
    tested = set()
    for name, objects in (
        ("ATA", [o for _, o in tasks.ATA_NOVEL]),
        ("GTEA", ["ingredient"] * 4),
        ("IKEA", None),
    ):
        for run in tasks.srt_labels(name)[1:]:
            for k, label in enumerate(run):
                known = [
                    o
                    for o in (
                        objects[k : k + 1]
                        if objects
                        else (
                            "side panel",
                            "front panel",
                            "bottom panel",
                            "back panel",
                            "table top",
                            "table",
                            "shelf",
                            "drawer right side up",
                        )
                    )
                    if label.endswith(f" {o}")
                ]
                tested.add(label.removesuffix(f" {max(known, key=len)}"))
    for program, words in captions.items():
        bad = [w for w in words if w in tested and w not in captions]
        assert not bad, f"{program}: {bad} are names of the Synonym Robustness Test"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("insert"), "no tree for the verbs"),
        (lambda t: t["fasten"].pop("fastena"), "no list of synonyms for 'fastena'"),
        (lambda t: t["fasten"].pop("fasten"), "under 'fasten'"),
        (lambda t: t["fasten"]["fastenb"].append("x"), "same length"),
        (lambda t: t["fasten"].update(fastenb=["x", "x"]), "distinct words"),
        (lambda t: t["fasten"].update(fastenb=[True, "x"]), "distinct words"),
    ],
)
def test_a_broken_tree_file_names_file_and_word(tmp_path, change, message):
    words = {k: {w: list(c) for w, c in v.items()} for k, v in small_trees().words.items()}
    change(words)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(words), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        Trees.load(path, ("fasten", "insert", "idle"))
    assert "mine.yaml" in str(error.value)


def test_missing_tree_file_lists_the_shipped_ones():
    with pytest.raises(ValueError, match="ata"):
        Trees.load("nowhere")


def test_children_start_with_the_node_and_unknown_nodes_are_named():
    assert small_trees().children("fasten", "fastena") == ["fastena", "fastenc", "fasten"]
    with pytest.raises(ValueError, match="no node 'x' under root 'fasten'"):
        small_trees().children("fasten", "x")


def test_context_free_keeps_the_first_order_and_the_lexicon():
    trees = small_trees()
    made = context_free(trees, fake_encode)
    assert all(made.words[v][v] == trees.words[v][v] and made.m == trees.m for v in trees.words)
    assert set(made.lexicon()) <= set(trees.lexicon())
    again = nearest_trees("n", ["glue"], trees.lexicon(), fake_encode, 3)
    assert again.m == 3 and "glue" not in again.words["glue"]["glue"]


def test_action_texts_hold_equations_4_6_and_7():
    trees = small_trees()
    plan = ActionTexts(ACTIONS, trees)
    for i, (verb, obj) in enumerate(ACTIONS):
        assert [plan.texts[j] for j in plan.fixed[i]] == [
            phrase(w, obj) for w in trees.children(verb)
        ]
        for k, word in enumerate(trees.children(verb)):
            assert [plan.texts[j] for j in plan.drawn[i, k]] == [
                phrase(w, obj) for w in trees.children(verb, word)
            ]
        pool = {plan.texts[row[0]] for row in plan.shadow[i]}
        children = {w for v in trees.words for w in trees.children(v)} - set(trees.children(verb))
        assert pool == {phrase(w, obj) for w in children}
    assert len(plan.texts) == len(set(plan.texts))


def test_actions_that_share_a_verb_get_the_same_synonym():
    plan = ActionTexts(ACTIONS, small_trees())
    rng, different = np.random.default_rng(0), 0
    for _ in range(50):
        drawn, _ = plan.draw(rng)
        verbs = [plan.texts[row[0]].split(" ")[0] for row in drawn]
        assert verbs[1] == verbs[2]
        different += verbs[0].removeprefix("fasten") != verbs[1].removeprefix("insert")
    assert different > 10


def test_one_verb_alone_has_no_shadow_negatives():
    with pytest.raises(ValueError, match="class 'fasten screw': no negative verb is left"):
        ActionTexts([("fasten", "screw"), ("fasten", "nut")], small_trees())


# Losses
def unit(*shape, seed=0):
    return torch.nn.functional.normalize(
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


def test_loss_equals_a_number_worked_out_by_hand():
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
    actions = leaf_average(text, torch.tensor([[0, 1], [2, 3]]))
    # class 1's shadow must not matter to a clip of class 0
    shadow = torch.tensor([[0.5, 0.0], [9.0, 0.0]])
    loss = classification_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), actions, 1.0, shadow)
    assert torch.exp(-loss).item() == pytest.approx(np.exp(0.5) / (2 * np.exp(0.5) + 1))


def test_loss_ignores_the_order_of_clips_and_of_children():
    video, text, labels = unit(6, 8), unit(12, 8, seed=1), torch.tensor([0, 1, 2, 0, 1, 2])
    leaves = torch.arange(12).view(3, 4)
    one = classification_loss(video, labels, leaf_average(text, leaves), 50.0)
    order = torch.tensor([5, 3, 1, 0, 2, 4])
    two = classification_loss(video[order], labels[order], leaf_average(text, leaves.flip(1)), 50.0)
    assert torch.allclose(one, two, atol=1e-5)


def test_a_shadow_negative_always_raises_the_loss_and_terms_can_be_left_out():
    video, fixed, drawn, shadow, labels = (
        unit(5, 8),
        unit(3, 8, seed=1),
        unit(3, 8, seed=2),
        unit(3, 8, seed=3),
        torch.tensor([0, 1, 2, 0, 1]),
    )
    full = ace_loss(video, labels, 50.0, fixed, drawn, shadow)
    plain = ace_loss(video, labels, 50.0, fixed, drawn)
    assert set(full) == {"L_fixed", "L_rand"} and all(full[k] > plain[k] for k in full)
    assert set(ace_loss(video, labels, 50.0, drawn=drawn)) == {"L_rand"}
    with pytest.raises(ValueError, match="neither"):
        ace_loss(video, labels, 50.0)
    with pytest.raises(ValueError, match="shape of actions"):
        ace_loss(video, labels, 50.0, fixed, shadow=shadow[:2])


# The step
def small_encoder(seed=0):
    torch.manual_seed(seed)
    config = DualConfig(
        image_size=32,
        patch_size=16,
        num_frames=4,
        dim=32,
        depth=2,
        heads=2,
        embed_dim=12,
        text_dim=16,
        conv_stem=True,
    )
    return DualEncoder(config).eval()


def test_cached_step_equals_the_naive_one_in_value_and_gradient():
    encoder, plan = small_encoder(), ActionTexts(ACTIONS, small_trees())
    words = dict(zip(plan.texts, fake_encode(plan.texts), strict=True))
    method = ACE(encoder, words, [phrase(*a) for a in ACTIONS], 0.1, 1, plan, **LITERAL, seed=2)
    for parameter, _ in method.trained():
        parameter.requires_grad_()
    clips = torch.randint(
        0, 255, (5, 4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    labels = torch.tensor([0, 3, 1, 2, 3])
    drawn, shadow = plan.draw(np.random.default_rng(2))  # as the method's own first draw
    naive = naive_ace_step(
        encoder, fake_encode, clips, labels, plan, drawn, shadow, 0.1, frozen_blocks=1
    )
    naive.backward()
    wanted = {k: p.grad.clone() for k, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    with torch.no_grad():
        kept = method.frozen_features(clips)
    fast = method.loss(kept, labels)
    fast.backward()
    assert fast.item() == pytest.approx(naive.item(), rel=1e-5)
    got = {k: p.grad for k, p in encoder.named_parameters() if p.grad is not None}
    assert set(got) == set(wanted) and "text_projection.weight" in got
    for k, grad in wanted.items():
        assert torch.allclose(got[k], grad, atol=1e-5), k


def test_an_anchor_is_the_way_of_the_names_from_where_they_started():
    encoder, plan = small_encoder(), ActionTexts(ACTIONS, small_trees())
    words = dict(zip(plan.texts, fake_encode(plan.texts), strict=True))
    given = encoder, words, [phrase(*a) for a in ACTIONS], 0.1, 1, plan
    clips = torch.randint(0, 255, (2, 4, 32, 32, 3), dtype=torch.uint8)
    labels, losses = torch.tensor([0, 3]), []
    for options in (LITERAL, ANCHORED):
        encoder = small_encoder()
        method = ACE(encoder, *given[1:], **options, seed=2)
        assert method.drift().item() == pytest.approx(0, abs=1e-6)
        with torch.no_grad():
            encoder.text_projection.weight.neg_()
            encoder.text_projection.bias.neg_()
            losses.append(method.loss(method.frozen_features(clips), labels).item())
        assert method.drift().item() == pytest.approx(2, abs=1e-5)
    assert losses[1] - losses[0] == pytest.approx(2 * ANCHORED["anchor"], rel=1e-4)


# The design of a study
def test_a_design_says_on_which_seeds_folds_and_fine_tunings_a_trial_is_trained(tmp_path):
    p = params.load(
        "study", seeds=[3, 4, 5], ace__tunes=2, ace__grid_seeds=2, ace__folds=True,
        ace__known_seeds=1,
    )  # fmt: skip
    bench = Bench(p, [], tmp_path)
    bench.folds = {"ata": 1, "gtea": 4}
    trial = Trial("gtea", "ACE", "ace", design="headline")

    def count(**changes):
        units = bench.units(replace(trial, **changes))
        assert len(units) == len(set(units))
        return len(units)

    assert (count(), count(dataset="ata")) == (3 * 4 * 2, 3 * 2)
    assert (count(design="rival"), count(method="zero_shot")) == (12, 12)
    assert bench.units(replace(trial, design="claim")) == [Unit(3, 0), Unit(4, 1), Unit(5, 2)]
    assert bench.units(replace(trial, design="some")) == [Unit(3, 0), Unit(4, 1)]
    assert bench.probes(trial) == [Unit(3, 0), Unit(4, 1)]
    assert {*bench.probes(trial)} < {*bench.units(trial)}
    assert count(start="familiar", design="claim") == 1
    outs = {bench.out(trial, u) for u in bench.units(trial)}
    assert len(outs) == count()


@pytest.mark.parametrize(
    ("novel", "video", "image"),
    [
        ("labelled", "seed", "frames"),
        ("captioned", "held", "frames"),
        ("unnamed", "held", "heldframes"),
    ],
)
def test_image_models_are_told_as_little_of_novel_actions_as_video_models(
    novel, video, image, tmp_path
):
    bench = Bench(params.load("study", pretrain__novel=novel), [], tmp_path, encoders=tmp_path)
    found = bench.encoders(3)
    assert found["pretrained"] == str(tmp_path / f"{video}3.safetensors")
    assert found["clip"] == str(tmp_path / f"{image}3.safetensors")


def test_a_dataset_may_have_its_own_clips_and_schedules():
    ace = params.load("paper").ace
    found = [(a.frames, a.window_s, max(a.epochs)) for a in map(ace.of, tasks.DATASETS)]
    assert found == [(30, 3.0, 15), (25, 2.0, 12), (15, 1.0, 12)]
    assert params.load("study").ace.of("ata").views == params.load("study").ace.views


# Calibration
def test_calibration_compares_baselines_alone_with_the_published_numbers():
    assert {t.method for t in calibration.trials(3)} == {"zero_shot", "procvlr", "text4vis"}
    wanted = ace_regime.targets().set_index(["dataset", "baseline"])["published"]
    assert wanted["ata"].tolist() == [18.8, 89.8, 93.5]
    assert wanted["ikea"].tolist() == [6.0, 82.3, 87.6]
    assert wanted["gtea"].isna().tolist() == [True, False, False]  # its zero-shot is not printed
    log = ace_regime.targets().assign(candidate="one", verb=50.0, object=20.0)
    log["distance"] = range(9)
    log["here"] = log["published"] + log["distance"]
    log.loc[6, "distance"] = np.nan
    table = ace_regime.summary(log).set_index("candidate")
    row = table.loc["one"]
    assert row["IKEA ProcVLR"] == pytest.approx(82.3 + 4) and row["largest distance"] == 8
    assert row["matched"] == "8/8" and row["verb"] == 50
    assert table.loc["published", "ATA Text4Vis"] == 93.5
