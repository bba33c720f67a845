"""Money: with sure prices it is arithmetic that is done here by hand, with ranges it lies between the ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_questions import write

from raykd.results.questions import Comparison, assumptions, running_costs, worth
from raykd.results.reader import load_runs
from raykd.results.statistics import drawn, sure
from raykd.scenario.errors import ScenarioError
from raykd.scenario.prices import PriceList, load_prices

ROOT = Path(__file__).parents[2]
SURE = """
currency: EUR
annotation: {minutes_per_case: 30, hourly_wage: 100}
transfer: {per_gb: 1e6}
compute: {per_hour: 2, power_kw: 0.5}
energy: {per_kwh: 1}
site: {joining: 10}
"""


@pytest.fixture
def prices(tmp_path: Path) -> PriceList:
    (tmp_path / "prices.yaml").write_text(SURE)
    return load_prices(tmp_path / "prices.yaml")


@pytest.fixture(scope="module")
def budgets(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """dual_kd is a budget ahead of local, with twice the labels a budget; a run moves 4000 bytes, dual_kd's 10000."""
    folder = tmp_path_factory.mktemp("budgets")
    for step, shots in enumerate((1, 2, 4)):
        write(folder, "local", shots, 0.5 + 0.1 * step)
        write(folder, "dual_kd", shots, 0.6 + 0.1 * step)
    return Comparison.of(load_runs([folder]))


def test_sure_prices_are_arithmetic(budgets: Comparison, prices: PriceList) -> None:
    """4 labels saved at half an hour and 100 EUR an hour are 200 EUR; 6 kB more at 1 EUR/kB are 6 EUR."""
    row = worth(budgets, prices, "dual_kd", "local").set_index("reference_labels").loc[8.0]
    assert row["labels_saved"] == pytest.approx(4) and row["annotation_hours"] == pytest.approx(2)
    assert row["annotation"] == pytest.approx(200) and row["transfer"] == pytest.approx(6)
    assert row["joining"] == 0, "both methods need the sites"
    assert row["net"] == pytest.approx(194) and row["bound"] == ""
    assert row["break_even_labels"] == pytest.approx(6 / 50) and row["break_even_sites"] == 1
    assert row["annotation_low"] == pytest.approx(50 * row["labels_saved_low"]) and 0 <= row["share_pays"] <= 1


def test_a_method_that_never_gets_there_saves_nothing(budgets: Comparison, prices: PriceList) -> None:
    back = worth(budgets, prices, "local", "dual_kd").set_index("reference_labels").loc[8.0]
    assert back["bound"] == "never" and back["net"] == -np.inf and back["break_even_sites"] == np.inf


def test_without_budgets_it_is_known_what_must_be_saved(tmp_path: Path, prices: PriceList) -> None:
    write(tmp_path, "local", 2, 0.5), write(tmp_path, "dual_kd", 2, 0.6)
    (row,) = worth(Comparison.of(load_runs([tmp_path])), prices, "dual_kd", "local").to_dict("records")
    assert row["bound"] == "unknown" and np.isnan(row["net"]) and row["break_even_labels"] == pytest.approx(6 / 50)


def test_the_bill_of_a_run(tmp_path: Path, prices: PriceList) -> None:
    """An hour of training over two sites, and half an hour on the repository: 1.5 h at 2 EUR and half a kWh of 1 EUR each."""
    from raykd.results.writer import RunWriter

    write(tmp_path, "dual_kd", 2, 0.6)
    (run,) = load_runs([tmp_path]).runs
    writer = RunWriter(run.path, {"run_id": run.run_id, "scenario": "s", "method": "dual_kd", "seed": 0})
    writer.write(
        "teachers", [{"role": "teacher", "step": 9, "train_s": 900.0}, {"role": "teacher", "step": 10, "train_s": 1800.0}], "t"
    )
    (row,) = running_costs(Comparison.of(load_runs([tmp_path])), prices).to_dict("records")
    told = {name: row[name] for name in ("hours", "energy_kwh", "transfer", "compute", "energy", "repository", "joining", "total")}
    assert told == pytest.approx(
        {
            "hours": 1,
            "energy_kwh": 0.5,
            "transfer": 10,
            "compute": 2,
            "energy": 0.5,
            "repository": 1.25,
            "joining": 20,
            "total": 33.75,
        }
    )


def test_draws_follow_their_distribution_and_nothing_else() -> None:
    uniform, triangle = drawn("a", (2.0, 4.0)), drawn("b", (0.0, 3.0, 9.0))
    assert uniform.value == 3 and uniform.draws_B.mean() == pytest.approx(3, abs=0.03)
    assert triangle.value == 3 and triangle.draws_B.mean() == pytest.approx(4, abs=0.1)
    assert np.array_equal(drawn("a", (2.0, 4.0)).draws_B, uniform.draws_B)
    product = (uniform * 2 - uniform) / uniform
    assert product.estimate.low == pytest.approx(1) == product.estimate.high, "a quantity is the same one wherever it stands"
    assert (sure(1.0) - uniform).at_least(0.0).value == 0 and (sure(3.0) - uniform).share_positive == pytest.approx(0.5, abs=0.02)


def test_every_assumption_is_told(prices: PriceList) -> None:
    table = assumptions(prices).set_index("assumption")
    assert table.loc["annotation.hourly_wage", ["low", "likely", "high", "unit"]].tolist() == [100, 100, 100, "EUR/h"]
    assert table.loc["repository.price", "high"] == 0 and (table["meaning"].str.len() > 0).all()
    shipped = assumptions(load_prices(ROOT / "analysis/prices.yaml")).set_index("assumption")
    assert set(shipped["distribution"]) == {"sure", "uniform", "triangular"} and shipped.loc["transfer.per_gb", "likely"] == 0.02


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("per_gb: 1e6", "per_gb: [2, 1]", "prices.yaml:4:12: transfer.per_gb: must be at least 0, and a range must not go down"),
        ("per_gb: 1e6", "per_gb: cheap", 'must be a number, a range [low, high], or [low, likeliest, high], got "cheap"'),
        ("hourly_wage: 100", "hourly_wage: 0", "prices.yaml:3:36: annotation.hourly_wage: must be more than 0, got 0"),
        ("per_kwh", "per_kw", "energy.per_kw: unknown key; did you mean 'per_kwh'?"),
        ("currency: EUR", "", "currency: is required"),
    ],
)
def test_wrong_prices_are_refused_where_they_stand(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "prices.yaml").write_text(SURE.replace(old, new))
    with pytest.raises(ScenarioError) as refused:
        load_prices(tmp_path / "prices.yaml")
    assert said in str(refused.value)
