"""A teacher that was taught some classes: its silence about the others teaches nobody "background"."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from raykd.numerics.dual_distillation import RESPONSE_LOSSES, DualDistillation, trust_in_teacher
from raykd.numerics.known_classes import merge_probs
from raykd.numerics.local_sgd import Batch
from raykd.numerics.response_losses import entropy
from raykd.numerics.segmentation_losses import marginal_logits


def voxel(*values: float) -> Tensor:
    """One voxel's values over background and classes, as (1, L, 1, 1, 1)."""
    return torch.tensor(values).reshape(1, -1, 1, 1, 1)


def random_probs(seed: int, num_classes: int = 4) -> Tensor:
    return torch.softmax(torch.randn((2, num_classes, 3, 3, 3), generator=torch.Generator().manual_seed(seed)), dim=1)


def distillation(**changes: Any) -> DualDistillation:
    settings: dict[str, Any] = {"response": "kl", "feature": "none", "response_weight": 1.0, "feature_weight": 1.0}
    return DualDistillation(**(settings | changes))


def batch(soft: Tensor) -> Batch:
    image, label = torch.zeros((len(soft), 1, *soft.shape[2:])), torch.zeros((0, *soft.shape[2:]), dtype=torch.long)
    return Batch(image, label, 0, soft, entropy(soft), {})


def test_unknown_classes_become_background() -> None:
    merged = merge_probs(voxel(0.1, 0.2, 0.3, 0.4), (2,))
    assert merged.flatten().tolist() == pytest.approx([0.7, 0.0, 0.3, 0.0])
    probs = random_probs(0)
    assert merge_probs(probs, None) is probs
    torch.testing.assert_close(merge_probs(probs, (1, 2, 3)), probs)
    torch.testing.assert_close(merge_probs(merge_probs(probs, (1, 3)), (1, 3)), merge_probs(probs, (1, 3)))


def test_marginal_logits_have_the_merged_probabilities() -> None:
    logits = torch.randn((2, 4, 3, 3, 3), generator=torch.Generator().manual_seed(1)) * 5
    merged = merge_probs(torch.softmax(logits, 1), (1, 3))
    torch.testing.assert_close(torch.softmax(marginal_logits(logits, (1, 3)), 1), merged[:, [0, 1, 3]])


def test_the_divergence_by_hand() -> None:
    """Teacher (0.1, 0.3 | 0.6 never taught): none of these 0.7, class 1 0.3. Student (0.2, 0.4 | 0.4): 0.6 and 0.4."""
    soft, logits = voxel(0.1, 0.3, 0.6), voxel(0.2, 0.4, 0.4).log()
    found = distillation(known=(1,))(logits, {}, batch(soft))["response"].item()
    assert found == pytest.approx(0.7 * math.log(0.7 / 0.6) + 0.3 * math.log(0.3 / 0.4), abs=1e-6)


@pytest.mark.parametrize("name", sorted(RESPONSE_LOSSES))
def test_only_the_sum_of_background_and_unknown_classes_counts(name: str) -> None:
    """Another share of "none of these" on either side changes no response; a student that agrees on the sum is at the least of
    it, and what it says of an unknown class against background feels no pull.
    """
    soft, student = random_probs(0), random_probs(1)
    one = distillation(response=name, known=(1, 2), temperature=2.0)

    def shared(probs: Tensor, share: float) -> Tensor:
        total = probs[:, :1] + probs[:, 3:]
        return torch.cat([total * share, probs[:, 1:3], total * (1 - share)], dim=1)

    values = [one(shared(student, s).log(), {}, batch(shared(soft, t)))["response"].item() for s in (0.1, 0.9) for t in (0.2, 0.7)]
    assert values == pytest.approx([values[0]] * 4, abs=1e-5)
    logits = shared(soft, 0.25).log().requires_grad_()
    (gradient,) = torch.autograd.grad(one(logits, {}, batch(shared(soft, 0.8)))["response"], logits)
    assert float(gradient.abs().max()) < 1e-5
    if name != "channel_wise":  # which compares places within a channel, and an empty channel has none
        (taught,) = torch.autograd.grad(distillation(response=name)(logits, {}, batch(shared(soft, 1.0)))["response"], logits)
        assert float(taught[:, 3].abs().max()) > 1e-4, "without `known` the teacher's silence pushes class 3 down"


def test_a_gradient_moves_background_and_unknown_classes_by_their_shares() -> None:
    """d logsumexp(a, b) / da : / db = softmax: shares 0.2 and 0.6 of "none of these" give 1 : 3."""
    logits = voxel(0.2, 0.2, 0.6).log().requires_grad_()
    (gradient,) = torch.autograd.grad(distillation(known=(1,))(logits, {}, batch(voxel(0.5, 0.5, 0.0)))["response"], logits)
    background, own, unknown = gradient.flatten().tolist()
    assert unknown == pytest.approx(3 * background) and own == pytest.approx(-(background + unknown), abs=1e-6)
    assert background > 0


def test_trust_of_the_background_is_that_of_the_classes_known() -> None:
    """Leads as in the test of trust: full, 0.2 and none; class 2 was never taught: it and the background have (1 + 0) / 2."""
    scores = [(1.6, 2), (1.0, 2), (0.1, 2)], [(1.2, 2), (1.0, 2), (1.8, 2)]
    assert trust_in_teacher(*scores, known=(1, 3)) == pytest.approx((0.5, 1.0, 0.5, 0.0))
    assert trust_in_teacher(*scores, known=(1, 2, 3)) == trust_in_teacher(*scores)


def test_trust_weighs_voxels_by_the_merged_soft_label() -> None:
    """Merged teacher (0.8, 0.2, 0): weight 0.8 * 0.5 + 0.2 * 1 = 0.6; one voxel, so the response counts 0.6 of its plain value."""
    soft, logits = voxel(0.3, 0.2, 0.5), voxel(0.5, 0.3, 0.2).log()
    plain = distillation(known=(1,))(logits, {}, batch(soft))["response"].item()
    trusted = distillation(known=(1,), trust=(0.5, 1.0, 0.5))(logits, {}, batch(soft))["response"].item()
    assert trusted == pytest.approx(0.6 * plain)
