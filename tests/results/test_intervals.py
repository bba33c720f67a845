"""Bootstrap intervals beside scipy's, beside coverage in simulation, and where they have nothing to say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raykd.results.statistics import FEW_CLIENTS, Sample, mean_of, percentiles, spreads
from raykd.results.statistics.intervals import bca


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scores(clients: list[np.ndarray], method: str = "m", seed: int = 0) -> pd.DataFrame:
    rows = [(method, seed, c, f"{c}-{i}", f"{c}-{i}", v) for c, values in enumerate(clients) for i, v in enumerate(values)]
    return pd.DataFrame(rows, columns=["method", "seed", "client_id", "patient_id", "case_id", "score"])


@pytest.mark.parametrize("skew", [1.0, 6.0])
def test_one_client_has_the_bca_interval_of_scipy(skew: float) -> None:
    values = rng(4).beta(8, 1 / skew, 25)
    result = stats.bootstrap((values,), np.mean, method="BCa", rng=rng(2))
    left_out = np.array([np.delete(values, i).mean() for i in range(len(values))])
    mine = bca(values.mean(), result.bootstrap_distribution, [left_out])
    expected = result.confidence_interval
    assert (mine.low, mine.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    drawn = mean_of(values, rng())
    assert (drawn.low, drawn.high) == pytest.approx((expected.low, expected.high), abs=0.06 * (expected.high - expected.low))
    assert drawn.low < np.quantile(result.bootstrap_distribution, 0.025), "scores below a ceiling have a longer tail downwards"


def test_few_clients_are_strata_and_more_are_drawn() -> None:
    """With clients that differ and patients that hardly do, strata are sure of their mean and drawn clients are not."""
    levels = np.linspace(0.5, 0.9, FEW_CLIENTS + 1)
    clients = [level + rng(c).normal(0, 0.001, 8) for c, level in enumerate(levels)]
    few, many = (spreads(scores(some), rng()).iloc[0] for some in (clients[:-1], clients))
    assert (few["clients_are"], many["clients_are"]) == ("fixed", "drawn")
    assert few["macro_high"] - few["macro_low"] < 0.002
    standard_error = levels.std(ddof=0) / np.sqrt(len(levels))
    assert many["macro_high"] - many["macro_low"] == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def test_drawn_clients_vary_as_two_stages_do() -> None:
    """The variance of the macro mean under two stages: that of client means, and that of patients within them, over K."""
    clients = [rng(c).normal(0.7, 0.1, 5) + 0.05 * rng(100 + c).normal() for c in range(12)]
    sample = Sample({c: values[:, None] for c, values in enumerate(clients)}, ("m",))
    means = np.array([values.mean() for values in clients])
    within = np.mean([values.var() / len(values) for values in clients])
    expected = (means.var() + within) / len(clients)
    assert sample.macro_draws_BV(rng(), 40_000).var() == pytest.approx(expected, rel=0.03)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(200):
        draws = rng(trial)
        sample = Sample({c: draws.beta(6, 2, (15, 1)) for c in range(3)}, ("m",))
        (estimate,) = sample.macro(draws)
        covered += estimate.low <= 0.75 <= estimate.high
    assert 0.90 <= covered / 200 <= 0.98


def test_a_client_of_one_patient_leaves_no_interval_where_clients_are_fixed() -> None:
    fixed = Sample({0: np.full((1, 1), 0.5), 1: np.array([[0.4], [0.6]])}, ("m",)).macro(rng())[0]
    assert fixed.value == 0.5 and np.isnan([fixed.low, fixed.high]).all()
    drawn = Sample({c: np.full((1, 1), c / 10) for c in range(FEW_CLIENTS + 1)}, ("m",)).macro(rng())[0]
    assert drawn.low < drawn.value < drawn.high


def test_values_that_are_all_the_same_have_an_interval_of_no_width() -> None:
    estimate = mean_of(np.full(5, 0.7), rng())
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((0.7, 0.7, 0.7))


def test_a_percentile_interval_holds_infinity_without_losing_itself() -> None:
    low, high = percentiles(np.array([*np.linspace(0, 1, 90), *[np.inf] * 10]))
    assert low < 0.05 and high == np.inf
    assert np.isnan(percentiles(np.array([0.0, np.nan]))).all()


def test_spreads_are_kept_apart() -> None:
    """Patients 0.6 and 0.8 at one site, 0.2 and 0.4 at the other; a second seed is 0.1 above."""
    clients = [np.array([0.6, 0.8]), np.array([0.2, 0.4])]
    both = pd.concat([scores(clients, seed=0), scores([values + 0.1 for values in clients], seed=1)])
    row = spreads(both, rng()).iloc[0]
    assert row["macro"] == pytest.approx(0.55)
    assert row["gap"] == pytest.approx(0.4) and row["gap_low"] <= 0.4 <= row["gap_high"]
    assert row["sd_seeds"] == pytest.approx(np.std([0.5, 0.6], ddof=1))
    assert row["sd_patients"] == pytest.approx(np.std([0.0, 0.2], ddof=1))
    assert row["sd_clients"] == pytest.approx(np.std([0.75, 0.35], ddof=1))
    assert (row["worst_client"], row["num_seeds"], row["num_patients"]) == (1, 2, 4)
    assert np.isnan(spreads(scores(clients), rng()).iloc[0]["sd_seeds"])
