"""Paired tests beside published examples, other libraries, and what can be counted by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raykd.results.statistics import (
    Estimate,
    case_scores,
    compare_with,
    deployed_cases,
    hodges_lehmann,
    holm,
    rank_biserial,
    rank_methods,
    verdict,
)
from raykd.results.statistics.paired import signed_rank_p

# Hamilton depression scale of nine patients before and after a tranquillizer: Hollander and Wolfe, 1999, table 3.1.
BEFORE = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
AFTER = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_published_example_of_the_signed_rank_test() -> None:
    """Its T+ is 5 for after minus before, P = 0.039 two-sided; estimate -0.46, interval (-0.786, -0.010) at 96.1%."""
    differences = AFTER - BEFORE
    assert signed_rank_p(differences) == pytest.approx(0.0390625)
    shift = hodges_lehmann(differences)
    assert (shift.low, shift.value, shift.high) == pytest.approx((-0.786, -0.46, -0.010), abs=5e-4)
    assert rank_biserial(differences) == pytest.approx((5 - 40) / 45)


@pytest.mark.parametrize("num", [5, 6, 8, 12])
def test_the_shift_s_interval_inverts_the_test_counted_over_all_signs(num: int) -> None:
    """Values within the interval are those that the exact test at 5% does not reject."""
    differences = np.random.default_rng(num).normal(0.3, 1, num)
    shift = hodges_lehmann(differences)
    if num < 6:
        assert np.isnan([shift.low, shift.high]).all(), "five patients cannot give 95%"
        return
    signs = np.array(list(itertools.product([0, 1], repeat=num)))
    totals = signs @ np.arange(1, num + 1)

    def p_value(centre: float) -> float:
        moved = differences - centre
        plus = stats.rankdata(np.abs(moved))[moved > 0].sum()
        return min(1.0, 2 * min((totals <= plus).mean(), (totals >= plus).mean()))

    step = 1e-9
    assert p_value(shift.low + step) > 0.05 >= p_value(shift.low - step)
    assert p_value(shift.high - step) > 0.05 >= p_value(shift.high + step)


def test_the_exact_and_the_normal_interval_meet_where_they_change_over() -> None:
    differences = np.random.default_rng(1).normal(0.2, 1, 201)
    one, other = hodges_lehmann(differences[:200]), hodges_lehmann(differences)
    assert one.high - one.low == pytest.approx(other.high - other.low, rel=0.05)


def test_fewest_patients_that_can_reach_a_p_value() -> None:
    """All differences of one sign: 2 / 2^n, as the smallest that n patients can give."""
    for num in (5, 6, 10):
        assert signed_rank_p(np.linspace(0.1, 0.2, num)) == pytest.approx(2 / 2**num)


def test_zeros_are_ranked_before_they_are_left_out() -> None:
    """Pratt: zeros take ranks 1 and 2, so the loss of 0.1 has rank 3 of 10, not 1."""
    differences = np.array([0.0, 0.0, -0.1, 0.2, 0.3])
    assert signed_rank_p(differences) == pytest.approx(stats.wilcoxon(differences, zero_method="pratt").pvalue)
    assert rank_biserial(differences) == pytest.approx((4 + 5 - 3) / 15)
    assert signed_rank_p(np.zeros(4)) == 1.0 and rank_biserial(np.zeros(4)) == 0.0


def test_holm_by_hand() -> None:
    """0.01 x 4, 0.02 x 3, then 0.03 x 2 is not below the one before, 0.9 stays."""
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.6, np.nan, 0.5]) == pytest.approx([1.0, np.nan, 1.0], nan_ok=True)
    assert len(holm([])) == 0


def test_holm_is_that_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(0).uniform(0, 0.2, 20)
    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.002, 0.03, "better"), (-0.008, 0.02, "not worse"), (-0.012, 0.02, "open"), (-0.03, -0.012, "worse"),
        (-0.03, -0.002, "worse"), (-0.009, -0.001, "not worse"), (np.nan, np.nan, "open"),
    ],
)  # fmt: skip
def test_verdicts_beside_the_margin(low: float, high: float, said: str) -> None:
    assert verdict(Estimate((low + high) / 2, low, high), 0.01) == said
    assert verdict(Estimate(-(low + high) / 2, -high, -low), 0.01, higher_is_better=False) == said


def cases(methods: dict[str, float], noise: float = 0.02) -> pd.DataFrame:
    """Two sites of twelve patients with two classes; the second class is 0.2 worse, hd95 falls as dsc rises."""
    rows = []
    for number, (method, level) in enumerate(methods.items()):
        draws = np.random.default_rng(number)
        for client_id, patient, index in itertools.product(range(2), range(12), (1, 2)):
            dsc = level + 0.01 * patient - 0.2 * (index - 1) + draws.normal(0, noise)
            rows.append((method, client_id, f"p{patient}", index, f"class-{index}", dsc, 10 * (1 - dsc)))
    columns = ["method", "client_id", "case_id", "class_index", "class_name", "dsc", "hd95_mm"]
    frame = pd.DataFrame(rows, columns=columns).assign(seed=0, round=4, split="test", model="global")
    return deployed_cases(frame.assign(run_id=frame["method"]))


def test_a_family_is_adjusted_as_a_whole() -> None:
    deployed = cases({"base": 0.6, "same": 0.6, "good": 0.65})
    table = compare_with(deployed, "base", rng(), metrics=("dsc", "hd95_mm"), by_class=True)
    assert len(table) == 2 * 2 * 2 and set(table["class_name"]) == {"class-1", "class-2"}
    assert table["p_holm"].to_numpy() == pytest.approx(holm(table["p_value"]))
    good, same = table[table["method"] == "good"], table[table["method"] == "same"]
    assert (good["verdict"] == "better").all() and (good["p_holm"] < 0.05).all()
    assert not (same["verdict"] == "better").any()
    assert (good.loc[good["metric"] == "hd95_mm", "difference"] < 0).all()
    assert (table["num_patients"] == 12 * 2).all()
    assert (table["shift_low"] <= table["shift"]).all() and (table["shift"] <= table["shift_high"]).all()
    assert compare_with(deployed, "good", rng())["class_name"].tolist() == ["all", "all"]
    assert compare_with(deployed[deployed["method"] == "base"], "base", rng()).empty


def test_a_firm_order_is_told_from_a_draw() -> None:
    table = rank_methods(case_scores(cases({"low": 0.4, "a": 0.7, "b": 0.7})), rng()).set_index("method")
    assert table.loc["low", ["rank", "rank_low", "rank_high"]].tolist() == [3, 3, 3] and table.loc["low", "share_first"] == 0
    assert table.loc[["a", "b"], "rank_low"].tolist() == [1, 1] and table.loc[["a", "b"], "rank_high"].tolist() == [2, 2]
    assert table.loc[["a", "b"], "share_first"].sum() == pytest.approx(1.0)


def test_ranks_follow_the_metric_s_better_end() -> None:
    deployed = cases({"low": 0.4, "high": 0.7})
    table = rank_methods(case_scores(deployed, "hd95_mm"), rng(), metric="hd95_mm")
    assert table["method"].tolist() == ["high", "low"]


def test_ranks_are_those_of_all_resamples_counted() -> None:
    """Two patients, two methods, four equally likely resamples: x is first with p, p and with p, q, in three of four."""
    rows = [("x", 0, 0, "p", "p", 0.9), ("x", 0, 0, "q", "q", 0.5), ("y", 0, 0, "p", "p", 0.6), ("y", 0, 0, "q", "q", 0.75)]
    scores = pd.DataFrame(rows, columns=["method", "seed", "client_id", "patient_id", "case_id", "score"])
    table = rank_methods(scores, rng()).set_index("method")
    assert table["share_first"].to_dict() == pytest.approx({"x": 0.75, "y": 0.25}, abs=0.02)
