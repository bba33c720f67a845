"""Losses on soft labels against their formulas in NumPy, the ramps of the reference method, and the limits that define them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.numerics.response_losses import (
    channel_wise_loss,
    decoupled_loss,
    entropy,
    entropy_threshold,
    kl_loss,
    most_certain,
    sigmoid_ramp,
    soft_dice_loss,
    softmax_mse_loss,
)
from raykd.numerics.rng import generator

NUM_CLASSES = 4
SHAPE = (2, NUM_CLASSES, 3, 4, 5)
Loss = Callable[..., Tensor]
LOSSES = pytest.mark.parametrize("loss", [softmax_mse_loss, kl_loss, soft_dice_loss, decoupled_loss, channel_wise_loss])


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Student logits, teacher probabilities, and voxel weights in [0, 1]."""
    rng = generator(0, "student and teacher")
    student, teacher = (torch.randn(SHAPE, generator=rng, dtype=torch.float64) for _ in range(2))
    return student, torch.softmax(2 * teacher, dim=1), torch.rand((2, 3, 4, 5), generator=rng, dtype=torch.float64)


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def weighted(values_BIJK: np.ndarray, weight: Tensor | None) -> float:
    return float(np.average(values_BIJK, weights=None if weight is None else weight.numpy()))


def half_mask() -> Tensor:
    mask = torch.zeros((2, 3, 4, 5), dtype=torch.float64)
    mask[0, :2], mask[1, 1:, 2] = 1.0, 1.0
    return mask


def test_the_ramp_rises_from_exp_minus_five_to_one() -> None:
    assert sigmoid_ramp(0, 30) == pytest.approx(math.exp(-5), rel=1e-15)
    assert sigmoid_ramp(15, 30) == pytest.approx(math.exp(-5 / 4), rel=1e-15)  # (1 - 1/2)^2 = 1/4
    assert sigmoid_ramp(30, 30) == 1.0


def test_the_ramp_stays_at_its_ends() -> None:
    assert sigmoid_ramp(31, 30) == 1.0 and sigmoid_ramp(-3, 30) == sigmoid_ramp(0, 30)


def test_the_ramp_gives_the_weights_of_the_reference_code() -> None:
    # METHODS.md A5: alpha 0.1, local epochs e = 0 ... 29 of 30: 0.00067 to 0.0995.
    assert 0.1 * sigmoid_ramp(0, 30) == pytest.approx(0.00067, abs=5e-6)
    assert 0.1 * sigmoid_ramp(29, 30) == pytest.approx(0.0995, abs=1e-4)


@pytest.mark.parametrize("num_classes", [2, 4, 9])
def test_uniform_probabilities_have_the_largest_entropy(num_classes: int) -> None:
    uniform = torch.full((1, num_classes, 2, 2, 2), 1 / num_classes, dtype=torch.float64)
    # The 1e-6 within the logarithm takes about num_classes * 1e-6 away.
    torch.testing.assert_close(
        entropy(uniform), torch.full((1, 2, 2, 2), math.log(num_classes), dtype=torch.float64), rtol=0, atol=2e-5
    )


def test_certain_probabilities_have_no_entropy() -> None:
    certain = torch.nn.functional.one_hot(torch.tensor([[[[0, 3, 1]]]]), 4).movedim(-1, 1).double()
    assert float(entropy(certain).abs().max()) < 2e-6


def test_entropy_by_hand() -> None:
    p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).reshape(1, 3, 1, 1, 1)
    assert entropy(p).item() == pytest.approx(1.5 * math.log(2), abs=1e-5)


@pytest.mark.parametrize(("base", "low", "high"), [(2, 0.75 * math.log(2), math.log(2)), (4, 0.75 * math.log(4), math.log(4))])
def test_the_threshold_runs_from_three_quarters_to_all_of_the_entropy_of_its_base(base: int, low: float, high: float) -> None:
    assert entropy_threshold(0.0, base) == pytest.approx(low) and entropy_threshold(1.0, base) == pytest.approx(high)


def test_the_threshold_of_base_two_is_half_that_of_four_classes() -> None:
    # METHODS.md A11, row 7: with ln 2 for C = 4 the threshold is 0.375 to 0.5 of the maximum entropy.
    shares = [entropy_threshold(progress, 2) / math.log(4) for progress in (0.0, 1.0)]
    assert shares == pytest.approx([0.375, 0.5])


def test_the_threshold_of_the_reference_code_hardly_moves_in_a_round() -> None:
    # METHODS.md A11, row 9: the counter restarts, so that at 120 of 12 150 steps H is still about 0.521.
    assert entropy_threshold(sigmoid_ramp(120, 12150), 2) == pytest.approx(0.521, abs=5e-4)


@pytest.mark.parametrize("weighting", ["none", "soft", "mask"])
def test_softmax_mse_is_its_formula(weighting: str) -> None:
    student, teacher, soft = drawn()
    weight = {"none": None, "soft": soft, "mask": half_mask()}[weighting]
    squared = ((softmax(student.numpy()) - teacher.numpy()) ** 2).sum(axis=1)
    assert float(softmax_mse_loss(student, teacher, weight)) == pytest.approx(weighted(squared, weight) / NUM_CLASSES, rel=1e-9)


def test_softmax_mse_under_the_reference_code_s_mask_and_normaliser() -> None:
    # METHODS.md A5, item 2: sum M (p - q)^2 / (2 sum M).
    student, teacher, _ = drawn()
    mask = half_mask()
    squared = ((softmax(student.numpy()) - teacher.numpy()) ** 2).sum(axis=1)
    expected = (mask.numpy() * squared).sum() / (2 * mask.numpy().sum())
    assert float(softmax_mse_loss(student, teacher, mask, 2.0)) == pytest.approx(expected, rel=1e-9)


def test_a_normaliser_of_two_doubles_the_loss_of_four_classes() -> None:
    student, teacher, _ = drawn()
    ratio = softmax_mse_loss(student, teacher, None, 2.0) / softmax_mse_loss(student, teacher)
    assert float(ratio) == pytest.approx(NUM_CLASSES / 2)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
@pytest.mark.parametrize("weighting", ["none", "soft", "mask"])
def test_kl_is_its_formula_on_softened_logits(temperature: float, weighting: str) -> None:
    student, teacher, soft = drawn()
    weight = {"none": None, "soft": soft, "mask": half_mask()}[weighting]
    # Softening the logits of the teacher, here the logarithm of what it says.
    q, p = softmax(np.log(teacher.numpy()) / temperature), softmax(student.numpy() / temperature)
    divergence = (q * np.log(q / p)).sum(axis=1)
    expected = temperature**2 * weighted(divergence, weight)
    assert float(kl_loss(student, teacher, weight, temperature)) == pytest.approx(expected, rel=1e-6)


def test_kl_at_a_certain_teacher_is_cross_entropy() -> None:
    student, _, _ = drawn()
    label = torch.randint(0, NUM_CLASSES, (2, 3, 4, 5), generator=generator(2, "label"))
    certain = torch.nn.functional.one_hot(label, NUM_CLASSES).movedim(-1, 1).double()
    expected = torch.nn.functional.cross_entropy(student, label)
    assert float(kl_loss(student, certain)) == pytest.approx(float(expected), rel=1e-5)


def test_kl_at_high_temperature_is_the_squared_distance_of_centred_logits() -> None:
    # Hinton et al., 2015, section 2.1: T^2 KL tends to sum over classes of (z - v)^2 / (2 L) for logits of mean zero.
    student, teacher, _ = drawn()
    z, v = (x - x.mean(dim=1, keepdim=True) for x in (student, teacher.log()))
    expected = ((z - v) ** 2).sum(dim=1).mean() / (2 * NUM_CLASSES)
    assert float(kl_loss(student, teacher, None, 1e3)) == pytest.approx(float(expected), rel=0.01)


@pytest.mark.parametrize("weighting", ["none", "soft", "mask"])
def test_soft_dice_is_its_formula(weighting: str) -> None:
    student, teacher, soft = drawn()
    weight = {"none": None, "soft": soft, "mask": half_mask()}[weighting]
    p, q, w = softmax(student.numpy()), teacher.numpy(), np.ones((2, 3, 4, 5)) if weight is None else weight.numpy()
    losses = [
        1 - (2 * (p[b, c] * q[b, c] * w[b]).sum() + 1) / (((p[b, c] ** 2 + q[b, c] ** 2) * w[b]).sum() + 1)
        for b in range(2)
        for c in range(1, NUM_CLASSES)
    ]
    assert float(soft_dice_loss(student, teacher, weight)) == pytest.approx(np.mean(losses), rel=1e-9)


@LOSSES
def test_a_student_that_says_what_the_teacher_says_loses_nothing(loss: Loss) -> None:
    _, teacher, weight = drawn()
    # Logits are free up to a number a voxel.
    student = teacher.log() + 3.0
    assert float(loss(student, teacher)) == pytest.approx(0.0, abs=1e-12)
    assert float(loss(student, teacher, weight)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_kl_is_zero_for_equal_student_and_teacher_at_any_temperature(temperature: float) -> None:
    _, teacher, _ = drawn()
    assert float(kl_loss(teacher.log(), teacher, None, temperature)) == pytest.approx(0.0, abs=1e-9)


@LOSSES
def test_a_mask_of_zeros_is_no_loss_and_no_gradient(loss: Loss) -> None:
    student, teacher, weight = drawn()
    student.requires_grad_()
    value = loss(student, teacher, torch.zeros_like(weight))
    value.backward()
    assert value.item() == 0.0 and student.grad is not None and not student.grad.any()


@LOSSES
def test_a_mask_of_ones_is_no_mask(loss: Loss) -> None:
    student, teacher, weight = drawn()
    assert float(loss(student, teacher, torch.ones_like(weight))) == pytest.approx(float(loss(student, teacher)), rel=1e-12)


@LOSSES
def test_what_is_masked_out_changes_nothing(loss: Loss) -> None:
    student, teacher, _ = drawn()
    mask = half_mask()
    noise = torch.randn(SHAPE, generator=generator(3, "noise"), dtype=torch.float64)
    other = student + 5.0 * noise * (1 - mask[:, None])
    assert float(loss(other, teacher, mask)) == pytest.approx(float(loss(student, teacher, mask)), rel=1e-12)


@LOSSES
def test_only_the_student_gets_a_gradient_and_a_step_down_it_lowers_the_loss(loss: Loss) -> None:
    student, teacher, weight = drawn()
    student.requires_grad_()
    before = loss(student, teacher, weight)
    before.backward()
    assert student.grad is not None and teacher.grad is None and weight.grad is None
    with torch.no_grad():
        assert loss(student - 1.0 * student.grad, teacher, weight).item() < before.item()


@pytest.mark.parametrize("loss", [softmax_mse_loss, kl_loss, decoupled_loss, channel_wise_loss])
def test_the_loss_does_not_depend_on_the_size_of_the_grid(loss: Loss) -> None:
    student, teacher, _ = drawn()
    larger = [torch.cat([x, x], dim=3) for x in (student, teacher)]
    assert float(loss(*larger)) == pytest.approx(float(loss(student, teacher)), rel=1e-12)


def test_kl_bears_probabilities_of_zero() -> None:
    student = torch.tensor([60.0, -60.0]).reshape(1, 2, 1, 1, 1)
    assert math.isfinite(float(kl_loss(student, torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1, 1))))


@pytest.mark.parametrize(("share", "kept"), [(0.25, 1), (0.5, 2), (0.51, 3), (0.75, 3), (1.0, 4)])
def test_the_most_certain_share_of_voxels_is_kept(share: float, kept: int) -> None:
    entropies = torch.tensor([0.3, 0.1, 0.4, 0.2]).reshape(2, 2, 1, 1)
    mask = most_certain(entropies, share)
    assert mask.sum().item() == kept and torch.equal(mask.flatten() > 0, entropies.flatten() <= 0.1 * kept + 0.01)


def test_voxels_as_certain_as_the_last_one_kept_are_kept_too() -> None:
    assert most_certain(torch.tensor([0.0, 0.0, 0.0, 1.0]).reshape(1, 4, 1, 1), 0.25).flatten().tolist() == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_share_of_nothing_or_more_than_all_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\], got"):
        most_certain(torch.zeros(1, 2, 2, 2), share)


def decoupled_by_hand(student: Tensor, teacher: Tensor, target: np.ndarray, temperature: float, beta: float) -> np.ndarray:
    """Voxel by voxel, from probabilities: T^2 (KL of target against rest + beta KL among the rest)."""
    q, p = softmax(np.log(teacher.numpy()) / temperature), softmax(student.numpy() / temperature)
    values = np.empty(target.shape)
    for at in np.ndindex(target.shape):
        q_v, p_v, y = q[at[0], :, *at[1:]], p[at[0], :, *at[1:]], target[at]
        tckd = q_v[y] * np.log(q_v[y] / p_v[y]) + (1 - q_v[y]) * np.log((1 - q_v[y]) / (1 - p_v[y]))
        q_rest, p_rest = np.delete(q_v, y) / (1 - q_v[y]), np.delete(p_v, y) / (1 - p_v[y])
        values[at] = temperature**2 * (tckd + beta * (q_rest * np.log(q_rest / p_rest)).sum())
    return values


@pytest.mark.parametrize(("temperature", "beta"), [(1.0, 2.0), (4.0, 2.0), (4.0, 8.0), (4.0, 0.0)])
@pytest.mark.parametrize("weighting", ["none", "soft"])
def test_decoupled_is_its_formula_with_the_teacher_s_best_class_as_target(temperature: float, beta: float, weighting: str) -> None:
    student, teacher, soft = drawn()
    weight = {"none": None, "soft": soft}[weighting]
    expected = weighted(decoupled_by_hand(student, teacher, teacher.numpy().argmax(axis=1), temperature, beta), weight)
    assert float(decoupled_loss(student, teacher, weight, temperature, non_target_weight=beta)) == pytest.approx(expected, rel=1e-6)


def test_decoupled_takes_the_label_as_target_but_where_nobody_knows_it() -> None:
    student, teacher, _ = drawn()
    label = torch.randint(0, NUM_CLASSES, (2, 3, 4, 5), generator=generator(2, "label"))
    label[0, 0] = 255
    target = np.where(label.numpy() == 255, teacher.numpy().argmax(axis=1), label.numpy())
    expected = decoupled_by_hand(student, teacher, target, 4.0, 2.0).mean()
    assert float(decoupled_loss(student, teacher, label_BIJK=label)) == pytest.approx(expected, rel=1e-6)


def test_decoupled_joins_to_kl_where_the_rest_weighs_what_the_teacher_gives_it() -> None:
    """Zhao et al., equation 7: KL = TCKD + (1 - p_y) NCKD, here in a single voxel of p_y = 0.7."""
    teacher = torch.tensor([0.1, 0.7, 0.15, 0.05], dtype=torch.float64).reshape(1, 4, 1, 1, 1)
    student = torch.tensor([0.3, -0.2, 1.0, 0.4], dtype=torch.float64).reshape(1, 4, 1, 1, 1)
    joined = decoupled_loss(student, teacher, None, 1.0, non_target_weight=0.3)
    assert float(joined) == pytest.approx(float(kl_loss(student, teacher)), rel=1e-9)


def test_of_two_classes_the_weight_of_the_others_means_nothing() -> None:
    student, teacher, _ = drawn()
    two = [student[:, :2], teacher[:, :2] / teacher[:, :2].sum(dim=1, keepdim=True)]
    one, other = (float(decoupled_loss(*two, None, 1.0, non_target_weight=beta)) for beta in (0.0, 8.0))
    assert one == pytest.approx(other) == pytest.approx(float(kl_loss(*two)), rel=1e-6)


def test_a_certain_teacher_says_nothing_of_the_other_classes() -> None:
    """Two students that give its class the same, and differ in the others."""
    certain = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1, 1)
    even, uneven = (torch.tensor([0.5, *rest]).log().reshape(1, 3, 1, 1, 1) for rest in ((0.25, 0.25), (0.4, 0.1)))
    one, other = (float(decoupled_loss(student, certain, None, 1.0)) for student in (even, uneven))
    assert one == pytest.approx(other) == pytest.approx(math.log(2), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weighting", ["none", "soft", "mask"])
def test_channel_wise_is_its_formula(temperature: float, weighting: str) -> None:
    student, teacher, soft = drawn()
    weight = {"none": torch.ones_like(soft), "soft": soft, "mask": half_mask()}[weighting].numpy()
    divergences = []
    for b, c in np.ndindex(2, NUM_CLASSES):
        q = weight[b] * np.exp(np.log(teacher[b, c].numpy()) / temperature)
        p = weight[b] * np.exp(np.log(softmax(student.numpy())[b, c]) / temperature)
        q, p = (q / q.sum())[weight[b] > 0], (p / p.sum())[weight[b] > 0]
        divergences.append((q * np.log(q / p)).sum())
    given = None if weighting == "none" else torch.from_numpy(weight)
    expected = temperature**2 * np.mean(divergences)
    assert float(channel_wise_loss(student, teacher, given, temperature)) == pytest.approx(expected, rel=1e-6)


def test_channel_wise_by_hand() -> None:
    """Two voxels, class 1 in the second: teacher (1/5, 4/5) of its channel, student, undecided, (1/2, 1/2). Background, with less
    than a voxel's worth in the patch, does not count."""
    teacher = torch.tensor([[0.75, 0.0], [0.25, 1.0]], dtype=torch.float64).reshape(1, 2, 2, 1, 1)
    student = torch.zeros(1, 2, 2, 1, 1, dtype=torch.float64)
    expected = 0.2 * math.log(0.2 / 0.5) + 0.8 * math.log(0.8 / 0.5)
    assert float(channel_wise_loss(student, teacher, None, 1.0)) == pytest.approx(expected, rel=1e-6)


def test_channel_wise_has_no_loss_where_no_class_is_there_to_look_at() -> None:
    student, teacher, _ = drawn()
    nowhere = torch.full_like(teacher, 1e-3)
    assert float(channel_wise_loss(student, nowhere)) == 0.0


@pytest.mark.parametrize("loss", [decoupled_loss, channel_wise_loss])
def test_at_high_temperature_the_loss_settles(loss: Loss) -> None:
    """T^2 times a divergence of second order in 1 / T has a limit other than 0."""
    student, teacher, _ = drawn()
    thousand, ten_thousand = (float(loss(student, teacher, None, t)) for t in (1e3, 1e4))
    assert ten_thousand == pytest.approx(thousand, rel=0.01) and thousand > 0.1


@pytest.mark.parametrize("loss", [decoupled_loss, channel_wise_loss])
def test_probabilities_of_zero_and_extreme_logits_are_borne(loss: Loss) -> None:
    student = torch.tensor([[60.0, -60.0], [-60.0, 60.0]]).reshape(1, 2, 2, 1, 1).requires_grad_()
    value = loss(student, torch.tensor([[0.0, 1.0], [1.0, 0.0]]).reshape(1, 2, 2, 1, 1))
    value.backward()
    assert math.isfinite(value.item()) and value.item() > 0 and student.grad is not None and bool(student.grad.isfinite().all())


@pytest.mark.parametrize("loss", [decoupled_loss, channel_wise_loss])
def test_the_gradient_is_the_slope(loss: Loss) -> None:
    student, teacher, weight = drawn()
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher, weight), student.requires_grad_(), fast_mode=True)
