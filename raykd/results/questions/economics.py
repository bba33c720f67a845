"""Is it worth its money? Labels saved become hours and money, bytes and seconds become costs, and both carry their uncertainty:
draws of scores and of prices go through the same sums together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from raykd.results.questions.comparison import Comparison
from raykd.results.questions.labels import labels_needed
from raykd.results.statistics import ALPHA, NO_VERDICT, NUM_RESAMPLES, OPEN, Metric, Uncertain, columns_of, drawn, holm, sure

MINUTES, SECONDS, BYTES = 60.0, 3600.0, 1e9
"""In an hour, in an hour, in a gigabyte."""
UNKNOWN = sure(float("nan"))


class Prices(Protocol):
    """What things cost, as `raykd.scenario.prices.load_prices` gives it."""

    @property
    def currency(self) -> str:
        """As printed."""

    def assumptions(self) -> Iterable[tuple[str, tuple[float, ...], str, str]]:
        """Key, values (sure; low and high; low, likeliest and high), unit, meaning."""


def assumptions(prices: Prices) -> pd.DataFrame:
    """Everything that money figures take for granted: `assumption` (its key), `low`, `likely`, `high`, `unit`, `distribution` and
    `meaning`."""
    rows = []
    for key, values, unit, meaning in prices.assumptions():
        shape = "sure" if values[0] == values[-1] else ("uniform" if len(values) == 2 else "triangular")
        row = {"assumption": key, "low": values[0], "likely": drawn(key, values, 1).value, "high": values[-1], "unit": unit}
        rows.append({**row, "distribution": shape, "meaning": meaning})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Usage:
    """What the runs of a cell used, as means over its runs; NaN: not recorded.

    Attributes:
        gigabytes: over all links, both ways.
        hours: of training at the sites and of the server's own work, on the machine that simulated them.
        teacher_hours: of training on the repository.
        has_repository, is_federated: whether it needs a repository, and sites that are joined.
        num_sites: of the federation.
    """

    gigabytes: float
    hours: float
    teacher_hours: float
    has_repository: bool
    is_federated: bool
    num_sites: int


def usage_of(comparison: Comparison, cell: int) -> Usage:
    """What one cell used."""
    own = set(comparison.settings.index[comparison.settings["cell"] == cell].astype(str))
    tables = {name: comparison.table(name) for name in ("transfers", "training", "rounds", "teachers", "clients")}
    tables = {name: table[table["run_id"].astype(str).isin(own)] for name, table in tables.items()}
    transfers, teachers = tables["transfers"], tables["teachers"]
    num_bytes = float(transfers.loc[transfers["client_id"] >= 0, "num_bytes"].sum())
    train_s = float(tables["training"]["train_s"].sum(min_count=1))
    server_s = float(tables["rounds"]["server_s"].sum())
    by_role = teachers.groupby(["run_id", "role"], observed=True, dropna=False)["train_s"].max()
    has_teacher = len(teachers) > 0
    return Usage(
        gigabytes=num_bytes / BYTES / len(own),
        hours=(train_s + server_s) / SECONDS / len(own),
        teacher_hours=float(by_role.sum(min_count=1)) / SECONDS / len(own) if has_teacher else 0.0,
        has_repository=has_teacher,
        is_federated=num_bytes > 0,
        num_sites=max(1, tables["clients"]["client_id"].nunique()),
    )


@dataclass(frozen=True)
class Bill:
    """What a cell costs, in money but for the first two.

    Attributes:
        hours: of machines. `energy_kwh`: what they draw.
        transfer, compute, energy: of one federation's training.
        repository: this federation's share of it, its teacher's training included.
        joining: of all sites.
    """

    hours: Uncertain
    energy_kwh: Uncertain
    transfer: Uncertain
    compute: Uncertain
    energy: Uncertain
    repository: Uncertain
    joining: Uncertain

    @property
    def running(self) -> Uncertain:
        """What grows with the sites: bytes, machines, energy."""
        return self.transfer + self.compute + self.energy

    @property
    def total(self) -> Uncertain:
        return self.running + self.repository + self.joining


def bill_of(usage: Usage, prices: Prices) -> Bill:
    """What a usage costs."""
    of = {key: drawn(key, values) for key, values, _, _ in prices.assumptions()}
    hours = of["compute.hours_factor"] * usage.hours
    energy_kwh = of["compute.power_kw"] * hours
    machine_hour = of["compute.per_hour"] + of["compute.power_kw"] * of["energy.per_kwh"]
    teacher = of["compute.hours_factor"] * usage.teacher_hours * machine_hour
    return Bill(
        hours=hours,
        energy_kwh=energy_kwh,
        transfer=of["transfer.per_gb"] * usage.gigabytes,
        compute=of["compute.per_hour"] * hours,
        energy=of["energy.per_kwh"] * energy_kwh,
        repository=(of["repository.price"] * float(usage.has_repository) + teacher) / of["repository.num_federations"],
        joining=of["site.joining"] * float(usage.num_sites * usage.is_federated),
    )


def running_costs(comparison: Comparison, prices: Prices) -> pd.DataFrame:
    """What each cell costs, without its labels.

    Returns:
        One row a cell: `num_sites`, `gigabytes`, `hours` of machines, `energy_kwh`, and in money `transfer`, `compute`, `energy`,
        `repository` (its share), `joining` and their sum `total`, each with its interval over the prices.
    """
    rows = []
    for number, cell in comparison.cells.iterrows():
        usage = usage_of(comparison, int(number))  # type: ignore[call-overload]
        bill = bill_of(usage, prices)
        row = {"method": cell["method"], "condition": cell["condition"], "num_sites": usage.num_sites, "gigabytes": usage.gigabytes}
        for name in ("hours", "energy_kwh", "transfer", "compute", "energy", "repository", "joining", "total"):
            row |= columns_of(name, getattr(bill, name).estimate)
        rows.append(row)
    return pd.DataFrame(rows)


def worth(comparison: Comparison, prices: Prices, method: str, reference: str, metric: Metric = "dsc") -> pd.DataFrame:
    """What a method saves in annotation to do as well as another, less what it costs more than that one.

    Args:
        comparison: the runs. Where they differ in labels, labels saved are known; elsewhere only what must be saved.
        prices: what things cost.
        method, reference: the two.
        metric: of "as well".

    Returns:
        One row a level and budget of the reference (or, without several budgets, a condition), each figure with its interval over
        trainings, patients and prices: `labels_saved` and `annotation_hours` over all sites, in money `annotation`, `transfer`,
        `compute`, `energy`, `repository`, `joining` (method less reference) and `net`: annotation less all others; `share_pays`:
        the share of draws in which net is above zero; `p_holm`: twice the share on the other side of zero, adjusted over all rows,
        one family; `verdict`: pays, does not pay or open, no verdict with one training (`num_seeds`); `break_even_sites`: alike
        sites from which on the repository's share is earned (infinite: never); `break_even_labels`: to be saved over all sites for
        a net of zero; `bound` as `labels_saved` has it.

    Raises:
        RaykdError: no run is of one of the two methods.
    """
    comparison.known(method), comparison.known(reference)
    rows = []
    for level, budget, labels, bound, cell, other, num_seeds in _pairs(comparison, method, reference, metric):
        usages = [usage_of(comparison, number) for number in (cell, other)]
        mine, theirs = (bill_of(usage, prices) for usage in usages)
        figures = _figures(labels, mine, theirs, usages[0].num_sites, prices)
        row = {"method": method, "reference": reference, "level": level, "reference_labels": budget}
        row |= {"num_sites": usages[0].num_sites, "bound": bound, "num_seeds": num_seeds}
        for name, figure in figures.items():
            row |= columns_of(name, figure.estimate)
        rows.append({**row, "share_pays": figures["net"].share_positive})
    return _judged(pd.DataFrame(rows)) if rows else pd.DataFrame()


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """With the verdict of each row: of draws, so that no p-value is below twice one draw's share."""
    share = table["share_pays"].to_numpy(float)
    tail = np.maximum(np.minimum(share, 1 - share), 1 / NUM_RESAMPLES)
    p_holm = holm(np.where(table["num_seeds"] > 1, np.minimum(2 * tail, 1.0), np.nan))
    said = np.where(p_holm < ALPHA, np.where(share > 0.5, "pays", "does not pay"), OPEN)
    return table.assign(p_holm=p_holm, verdict=np.where(table["num_seeds"] == 1, NO_VERDICT, said))


def _pairs(
    comparison: Comparison, method: str, reference: str, metric: Metric
) -> Iterator[tuple[str, float, Uncertain, str, int, int, int]]:
    """Level, budget, labels saved, bound, the two cells and their seeds, where labels vary; elsewhere conditions, labels saved
    unknown."""
    known: set[int] = set()
    for one in labels_needed(comparison, method, reference, metric):
        known |= {one.cell, one.reference_cell}
        saved = Uncertain(one.budget - one.value, one.budget - one.draws_B)
        yield one.level, one.budget, saved, one.bound, one.cell, one.reference_cell, one.num_seeds
    for condition, cells in comparison.conditions():
        if method in cells and reference in cells and not {cells[method], cells[reference]} & known:
            labels = float(comparison.cells.at[cells[reference], "num_labels"])  # type: ignore[arg-type]
            num_seeds = comparison.sample([cells[method], cells[reference]], metric).num_seeds
            yield condition, labels, UNKNOWN, "unknown", cells[method], cells[reference], num_seeds


def _figures(labels: Uncertain, mine: Bill, theirs: Bill, num_sites: int, prices: Prices) -> dict[str, Uncertain]:
    of = {key: drawn(key, values) for key, values, _, _ in prices.assumptions()}
    hours = labels * of["annotation.minutes_per_case"] / MINUTES
    extra = {
        name: getattr(mine, name) - getattr(theirs, name) for name in ("transfer", "compute", "energy", "repository", "joining")
    }
    annotation = hours * of["annotation.hourly_wage"]
    running = mine.running - theirs.running
    cost = running + extra["repository"] + extra["joining"]
    per_site = (annotation - running - extra["joining"]) / num_sites
    per_label = of["annotation.minutes_per_case"] / MINUTES * of["annotation.hourly_wage"]
    return {
        "labels_saved": labels,
        "annotation_hours": hours,
        "annotation": annotation,
        **extra,
        "net": annotation - cost,
        "break_even_sites": _earned_by(extra["repository"], per_site),
        "break_even_labels": (cost / per_label).at_least(0.0),
    }


def _earned_by(fixed: Uncertain, per_site: Uncertain) -> Uncertain:
    """Sites that earn a fixed cost, at least one; infinite where a site earns nothing."""

    def sites(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            earned = np.maximum(np.ceil(cost / gain), 1.0)
        return np.where(np.isnan(gain), np.nan, np.where(gain > 0, earned, np.inf))

    value = sites(np.array([fixed.value]), np.array([per_site.value]))
    return Uncertain(float(value[0]), sites(fixed.draws_B, per_site.draws_B))
