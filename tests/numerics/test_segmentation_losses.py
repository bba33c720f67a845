"""Supervised losses against their formulas in NumPy: cross-entropy and Dice, classes that a site does not outline, unknown
voxels.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.numerics.rng import generator
from raykd.numerics.segmentation_losses import UNKNOWN, alike, dice_ce_loss, marginal_logits, over_patches

NUM_CLASSES = 4


def drawn(shape: tuple[int, ...] = (2, 3, 4, 5), num_classes: int = NUM_CLASSES, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = generator(seed, "logits and labels")
    logits = torch.randn((shape[0], num_classes, *shape[1:]), generator=rng, dtype=torch.float64)
    return logits, torch.randint(0, num_classes, shape, generator=rng)


def reference(logits_BLIJK: Tensor, label_BIJK: Tensor) -> float:
    """He et al.'s loss, patch by patch and class by class; unknown voxels are cut out before anything is summed.

    Half of: mean over known voxels of -ln p_label, and mean over patches and classes of 1 - (2 sum p y + 1) / (sum p + sum y + 1).
    """
    cross_entropy, dice = [], []
    for logits, label in zip(logits_BLIJK.numpy(), label_BIJK.numpy(), strict=True):
        known = label != UNKNOWN
        z, y = logits[:, known], label[known]
        p = np.exp(z) / np.exp(z).sum(axis=0)
        cross_entropy += [-np.log(p[c, voxel]) for voxel, c in enumerate(y)]
        dice += [1 - (2 * p[c][y == c].sum() + 1) / (p[c].sum() + (y == c).sum() + 1) for c in range(len(p))]
    return 0.5 * float(np.mean(cross_entropy)) + 0.5 * float(np.mean(dice))


def test_dice_and_cross_entropy_of_one_voxel_by_hand() -> None:
    # Two classes with p = (3/4, 1/4) and label 0: -ln 3/4; Dice 1 - (3/2 + 1) / (3/4 + 1 + 1) and 1 - (0 + 1) / (1/4 + 0 + 1).
    logits = torch.tensor([3.0, 1.0]).log().reshape(1, 2, 1, 1, 1)
    expected = 0.5 * -np.log(0.75) + 0.5 * ((1 - 2.5 / 2.75) + (1 - 1 / 1.25)) / 2
    assert float(dice_ce_loss(logits, torch.zeros((1, 1, 1, 1), dtype=torch.long))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_dice_ce_is_the_formula_of_the_reference(num_classes: int) -> None:
    logits, label = drawn(num_classes=num_classes)
    assert float(dice_ce_loss(logits, label)) == pytest.approx(reference(logits, label), rel=1e-9)


def test_a_class_that_a_patch_lacks_costs_what_is_predicted_of_it() -> None:
    logits, label = drawn()
    label[label == 3] = 0
    assert float(dice_ce_loss(logits, label)) == pytest.approx(reference(logits, label), rel=1e-9)


def test_a_certain_and_right_model_loses_nothing() -> None:
    _, label = drawn()
    certain = 50.0 * torch.nn.functional.one_hot(label, NUM_CLASSES).movedim(-1, 1).double()
    assert float(dice_ce_loss(certain, label)) == pytest.approx(0.0, abs=1e-9)


def test_unknown_voxels_count_in_neither_term() -> None:
    logits, label = drawn()
    label[0, :2] = UNKNOWN
    label[1, :, :, 3] = UNKNOWN
    assert float(dice_ce_loss(logits, label)) == pytest.approx(reference(logits, label), rel=1e-9)


def test_what_is_predicted_at_unknown_voxels_changes_nothing() -> None:
    logits, label = drawn()
    label[:, 1] = UNKNOWN
    other = logits.clone()
    other[:, :, 1] = 7.0 * torch.randn(other[:, :, 1].shape, generator=generator(1, "other"), dtype=torch.float64)
    assert float(dice_ce_loss(other, label)) == pytest.approx(float(dice_ce_loss(logits, label)), rel=1e-12)


def test_unknown_voxels_get_no_gradient() -> None:
    logits, label = drawn()
    label[:, 1] = UNKNOWN
    logits.requires_grad_()
    dice_ce_loss(logits, label).backward()
    assert logits.grad is not None and not logits.grad[:, :, 1].any() and bool(logits.grad[:, :, 0].all())


def test_nothing_known_is_no_loss() -> None:
    logits, label = drawn()
    assert float(dice_ce_loss(logits, torch.full_like(label, UNKNOWN))) == 0.0


def test_marginal_probabilities_add_the_classes_left_out_to_the_background() -> None:
    logits, _ = drawn()
    p = torch.softmax(logits, dim=1)
    marginal = torch.softmax(marginal_logits(logits, (1, 3)), dim=1)
    torch.testing.assert_close(marginal, torch.stack([p[:, 0] + p[:, 2], p[:, 1], p[:, 3]], dim=1))


def test_the_marginal_loss_is_the_plain_one_on_marginal_probabilities() -> None:
    # A site that outlines 1 and 3 calls class 2 background; its own classes are then 0, 1, 2.
    logits, label = drawn()
    label[label == 2] = 0
    label[0, 0] = UNKNOWN
    p = torch.softmax(logits, dim=1)
    own = label.clone()
    own[label == 3] = 2
    merged = torch.stack([p[:, 0] + p[:, 2], p[:, 1], p[:, 3]], dim=1).log()
    assert float(dice_ce_loss(logits, label, (1, 3))) == pytest.approx(reference(merged, own), rel=1e-9)


def test_the_marginal_loss_is_the_full_one_where_all_classes_are_outlined() -> None:
    logits, label = drawn()
    assert torch.equal(dice_ce_loss(logits, label, (1, 2, 3)), dice_ce_loss(logits, label))


def test_how_mass_is_split_among_classes_that_are_not_outlined_does_not_matter() -> None:
    logits, label = drawn()
    label[label > 1] = 0
    shares = torch.tensor([0.7, 0.1, 0.2], dtype=torch.float64).log().reshape(1, 3, 1, 1, 1)
    split = logits.clone()
    split[:, [0, 2, 3]] = torch.logsumexp(logits[:, [0, 2, 3]], dim=1, keepdim=True) + shares
    assert float(dice_ce_loss(split, label, (1,))) == pytest.approx(float(dice_ce_loss(logits, label, (1,))), rel=1e-12)
    assert float(dice_ce_loss(split, label)) != pytest.approx(float(dice_ce_loss(logits, label)), rel=1e-3)


@pytest.mark.parametrize("annotated", [None, (2,)])
def test_a_step_down_the_gradient_lowers_the_loss(annotated: tuple[int, ...] | None) -> None:
    logits, label = drawn()
    if annotated:
        label[label != 2] = 0
    logits.requires_grad_()
    before = dice_ce_loss(logits, label, annotated)
    before.backward()
    assert logits.grad is not None
    with torch.no_grad():
        assert float(dice_ce_loss(logits - 0.5 * logits.grad, label, annotated)) < before.item()


def test_labels_are_left_alone() -> None:
    logits, label = drawn()
    label[0, 0] = UNKNOWN
    before = label.clone()
    dice_ce_loss(logits, label, (1,))
    assert torch.equal(label, before)


def test_each_patch_is_judged_by_the_classes_outlined_in_it() -> None:
    """Four patches of three kinds; nothing is learnt from the one for which nobody outlined a class."""
    rng = generator(3, "test")
    logits, label = torch.randn((4, 4, 2, 3, 2), generator=rng), torch.randint(0, 2, (4, 2, 3, 2), generator=rng)
    annotated = [(1,), None, (1,), ()]
    parts = [float(dice_ce_loss(logits[i : i + 1], label[i : i + 1], annotated[i])) for i in range(3)]
    found = over_patches(dice_ce_loss, logits.requires_grad_(), label, annotated)
    found.backward()
    # The mean over patches; Dice is a mean over patches as well, and cross-entropy over equally many voxels of each.
    assert found.item() == pytest.approx(sum(parts) / 4, rel=1e-6)
    assert logits.grad is not None and not bool(logits.grad[3].any()) and bool(logits.grad[:3].any())
    same = [(1,), (1,)]
    assert torch.equal(over_patches(dice_ce_loss, logits[:2], label[:2], same), dice_ce_loss(logits[:2], label[:2], (1,)))
    assert list(alike(annotated)) == [((), [3]), ((1,), [0, 2]), (None, [1])]
