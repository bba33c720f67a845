"""Paired tests beside published examples, other libraries, and what can be counted by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raykd.results.statistics import (
    Difference,
    Estimate,
    case_scores,
    deployed_cases,
    hodges_lehmann,
    holm,
    judge,
    paired_difference,
    rank_biserial,
    rank_methods,
    verdict,
)

# Hamilton depression scale of nine patients before and after a tranquillizer: Hollander and Wolfe, 1999, table 3.1.
BEFORE = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
AFTER = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
COLUMNS = ["method", "seed", "client_id", "patient_id", "case_id", "score"]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_published_example_of_signed_ranks() -> None:
    """Its T+ is 5 of 45 for after minus before; the estimate is -0.46."""
    assert hodges_lehmann(AFTER - BEFORE) == pytest.approx(-0.46, abs=5e-4)
    assert rank_biserial(AFTER - BEFORE) == pytest.approx((5 - 40) / 45)


def test_zeros_are_ranked_before_they_are_left_out() -> None:
    """Pratt: zeros take ranks 1 and 2, so the loss of 0.1 has rank 3 of 10, not 1."""
    assert rank_biserial(np.array([0.0, 0.0, -0.1, 0.2, 0.3])) == pytest.approx((4 + 5 - 3) / 15)
    assert rank_biserial(np.zeros(4)) == 0.0


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
    ("low", "high", "p_value", "p_margin", "said"),
    [
        (0.002, 0.03, 0.03, 0.01, "better"), (-0.008, 0.02, 0.4, 0.03, "not worse"), (-0.012, 0.02, 0.6, 0.07, "open"),
        (-0.03, -0.012, 0.001, 0.6, "worse"), (-0.03, -0.002, 0.03, 0.5, "worse"), (-0.009, -0.001, 0.02, 0.03, "not worse"),
        (np.nan, np.nan, np.nan, np.nan, "open"),
        # An interval and a test that disagree: the p-value is that of a whole family, the interval its own.
        (0.002, 0.03, 0.133, 0.1, "open"), (-0.03, -0.012, 0.2, 0.9, "open"), (-0.008, 0.02, 0.4, 0.2, "open"),
    ],
)  # fmt: skip
def test_verdicts_beside_the_margin(low: float, high: float, p_value: float, p_margin: float, said: str) -> None:
    assert verdict(Estimate((low + high) / 2, low, high), p_value, p_margin, 0.01) == said
    assert verdict(Estimate(-(low + high) / 2, -high, -low), p_value, p_margin, 0.01, higher_is_better=False) == said


def luck_of(seeds: list[float]) -> Difference:
    """Two methods whose mean difference in each training is known; eight patients of each training's own vary about it."""
    around = np.linspace(-0.01, 0.01, 8)
    pairs = [(seed, f"{seed}-{i}", luck + step) for seed, luck in enumerate(seeds) for i, step in enumerate(around)]
    rows = [(0, p, p, value, seed) for seed, p, value in pairs]
    one = pd.DataFrame(rows, columns=["client_id", "patient_id", "case_id", "score", "seed"])
    return paired_difference(one, one.assign(score=0.0))


def test_the_test_is_student_s_over_trainings_not_wilcoxon_s_over_their_patients() -> None:
    """Four trainings with gains of 0.03, -0.01, 0.05 and 0.02: forty of forty patients' signs would say otherwise."""
    found = luck_of([0.03, -0.01, 0.05, 0.02])
    expected = stats.ttest_1samp([0.03, -0.01, 0.05, 0.02], 0)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6) and found.p_value > 0.1
    assert (found.macro.low, found.macro.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert (found.num_seeds, found.num_patients) == (4, 32)
    assert stats.wilcoxon(np.concatenate([np.linspace(-0.01, 0.01, 8) + luck for luck in (0.03, -0.01, 0.05, 0.02)])).pvalue < 0.001


def test_a_family_is_adjusted_as_a_whole_and_named() -> None:
    """The p-values of three differences are 0.032, 0.013 and 0.27: alone two are gains, together 2 x 0.032 is none."""
    gains = [[0.03, 0.03, 0.05], [0.02, 0.03, 0.025], [0.05, -0.01, 0.05]]
    found = [luck_of(seeds) for seeds in gains]
    table = judge(found, "DSC, methods", 0.0)
    alone = [stats.ttest_1samp(seeds, 0).pvalue for seeds in gains]
    assert table["p_value"].to_numpy() == pytest.approx(alone, rel=1e-6)
    assert table["p_holm"].to_numpy() == pytest.approx(holm(alone), rel=1e-6)
    assert table["verdict"].tolist() == ["better" if p < 0.05 else "open" for p in holm(alone)]
    assert alone[0] < 0.05 < holm(alone)[0] and found[0].macro.low > 0, "a gain alone, and open among three"
    assert set(table["family"]) == {"DSC, methods: 3 comparisons"}
    assert judge(found[:1], "DSC", 0.0)["verdict"].tolist() == ["better"]
    assert judge([], "DSC").empty


def test_non_inferiority_is_adjusted_too() -> None:
    """Losses of about 0.002, a margin of 0.01: not worse alone; one of thirty such is not enough to say so."""
    found = luck_of([-0.002, -0.003, 0.0, -0.004])
    expected = stats.ttest_1samp([-0.002, -0.003, 0.0, -0.004], -0.01).pvalue
    assert found.p_against(-0.01) == pytest.approx(expected, rel=1e-6)
    assert judge([found], "DSC")["verdict"].tolist() == ["not worse"]
    assert set(judge([found] * 30, "DSC")["verdict"]) == {"open"} and 0.05 / 30 < expected < 0.05


def test_one_training_has_no_p_value_and_no_verdict() -> None:
    found = luck_of([0.2])
    assert found.macro.low > 0.19 and np.isnan(found.p_value)
    (row,) = judge([found], "DSC").to_dict("records")
    assert row["verdict"] == "no verdict" and np.isnan(row["p_holm"])


def cases(methods: dict[str, float], noise: float = 0.02) -> pd.DataFrame:
    """Three trainings of two sites, twelve patients of each with two classes; the second class is 0.2 worse, hd95 falls as dsc
    rises."""
    rows = []
    for number, (method, level) in enumerate(methods.items()):
        draws = np.random.default_rng(number)
        for seed, client_id, patient, index in itertools.product(range(3), range(2), range(12), (1, 2)):
            dsc = level + 0.01 * patient - 0.2 * (index - 1) + draws.normal(0, noise)
            rows.append((method, seed, client_id, f"p{patient}", index, f"class-{index}", dsc, 10 * (1 - dsc)))
    columns = ["method", "seed", "client_id", "case_id", "class_index", "class_name", "dsc", "hd95_mm"]
    frame = pd.DataFrame(rows, columns=columns).assign(round=4, split="test", model="global")
    return deployed_cases(frame.assign(run_id=frame["method"] + frame["seed"].astype(str)))


def test_a_firm_order_is_told_from_a_draw() -> None:
    table = rank_methods(case_scores(cases({"low": 0.4, "a": 0.7, "b": 0.7})), rng()).set_index("method")
    assert table.loc["low", ["rank", "rank_low", "rank_high"]].tolist() == [3, 3, 3] and table.loc["low", "share_first"] == 0
    assert table.loc[["a", "b"], "rank_low"].tolist() == [1, 1] and table.loc[["a", "b"], "rank_high"].tolist() == [2, 2]
    assert table.loc[["a", "b"], "share_first"].sum() == pytest.approx(1.0)


def test_ranks_follow_the_metric_s_better_end() -> None:
    deployed = cases({"low": 0.4, "high": 0.7})
    table = rank_methods(case_scores(deployed, "hd95_mm"), rng(), metric="hd95_mm")
    assert table["method"].tolist() == ["high", "low"]


def test_ranks_are_those_of_student_s_distribution() -> None:
    """Two patients, one training: x leads by 0.025, its patients' differences are 0.3 and -0.25. With one degree of freedom x is
    first with the probability that Cauchy's distribution has below 0.025 over the standard error."""
    rows = [("x", 0, 0, "p", "p", 0.9), ("x", 0, 0, "q", "q", 0.5), ("y", 0, 0, "p", "p", 0.6), ("y", 0, 0, "q", "q", 0.75)]
    table = rank_methods(pd.DataFrame(rows, columns=COLUMNS), rng()).set_index("method")
    first = stats.cauchy.cdf(0.025 / (np.std([0.3, -0.25], ddof=1) / np.sqrt(2)))
    assert table["share_first"].to_dict() == pytest.approx({"x": first, "y": 1 - first}, abs=0.02)
    assert (table["num_seeds"] == 1).all()


def test_the_order_of_lucky_trainings_is_not_firm() -> None:
    """Forty patients of each of two trainings say that x leads; the two trainings say 0.02 and 0.01."""
    rows = [(m, s, 0, f"{s}-{p}", "c", 0.6 + lead + p / 400) for s, gain in ((0, 0.02), (1, 0.01))
            for m, lead in (("x", gain), ("y", 0.0)) for p in range(40)]  # fmt: skip
    table = rank_methods(pd.DataFrame(rows, columns=COLUMNS), rng()).set_index("method")
    assert table.loc["x", "share_first"] == pytest.approx(stats.cauchy.cdf(0.015 / 0.005), abs=0.02)
    assert table.loc["x", "rank_high"] == 2
