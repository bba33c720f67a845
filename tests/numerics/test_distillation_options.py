"""What is told to the two distillation terms besides: which voxels count, what teaches labelled patches, and adapters."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from raykd.methods._dual_kd_settings import DualKDSettings
from raykd.numerics.boundary import Emphasis
from raykd.numerics.dual_distillation import DualDistillation
from raykd.numerics.hint import hint_adapters, hint_loss
from raykd.numerics.local_sgd import Batch
from raykd.numerics.response_losses import decoupled_loss, kl_loss, most_certain
from raykd.numerics.rng import generator
from raykd.numerics.sent_knowledge import comparable_labels
from raykd.numerics.teacher_bias import adjust_knowledge, anneal_teacher

B, L, EDGE, NUM_LABELLED = 3, 3, 4, 1
UNKNOWN = 255


def drawn(name: str, channels: int = L, edge: int = EDGE) -> Tensor:
    return torch.randn((B, channels, edge, edge, edge), generator=generator(0, name))


SOFT, LOGITS = torch.softmax(2 * drawn("teacher"), dim=1), drawn("student")
ENTROPY = -(SOFT * SOFT.log()).sum(dim=1)
LABEL = torch.randint(L, (NUM_LABELLED, EDGE, EDGE, EDGE), generator=generator(0, "label"))
SPACING_MM = torch.tensor([[3.0, 1.0, 1.0], [1.0, 2.0, 1.0], [4.5, 0.5, 0.5]])
TAUGHT = slice(NUM_LABELLED, None)


def batch() -> Batch:
    image = torch.zeros(B, 1, EDGE, EDGE, EDGE)
    return Batch(image, LABEL, NUM_LABELLED, SOFT, ENTROPY, {"layer": drawn("map", 5, 2)}, SPACING_MM)


def response(name: str = "kl", **changes: object) -> float:
    distillation = DualDistillation(name, "none", 1.0, 1.0, **changes)  # type: ignore[arg-type]
    return distillation(LOGITS, {}, batch())["response"].item()


def test_only_the_most_certain_share_of_the_taught_voxels_is_learnt_from() -> None:
    mask = most_certain(ENTROPY[TAUGHT], 0.3)
    assert mask.mean().item() == pytest.approx(0.3, abs=0.01)
    assert response(certain_share=0.3) == pytest.approx(kl_loss(LOGITS[TAUGHT], SOFT[TAUGHT], mask).item())


def test_a_share_and_a_limit_leave_what_passes_both() -> None:
    limit = float(ENTROPY[TAUGHT].median())
    assert response(certain_share=0.3, max_entropy=limit) == pytest.approx(response(certain_share=0.3))
    assert response(certain_share=0.9, max_entropy=limit) == pytest.approx(response(max_entropy=limit))


def test_emphasis_weighs_voxels_with_the_spacing_of_their_own_patch() -> None:
    emphasis = Emphasis(boundary=True, classes=True, gain=3.0, width_mm=1.0)
    weight = emphasis(SOFT[TAUGHT], SPACING_MM[TAUGHT])
    assert response(emphasis=emphasis) == pytest.approx(kl_loss(LOGITS[TAUGHT], SOFT[TAUGHT], weight).item())
    mask = most_certain(ENTROPY[TAUGHT], 0.3)
    both = kl_loss(LOGITS[TAUGHT], SOFT[TAUGHT], weight * mask).item()
    assert response(emphasis=emphasis, certain_share=0.3) == pytest.approx(both)


def test_emphasis_does_not_change_how_much_the_teacher_is_trusted() -> None:
    """The same trust everywhere is a factor, whatever the weights of voxels."""
    emphasis = Emphasis(classes=True)
    assert response(emphasis=emphasis, trust=(0.25,) * L) == pytest.approx(0.25 * response(emphasis=emphasis))


def test_options_reach_the_response() -> None:
    expected = decoupled_loss(LOGITS[TAUGHT], SOFT[TAUGHT], None, 2.0, non_target_weight=5.0).item()
    assert response("dkd", temperature=2.0, response_options={"non_target_weight": 5.0}) == pytest.approx(expected)


@pytest.mark.parametrize("correct", [adjust_knowledge, partial(anneal_teacher, share=0.5)])
def test_labelled_patches_learn_from_the_corrected_and_the_others_from_the_plain_teacher(correct: object) -> None:
    target = torch.cat([correct(SOFT[:NUM_LABELLED], LABEL), SOFT[TAUGHT]])  # type: ignore[operator]
    assert response(correct=correct) == pytest.approx(kl_loss(LOGITS, target).item())


def test_features_of_labelled_patches_are_learnt_with_them() -> None:
    there, student = batch(), drawn("student map", 5, 2)
    terms = DualDistillation("none", "hint", 1.0, 1.0, correct=adjust_knowledge)(LOGITS, {"layer": student}, there)
    assert terms["feature"].item() == pytest.approx(hint_loss(student, there.features["layer"]).item())


def test_the_student_s_maps_go_through_the_adapters_which_learn_too() -> None:
    adapters = hint_adapters({"layer": 4}, {"layer": 5}, generator(0, "adapters"))
    there, student = batch(), drawn("student map", 4, 2).requires_grad_()
    term = DualDistillation("none", "hint", 1.0, 1.0, adapters=adapters)(LOGITS, {"layer": student}, there)["feature"]
    expected = hint_loss(adapters["layer"](student[TAUGHT]), there.features["layer"][TAUGHT])
    assert term.item() == pytest.approx(expected.item())
    term.backward()
    assert student.grad is not None and bool(student.grad[TAUGHT].any())
    assert all(p.grad is not None and bool(p.grad.any()) for p in adapters.parameters())


# The settings of `dual_kd` that say it.


def settings(**given: object) -> DualKDSettings:
    return DualKDSettings(name="dual_kd", **given)  # type: ignore[arg-type]


def test_temperatures_are_the_published_ones_unless_given() -> None:
    assert [settings(response=name).temperature_of_response() for name in ("kl", "dkd", "channel_wise")] == [1.0, 4.0, 4.0]
    assert settings(response="dkd", temperature=2.0).temperature_of_response() == 2.0


@pytest.mark.parametrize(
    ("emphasis", "boundary", "classes"), [("boundary", True, False), ("classes", False, True), ("both", True, True)]
)
def test_emphasis_is_what_the_settings_name(emphasis: str, boundary: bool, classes: bool) -> None:
    found = settings(emphasis=emphasis, boundary_gain=7.0, boundary_width_mm=2.0).weighs()
    assert found == Emphasis(boundary, classes, 7.0, 2.0)
    assert settings().weighs() is None


def test_annealing_follows_the_rounds_and_adjusting_does_not() -> None:
    soft, label = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1, 1), torch.tensor([1]).view(1, 1, 1, 1)
    annealed, adjusted = settings(labelled="annealed"), settings(labelled="adjusted")
    for progress, expected in ((0.0, 0.2), (0.5, 0.6), (1.0, 1.0)):
        correct, same = annealed.corrects(progress), adjusted.corrects(progress)
        assert correct is not None and correct(soft, label)[0, 1].item() == pytest.approx(expected)
        assert same is not None and same(soft, label)[0, 1].item() == pytest.approx(0.8)
    assert settings().corrects(0.5) is None


def test_where_a_site_outlines_some_classes_only_its_background_corrects_nobody() -> None:
    soft, background, second = torch.tensor([0.1, 0.7, 0.2]).view(1, 3, 1, 1, 1), torch.tensor([0]), torch.tensor([2])
    correct = settings(labelled="adjusted").corrects(0.0)
    assert correct is not None
    background, second = (comparable_labels(label.view(1, 1, 1, 1), None, [(2,)]) for label in (background, second))
    assert torch.equal(correct(soft, background), soft)
    assert correct(soft, second).flatten().tolist() == pytest.approx([0.1, 0.2, 0.7])
    assert not math.isclose(float(correct(soft, torch.zeros(1, 1, 1, 1, dtype=torch.long))[0, 0]), 0.1)
