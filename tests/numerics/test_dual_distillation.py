"""The two distillation terms: what counts, how much, and when they let go."""

from __future__ import annotations

import math

import pytest
import torch

from raykd.numerics.dual_distillation import FEATURE_LOSSES, RESPONSE_LOSSES, DualDistillation, trust_in_teacher
from raykd.numerics.local_sgd import Batch
from raykd.numerics.response_losses import kl_loss, soft_dice_loss

B, L, EDGE = 3, 3, 4


def batch(num_labelled: int = 1) -> Batch:
    rng = torch.Generator().manual_seed(0)
    soft = torch.softmax(torch.randn((B, L, EDGE, EDGE, EDGE), generator=rng), dim=1)
    entropy = -(soft * (soft + 1e-6).log()).sum(dim=1)
    image, label = torch.zeros((B, 1, EDGE, EDGE, EDGE)), torch.zeros((num_labelled, EDGE, EDGE, EDGE), dtype=torch.long)
    return Batch(image, label, num_labelled, soft, entropy, {"layer": torch.randn((B, 5, 2, 2, 2), generator=rng)})


def logits() -> torch.Tensor:
    return torch.randn((B, L, EDGE, EDGE, EDGE), generator=torch.Generator().manual_seed(1))


def distillation(**changes: object) -> DualDistillation:
    settings = {"response": "kl", "feature": "none", "response_weight": 1.0, "feature_weight": 1.0} | changes
    return DualDistillation(**settings)  # type: ignore[arg-type]


def test_labelled_patches_are_not_distilled_on() -> None:
    there, expected = batch(), kl_loss(logits()[1:], batch().soft_label_BLIJK[1:])  # type: ignore[index]
    assert distillation()(logits(), {}, there)["response"].item() == pytest.approx(expected.item())
    assert distillation()(logits(), {}, batch(num_labelled=B)) == {}


@pytest.mark.parametrize("name", sorted(RESPONSE_LOSSES))
def test_the_response_is_weighted_and_masked_where_the_teacher_is_unsure(name: str) -> None:
    there = batch()
    assert there.entropy_BIJK is not None and there.soft_label_BLIJK is not None
    limit = float(there.entropy_BIJK[1:].median())
    term = distillation(response=name, response_weight=0.5, max_entropy=limit)(logits(), {}, there)["response"]
    mask = (there.entropy_BIJK[1:] < limit).float()
    assert 0 < mask.mean() < 1
    expected = 0.5 * RESPONSE_LOSSES[name](logits()[1:], there.soft_label_BLIJK[1:], mask, 1.0)
    assert term.item() == pytest.approx(expected.item())


def test_dice_kl_is_half_of_each() -> None:
    soft = batch().soft_label_BLIJK
    assert soft is not None
    expected = 0.5 * kl_loss(logits(), soft) + 0.5 * soft_dice_loss(logits(), soft)
    assert RESPONSE_LOSSES["dice_kl"](logits(), soft, None, 1.0).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", sorted(FEATURE_LOSSES))
def test_features_add_up_over_layers_and_vanish_at_the_teachers(name: str) -> None:
    there = batch()
    one = distillation(response="none", feature=name, feature_weight=2.0)
    student = torch.randn((B, 5, 2, 2, 2), generator=torch.Generator().manual_seed(3))
    term = one(logits(), {"layer": student}, there)["feature"]
    soft = there.soft_label_BLIJK
    assert soft is not None
    expected = 2.0 * FEATURE_LOSSES[name](student[1:], there.features["layer"][1:], soft[1:])
    assert term.item() == pytest.approx(expected.item()) and term.item() > 0
    assert one(logits(), {"layer": there.features["layer"]}, there)["feature"].item() == pytest.approx(0.0, abs=1e-6)


def test_full_trust_is_no_trust_setting_and_none_lets_go() -> None:
    there = batch()
    features = {"layer": torch.randn((B, 5, 2, 2, 2), generator=torch.Generator().manual_seed(3))}
    plain = distillation(feature="attention")(logits(), features, there)
    full = distillation(feature="attention", trust=(1.0,) * L)(logits(), features, there)
    assert {name: term.item() for name, term in full.items()} == pytest.approx({name: term.item() for name, term in plain.items()})
    gone = distillation(feature="attention", trust=(0.0,) * L)(logits(), features, there)
    assert [term.item() for term in gone.values()] == [0.0, 0.0]


def test_half_trust_halves_the_response() -> None:
    full, half = (distillation(trust=(share,) * L)(logits(), {}, batch())["response"].item() for share in (1.0, 0.5))
    assert half == pytest.approx(full / 2)


def test_trust_by_hand() -> None:
    """Class 1: teacher 1.6 of 2, student 1.2 of 2: lead 0.4 / 3 > 0.08, full. Class 2: equal, 0.02 / 0.1. Class 3: far behind."""
    trust = trust_in_teacher([(1.6, 2), (1.0, 2), (0.1, 2)], [(1.2, 2), (1.0, 2), (1.8, 2)])
    assert trust == pytest.approx(((1.0 + 0.2 + 0.0) / 3, 1.0, 0.2, 0.0))


def test_without_labels_trust_is_what_the_margin_grants() -> None:
    assert trust_in_teacher([(0.0, 0)], [(0.0, 0)]) == pytest.approx((0.2, 0.2))


def test_more_labels_make_the_same_lead_count_for_more() -> None:
    few, many = (trust_in_teacher([(0.6 * n, n)], [(0.55 * n, n)])[1] for n in (1, 50))
    assert few == pytest.approx((0.05 / 2 + 0.02) / 0.1) and many > few and not math.isclose(few, many)
