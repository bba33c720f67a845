import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raykd.results.statistics import case_scores, deployed_cases, paired_difference, score_methods


def cases(rows: list[tuple], **constant: object) -> pd.DataFrame:
    columns = ["client_id", "case_id", "class_index", "dsc"]
    common = {"run_id": "r", "method": "m", "seed": 0, "round": 4, "split": "test", "model": "global"}
    return pd.DataFrame(rows, columns=columns).assign(**{**common, **constant})


TWO_CLIENTS = [
    (0, "a", 1, 0.8), (0, "a", 2, 0.6),
    (0, "b", 1, 0.9), (0, "b", 2, 0.9),
    (1, "a", 1, 0.5), (1, "a", 2, 0.1),
    (1, "b", 1, 0.4), (1, "b", 2, 0.4),
    (1, "c", 1, 0.6), (1, "c", 2, np.nan),
]  # fmt: skip


def test_means_by_hand() -> None:
    scores = case_scores(cases(TWO_CLIENTS))
    assert scores["score"].tolist() == pytest.approx([0.7, 0.9, 0.3, 0.4, 0.6])
    (result,) = score_methods(scores)
    assert result.per_client[0].value == pytest.approx(0.8)
    assert result.per_client[1].value == pytest.approx(1.3 / 3)
    assert result.macro.value == pytest.approx((0.8 + 1.3 / 3) / 2)
    assert (result.worst_client, result.num_patients) == (1, 5)
    assert result.worst == result.per_client[1]


def test_the_worst_client_of_a_distance_is_the_largest() -> None:
    scores = case_scores(cases(TWO_CLIENTS).rename(columns={"dsc": "hd95_mm"}), "hd95_mm")
    (result,) = score_methods(scores, metric="hd95_mm")
    assert result.worst_client == 0


def test_methods_are_sorted_best_first() -> None:
    low = cases(TWO_CLIENTS, method="low", run_id="low")
    high = low.assign(method="high", run_id="high", dsc=low["dsc"] + 0.1)
    scores = case_scores(deployed_cases(pd.concat([low, high])))
    assert [s.method for s in score_methods(scores)] == ["high", "low"]
    assert [s.method for s in score_methods(scores, metric="hd95_mm")] == ["low", "high"]


def test_seeds_weigh_the_same_and_patients_count_once() -> None:
    first = cases(TWO_CLIENTS, seed=0, run_id="0")
    second = cases(TWO_CLIENTS, seed=1, run_id="1").assign(dsc=lambda t: t["dsc"] + 0.02)
    (once,) = score_methods(case_scores(first.assign(dsc=first["dsc"] + 0.01)))
    (both,) = score_methods(case_scores(pd.concat([first, second])))
    assert (both.num_patients, both.num_seeds, once.num_seeds) == (5, 2, 1)
    assert both.macro.value == pytest.approx(once.macro.value)
    assert both.per_client[1].value == pytest.approx(once.per_client[1].value)


def test_a_single_case_has_no_interval() -> None:
    (result,) = score_methods(case_scores(cases([*TWO_CLIENTS, (2, "only", 1, 0.9)])))
    assert np.isnan([result.per_client[2].low, result.macro.low, result.macro.high]).all()
    assert result.per_client[2].value == 0.9 and np.isfinite(result.worst.low)


def test_only_the_deployed_model_in_the_last_round_on_test_cases_counts() -> None:
    good = cases(TWO_CLIENTS)
    noise = [
        cases(TWO_CLIENTS, round=3),
        cases(TWO_CLIENTS, split="validation"),
        cases(TWO_CLIENTS, model="personal"),
        cases(TWO_CLIENTS, model="teacher"),
        cases([(-1, "held-out", 1, 0.99)], round=9),
    ]
    mixed = pd.concat([good, *noise])
    assert deployed_cases(mixed).reset_index(drop=True).equals(good)
    without_global = mixed[~((mixed["model"] == "global") & (mixed["round"] == 4))]
    assert set(deployed_cases(without_global)["model"]) == {"personal"}
    assert set(deployed_cases(mixed, {"r": "teacher"})["model"]) == {"teacher"}
    assert set(deployed_cases(mixed[mixed["model"] == "teacher"])["model"]) == {"teacher"}
    assert deployed_cases(good[:0]).empty


def test_a_client_without_a_model_of_its_own_yet_deploys_the_global_one() -> None:
    personal = cases([row for row in TWO_CLIENTS if row[0] == 0], model="personal")
    shared = cases([row for row in TWO_CLIENTS if row[0] == 1], model="global")
    deployed = deployed_cases(pd.concat([personal, shared]))
    assert deployed.groupby("client_id")["model"].first().to_dict() == {0: "personal", 1: "global"}


def test_each_run_has_its_own_last_round() -> None:
    mixed = pd.concat([cases(TWO_CLIENTS), cases(TWO_CLIENTS, round=9, run_id="s", seed=1, model="personal")])
    assert deployed_cases(mixed).groupby("run_id")["round"].first().to_dict() == {"r": 4, "s": 9}


def test_paired_difference() -> None:
    draws = np.random.default_rng(3)
    a = cases([(c, f"{i}", 1, v) for c in (0, 1) for i, v in enumerate(draws.uniform(0.4, 0.9, 15))])
    step = draws.normal(0.05, 0.1, len(a))
    step[:2] = 0.0
    b = a.assign(dsc=a["dsc"] - step, method="n")
    result = paired_difference(case_scores(a), case_scores(b))
    frame = case_scores(a.assign(dsc=step)).set_index("client_id")["score"]
    assert result.num_patients == 30
    assert result.macro.value == pytest.approx((frame[0].mean() + frame[1].mean()) / 2)
    assert np.isnan(result.p_value), "one training"
    expected = stats.ttest_ind(frame[0], -frame[1], equal_var=False).confidence_interval()
    assert (result.macro.low, result.macro.high) == pytest.approx((expected.low / 2, expected.high / 2))
    assert result.macro.low < result.macro.value < result.macro.high
    swapped = paired_difference(case_scores(b), case_scores(a))
    assert swapped.macro.value == pytest.approx(-result.macro.value)


def test_pairs_share_seed_and_case() -> None:
    a = case_scores(pd.concat([cases(TWO_CLIENTS), cases([(0, "a", 1, 0.0)], seed=1)]))
    b = case_scores(cases([(0, "a", 1, 0.5), (0, "b", 1, 0.5), (0, "z", 1, 0.5)], method="n"))
    result = paired_difference(a, b)
    assert result.num_patients == 2
    assert result.macro.value == pytest.approx(((0.7 - 0.5) + (0.9 - 0.5)) / 2)


def test_equal_methods_differ_by_nothing() -> None:
    scores = case_scores(pd.concat([cases(TWO_CLIENTS), cases(TWO_CLIENTS, seed=1, run_id="s")]))
    result = paired_difference(scores, scores)
    assert (result.macro.value, result.macro.low, result.macro.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)
    one = scores[scores["seed"] == 0]
    assert np.isnan(paired_difference(one, one).p_value)


def test_methods_without_common_cases_have_no_difference() -> None:
    other = case_scores(cases([(0, "z", 1, 0.5)]))
    result = paired_difference(case_scores(cases(TWO_CLIENTS)), other)
    assert result.num_patients == 0 and np.isnan([result.macro.value, result.p_value]).all()
