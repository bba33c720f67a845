"""The Gaussian mechanism on payloads, on vectors whose norms are known."""

from __future__ import annotations

import pytest
import torch

from raykd.numerics.gaussian_mechanism import clipped, norm_of, privatised, update_of
from raykd.numerics.rng import generator

RECEIVED = {"params/a": torch.tensor([1.0, 1.0]), "params/b": torch.tensor([[2.0]])}
SENT = {"params/a": torch.tensor([4.0, 1.0]), "params/b": torch.tensor([[6.0]])}
"""An update of (3, 0) and 4: norm 5."""


def test_the_norm_is_taken_over_all_entries_together() -> None:
    assert norm_of(update_of(SENT, RECEIVED)) == 5.0


@pytest.mark.parametrize("clip_norm", [0.5, 2.5, 4.999])
def test_a_longer_update_ends_at_the_norm_exactly_and_keeps_its_direction(clip_norm: float) -> None:
    short = clipped(update_of(SENT, RECEIVED), clip_norm)
    assert norm_of(short) == pytest.approx(clip_norm, rel=1e-14)
    assert short["params/a"][0] / short["params/b"][0, 0] == pytest.approx(3 / 4, rel=1e-14)


def test_without_noise_and_under_a_large_norm_the_payload_is_the_same_to_the_last_bit() -> None:
    rng = generator(0, "test")
    sent = {"params/a": torch.randn(500, generator=rng), "control/new": torch.randn(7, generator=rng)}
    received = {"params/a": torch.randn(500, generator=rng)}
    same = privatised(sent, received, clip_norm=1e9, noise_std=0.0, rng=rng)
    assert same.keys() == sent.keys() and all(torch.equal(same[key], sent[key]) for key in sent)


def test_the_noise_has_the_variance_that_was_asked_for() -> None:
    """On 200 000 values of an update of zero; three standard errors of a variance are 3 sqrt(2 / n)."""
    still = {"params/a": torch.zeros(200_000)}
    noise = privatised(still, still, clip_norm=1.0, noise_std=0.3, rng=generator(1, "test"))["params/a"].double()
    assert float(noise.var()) == pytest.approx(0.09, rel=3 * (2 / 200_000) ** 0.5)
    assert abs(float(noise.mean())) < 3 * 0.3 / 200_000**0.5


def test_what_was_not_received_counts_from_zero() -> None:
    update = update_of({"prototypes/mean": torch.tensor([3.0, 4.0]), "params/a": torch.zeros(3)}, RECEIVED)
    assert update["prototypes/mean"].tolist() == [3.0, 4.0] and update["params/a"].tolist() == [0.0, 0.0, 0.0]


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"real numbers only, got torch\.int64 in params/n"):
        privatised({"params/n": torch.tensor(3)}, {}, clip_norm=1.0, noise_std=1.0, rng=generator(0, "test"))
