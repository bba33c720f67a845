"""Intervals and tests beside scipy's, beside the mean squares of statsmodels, and where they have nothing to say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raykd.results.statistics import FEW_CLIENTS, Clusters, Sample, patient_scores, percentiles, spreads

Sites = Mapping[int, list[float] | np.ndarray]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scores(seeds: Mapping[int, Sites], *, same_patients: bool = False, method: str = "m") -> pd.DataFrame:
    """By seed and site the scores of patients, who are others in every seed unless said otherwise."""
    rows = [
        (method, seed, site, f"{site}-{i}" if same_patients else f"{seed}-{site}-{i}", str(i), float(value))
        for seed, sites in seeds.items()
        for site, values in sites.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "client_id", "patient_id", "case_id", "score"])


def sample(seeds: Mapping[int, Sites], *, same_patients: bool = False) -> Sample:
    return Sample(patient_scores(scores(seeds, same_patients=same_patients)))


def ends(of: Clusters) -> tuple[float, float]:
    (one,) = of.estimates()
    return one.low, one.high


def test_one_training_at_one_site_has_student_s_interval() -> None:
    values = rng(4).beta(8, 2, 9)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert ends(sample({0: {0: values}}).clusters) == pytest.approx((expected.low, expected.high))


def test_one_training_at_two_sites_has_welch_s_interval() -> None:
    """The mean of two sites is half the difference of one and the other negated; the gap is the difference itself."""
    one, other = rng(1).normal(0.8, 0.02, 5), rng(2).normal(0.6, 0.1, 12)
    own = sample({0: {0: one, 1: other}})
    added = stats.ttest_ind(one, -other, equal_var=False).confidence_interval()
    assert ends(own.clusters) == pytest.approx((added.low / 2, added.high / 2))
    taken = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    assert ends(own.contrast({0: 1.0, 1: -1.0})) == pytest.approx((taken.low, taken.high))
    assert np.isnan(own.clusters.p_value()), "one training has no p-value"


def test_trainings_with_patients_of_their_own_have_student_s_interval_over_trainings() -> None:
    """However many patients there are: 120 of five trainings are five numbers."""
    draws = rng(3)
    seeds = {seed: {site: draws.normal(0.02 + 0.05 * draws.normal(), 0.01, 6) for site in range(4)} for seed in range(5)}
    means = [np.mean([values.mean() for values in sites.values()]) for sites in seeds.values()]
    expected, own = stats.ttest_1samp(means, 0), sample(seeds).clusters
    interval = expected.confidence_interval()
    assert ends(own) == pytest.approx((interval.low, interval.high))
    assert own.p_value() == pytest.approx(expected.pvalue, rel=1e-6)
    assert own.p_value(0.05) == pytest.approx(stats.ttest_1samp(means, 0.05).pvalue, rel=1e-6)


def test_trainings_that_share_patients_have_the_variances_of_an_analysis_of_variance() -> None:
    """Mean squares of training, patient and their rest, as statsmodels has them: the mean's variance is MS_training / (S n) for
    what trainings vary, and (MS_patient - MS_rest) / (S n) for what patients do."""
    formula = pytest.importorskip("statsmodels.formula.api")
    from statsmodels.stats.anova import anova_lm

    num_seeds, num = 4, 7
    draws = rng(5)
    table = (
        0.7
        + 0.02 * draws.normal(size=(num_seeds, 1))
        + 0.05 * draws.normal(size=(1, num))
        + 0.02 * draws.normal(size=(num_seeds, num))
    )
    long = pd.DataFrame(table).stack().rename("y").rename_axis(["s", "p"]).reset_index()
    squares = anova_lm(formula.ols("y ~ C(s) + C(p)", long).fit())["mean_sq"]
    trainings, patients = squares["C(s)"] / (num_seeds * num), (squares["C(p)"] - squares["Residual"]) / (num_seeds * num)
    assert patients > 0
    half = np.sqrt(stats.t.ppf(0.975, num_seeds - 1) ** 2 * trainings + stats.t.ppf(0.975, num - 1) ** 2 * patients)
    own = sample({s: {0: table[s]} for s in range(num_seeds)}, same_patients=True)
    assert ends(own.clusters) == pytest.approx((table.mean() - half, table.mean() + half))
    assert own.num_patients == num and own.num_seeds == num_seeds


def test_trainings_that_agree_do_not_hide_what_patients_vary() -> None:
    """The same scores of the same patients in every training, as of one teacher that was imported: what is left is the patients."""
    values = rng(6).normal(0.6, 0.05, 8)
    own = sample({seed: {0: values} for seed in range(3)}, same_patients=True).clusters
    expected = stats.ttest_1samp(values, 0.6)
    assert ends(own) == pytest.approx((expected.confidence_interval().low, expected.confidence_interval().high))
    assert own.p_value(0.6) == pytest.approx(expected.pvalue, rel=1e-6)


def test_the_p_value_is_the_level_whose_interval_ends_there() -> None:
    draws = rng(7)
    patients = draws.normal(0, 0.05, (2, 6))
    seeds = {s: {k: 0.03 * draws.normal() + patients[k] + 0.02 * draws.normal(size=6) for k in range(2)} for s in range(3)}
    own = sample(seeds, same_patients=True).clusters
    low, high = ends(own)
    assert own.p_value(low) == pytest.approx(0.05, rel=1e-6) == own.p_value(high)
    assert own.p_value(high + 0.01) < 0.05 < own.p_value(high - 0.01) and own.p_value(float(own.value_V[0])) == pytest.approx(1.0)


def test_a_patient_who_is_tested_in_some_trainings_only_counts_where_they_are() -> None:
    """By hand. Training 0 has p = 1 and q = 3, training 1 has q = 4 and r = 2: the means are 2 and 3, so that they vary by 0.5 / 2.
    Deviations from these, times 1 / (2 x 2) sqrt(2 / 1): p -a, q a + a, r -a, with a = sqrt(2) / 4, so a^2 = 1/8. Shared: 2 / 1
    times (6 a^2 - 4 a^2) = 0.5. Degrees of freedom: 3 patients, 2 each: 3 (2 - 1) / 2 = 1.5. Patients alone: 6 a^2 = 0.75."""
    rows = [("m", 0, 0, "p", "p", 1.0), ("m", 0, 0, "q", "q", 3.0), ("m", 1, 0, "q", "q", 4.0), ("m", 1, 0, "r", "r", 2.0)]
    frame = pd.DataFrame(rows, columns=["method", "seed", "client_id", "patient_id", "case_id", "score"])
    (own,) = Sample(patient_scores(frame)).macro()
    both = np.sqrt(stats.t.ppf(0.975, 1) ** 2 * 0.25 + stats.t.ppf(0.975, 1.5) ** 2 * 0.5)
    alone = stats.t.ppf(0.975, 1.5) * np.sqrt(0.75)
    assert own.value == 2.5 and own.high - own.value == pytest.approx(max(both, alone))


def test_few_clients_are_strata_and_more_are_drawn() -> None:
    """With sites that differ and patients that hardly do, strata are sure of their mean; drawn sites have Student's over sites."""
    levels = np.linspace(0.5, 0.9, FEW_CLIENTS + 1)
    sites = {c: level + rng(c).normal(0, 0.001, 8) for c, level in enumerate(levels)}
    few, many = (spreads(scores({0: own})).iloc[0] for own in ({c: sites[c] for c in range(FEW_CLIENTS)}, sites))
    assert (few["clients_are"], many["clients_are"]) == ("fixed", "drawn")
    assert few["macro_high"] - few["macro_low"] < 0.002
    expected = stats.ttest_1samp([values.mean() for values in sites.values()], 0).confidence_interval()
    assert (many["macro_low"], many["macro_high"]) == pytest.approx((expected.low, expected.high))


def test_a_single_patient_leaves_no_interval_unless_trainings_have_others() -> None:
    """One patient tells nothing of others; new ones in every training do, and so do more sites than are fixed."""
    (alone,) = sample({0: {0: [0.5], 1: [0.4, 0.6]}}).macro()
    assert alone.value == 0.5 and np.isnan([alone.low, alone.high]).all()
    repeated = sample({0: {0: [0.5]}, 1: {0: [0.6]}}, same_patients=True)
    assert np.isnan(ends(repeated.clusters)).all() and np.isnan(repeated.clusters.p_value())
    assert np.isnan(repeated.macro_draws_BV(rng(), 10)).all()
    fresh = stats.ttest_1samp([0.5, 0.6, 0.4], 0).confidence_interval()
    assert ends(sample({0: {0: [0.5]}, 1: {0: [0.6]}, 2: {0: [0.4]}}).clusters) == pytest.approx((fresh.low, fresh.high))
    (drawn,) = sample({0: {c: [c / 10] for c in range(FEW_CLIENTS + 1)}}).macro()
    assert drawn.low < drawn.value < drawn.high


def test_values_that_are_all_the_same_have_no_interval_and_no_p_value() -> None:
    """A spread of zero in what was seen is no knowledge of what was not."""
    own = sample({seed: {0: [0.7] * 5} for seed in range(2)}).clusters
    assert own.value_V[0] == pytest.approx(0.7) and np.isnan(ends(own)).all() and np.isnan(own.p_value())


def test_an_interval_ends_where_scores_do() -> None:
    own = Sample(sample({0: {0: [0.99, 1.0, 0.9]}}).wide, (0.0, 1.0)).macro()[0]
    assert own.high == 1.0 and own.low < 0.9


@pytest.mark.parametrize("num_seeds", [1, 2, 4])
@pytest.mark.parametrize("same_patients", [True, False])
def test_draws_spread_as_intervals_do(num_seeds: int, same_patients: bool) -> None:
    """For one condition, so that both say of it the same; and two that are one stay one."""
    draws = rng(8)
    patients = draws.normal(0.6, 0.05, (2, 8))
    noise = draws.normal(0, 0.02, (num_seeds, 2, 8)) + draws.normal(0, 0.02, (num_seeds, 1, 1))
    own = sample({s: {k: patients[k] + noise[s, k] for k in range(2)} for s in range(num_seeds)}, same_patients=same_patients)
    (interval,), half = own.macro(), (own.macro()[0].high - own.macro()[0].low) / 2
    low, high = percentiles(own.macro_draws_BV(rng(), 200_000)[:, 0])
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=0.12 * half)
    twice = Sample(pd.concat([own.wide, own.wide], axis=1, keys=["a", "b"])).macro_draws_BV(rng(), 100)
    assert twice[:, 0] == pytest.approx(twice[:, 1], abs=1e-9)


def test_a_percentile_interval_holds_infinity_without_losing_itself() -> None:
    low, high = percentiles(np.array([*np.linspace(0, 1, 90), *[np.inf] * 10]))
    assert low < 0.05 and high == np.inf
    assert np.isnan(percentiles(np.array([0.0, np.nan]))).all()


def test_spreads_are_kept_apart() -> None:
    """Patients 0.6 and 0.8 at one site, 0.2 and 0.4 at the other; a second seed is 0.1 above."""
    sites = {0: [0.6, 0.8], 1: [0.2, 0.4]}
    both = scores({0: sites, 1: {site: [v + 0.1 for v in values] for site, values in sites.items()}}, same_patients=True)
    row = spreads(both).iloc[0]
    assert row["macro"] == pytest.approx(0.55)
    assert row["sd_seeds"] == pytest.approx(np.std([0.5, 0.6], ddof=1))
    assert row["sd_patients"] == pytest.approx(np.std([0.0, 0.2], ddof=1))
    assert row["sd_clients"] == pytest.approx(np.std([0.75, 0.35], ddof=1))
    assert (row["worst_client"], row["num_seeds"], row["num_patients"]) == (1, 2, 4)
    one = spreads(scores({0: sites})).iloc[0]
    welch = stats.ttest_ind(sites[0], sites[1], equal_var=False).confidence_interval()
    assert (one["gap"], one["gap_low"], one["gap_high"]) == pytest.approx((0.4, welch.low, welch.high))
    assert np.isnan(one["sd_seeds"])
