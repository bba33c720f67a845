"""Updates from older models by hand."""

from __future__ import annotations

import pytest
import torch

from raykd.numerics.params import weighted_mean
from raykd.numerics.staleness import rebased, staleness_weight


def test_the_weight_of_an_update_falls_with_its_age() -> None:
    assert [staleness_weight(tau) for tau in (0, 3, 8)] == pytest.approx([1.0, 0.5, 1 / 3])
    assert staleness_weight(5, 0.0) == 1.0 and staleness_weight(1, 1.0) == 0.5


def test_the_mean_of_rebased_uploads_is_the_server_s_step_of_fedbuff() -> None:
    """w 10; updates +4 (from v 2) of weight 0.5 and -1 (from v 10) of weight 1; eta 2, equal shares: 10 + 2 (2 - 1) / 2 = 11."""
    w = {"params/a": torch.tensor([10.0])}
    old = rebased(
        w, {"params/a": torch.tensor([2.0])}, {"params/a": torch.tensor([6.0])}, ["params/a"], weight=0.5, learning_rate=2
    )
    new = rebased(w, w, {"params/a": torch.tensor([9.0])}, ["params/a"], weight=1.0, learning_rate=2)
    assert weighted_mean([old, new], [1.0, 1.0])["params/a"].item() == pytest.approx(11.0)


def test_running_statistics_stay_between_the_two_and_counts_stay_whole() -> None:
    """A variance of 1 that a site saw fall from 9 to 0.5 would be -3.25 as an update of weight 0.5; it is 0.75."""
    now = {"params/var": torch.tensor([1.0]), "params/count": torch.tensor(10)}
    upload = {"params/var": torch.tensor([0.5]), "params/count": torch.tensor(5)}
    start = {"params/var": torch.tensor([9.0]), "params/count": torch.tensor(1)}
    moved = rebased(now, start, upload, [], weight=0.5)
    assert moved["params/var"].item() == pytest.approx(0.75)
    assert moved["params/count"].dtype == torch.int64 and moved["params/count"].item() == 8
