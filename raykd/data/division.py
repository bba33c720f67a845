"""Which patients of a pool go to which client: every patient to one, and to every client what it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from raykd.data.sources._base import CaseKey
from raykd.numerics.rng import numpy_generator
from raykd.scenario.errors import DataError, did_you_mean
from raykd.scenario.sites import PoolSplit

Trait = str | float


@dataclass(frozen=True)
class Drawer:
    """A client that draws on a pool: its name, the value of the pool's column that is its own, and the patients it needs."""

    name: str
    value: Trait
    num_needed: int


def divide(
    keys: Sequence[CaseKey],
    traits: Mapping[CaseKey, Mapping[str, Trait]],
    split: PoolSplit,
    drawers: Sequence[Drawer],
    seed: int,
    pool: str,
) -> dict[str, list[CaseKey]]:
    """The cases of every client, in the order of `keys`: each patient's at one client, whatever the order of clients.

    The patients of each stratum (a value of the split's column, or all) are put in random order and dealt to its clients in
    shares that are equal or drawn from a Dirichlet distribution, rounded by largest remainder. Where a client then has fewer
    patients than it needs, random patients move to it from whoever has most to spare. For the Dirichlet split over a covariate see
    Hsu et al. 2019, https://arxiv.org/abs/1909.06335.

    Args:
        keys: all cases of the pool.
        traits: the covariates of each.
        split: how to share.
        drawers: who shares, by different names.
        seed: of the scenario.
        pool: its name, part of every random address.

    Raises:
        DataError: the column is unknown, a value has no patients, a patient has two values.
    """
    drawers = sorted(drawers, key=lambda drawer: drawer.name)
    holdings: dict[str, list[str]] = {drawer.name: [] for drawer in drawers}
    for stratum, patients, sharing in _strata(keys, traits, split, drawers, pool):
        order = numpy_generator(seed, "pool-order", pool, stratum).permutation(len(patients))
        shuffled = [sorted(patients)[index] for index in order]
        counts = _whole_shares(_shares(split, [drawer.name for drawer in sharing], seed, pool, stratum), len(patients))
        queue = iter(shuffled)
        for drawer, count in zip(sharing, counts, strict=True):
            holdings[drawer.name] += islice(queue, count)
    for group in _rivals(split, drawers):
        _meet_needs({drawer.name: holdings[drawer.name] for drawer in group}, group, seed, pool)
    holder = {patient: name for name, patients in holdings.items() for patient in patients}
    shares: dict[str, list[CaseKey]] = {drawer.name: [] for drawer in drawers}
    for key in keys:
        if key.patient_id in holder:
            shares[holder[key.patient_id]].append(key)
    return shares


def _strata(
    keys: Sequence[CaseKey],
    traits: Mapping[CaseKey, Mapping[str, Trait]],
    split: PoolSplit,
    drawers: Sequence[Drawer],
    pool: str,
) -> Iterator[tuple[str, list[str], Sequence[Drawer]]]:
    """Each stratum by name, with its patients and the clients that share it."""
    if split.column is None:
        yield "", list(dict.fromkeys(key.patient_id for key in keys)), drawers
        return
    values = _patient_values(keys, traits, split.column, pool, must_agree=split.by == "column")
    if split.by == "dirichlet":
        bins = _quartile_bins(values)
        for stratum in sorted(set(bins.values())):
            yield stratum, [patient for patient in bins if bins[patient] == stratum], drawers
        return
    known = {word(value) for value in values.values()}
    missing = {drawer.name: word(drawer.value) for drawer in drawers if word(drawer.value) not in known}
    if missing:
        raise DataError(
            "\n".join(
                f"{name}: value must be that of a patient of pool {pool!r} in column {split.column!r}, got {value!r}; "
                f"{did_you_mean(value, known)}"
                for name, value in missing.items()
            )
        )
    for rivals in _rivals(split, drawers):
        value = word(rivals[0].value)
        yield value, [patient for patient, own in values.items() if word(own) == value], rivals


def _rivals(split: PoolSplit, drawers: Sequence[Drawer]) -> list[list[Drawer]]:
    """The clients between which a patient may move: all, or those of one value of the column."""
    if split.by != "column":
        return [list(drawers)]
    values = sorted({word(drawer.value) for drawer in drawers})
    return [[drawer for drawer in drawers if word(drawer.value) == value] for value in values]


def word(value: Trait) -> str:
    """How a covariate is compared and shown: the number 3.0 and the text "3" of a table are both `3`."""
    return str(value).strip() if isinstance(value, str) else repr(float(value)).removesuffix(".0")


def _patient_values(
    keys: Sequence[CaseKey], traits: Mapping[CaseKey, Mapping[str, Trait]], column: str, pool: str, *, must_agree: bool
) -> dict[str, Trait]:
    """Each patient's value of a column: that of its first case."""
    columns = {name for known in traits.values() for name in known}
    if column not in columns:
        hint = did_you_mean(column, columns) or "its source tells nothing of its cases"
        raise DataError(f"pools.{pool}.split.column: must be a covariate of the pool's cases, got {column!r}; {hint}")
    values: dict[str, Trait] = {}
    for key in keys:
        value = traits[key].get(column, "")
        if word(values.setdefault(key.patient_id, value)) != word(value) and must_agree:
            raise DataError(
                f"pools.{pool}.split.column: all cases of a patient must have one value of {column!r}, got "
                f"{word(values[key.patient_id])!r} and {word(value)!r} of patient {key.patient_id!r} (case {key.case_id!r}); "
                "split by a column that does not change"
            )
    return values


def _quartile_bins(values: Mapping[str, Trait]) -> dict[str, str]:
    """A stratum for each patient: its value, or the quartile it falls in where every value that is there is a number."""
    words = {patient: word(value) for patient, value in values.items()}
    try:
        numbers = {patient: float(text) for patient, text in words.items() if text}
    except ValueError:
        return words
    if len(set(numbers.values())) <= 4 or not np.isfinite(list(numbers.values())).all():
        return words
    cuts = np.unique(np.quantile(list(numbers.values()), (0.25, 0.5, 0.75)))
    return {
        patient: f"quartile {np.searchsorted(cuts, numbers[patient], side='left') + 1}" if patient in numbers else ""
        for patient in words
    }


def _shares(split: PoolSplit, names: Sequence[str], seed: int, pool: str, stratum: str) -> NDArray[np.float64]:
    """Shares that add up to 1. A Dirichlet draw is one of normalised Gamma variates, here each at its client's own address; in
    logarithms, Gamma(alpha) = Gamma(alpha + 1) * U^(1 / alpha), because a small alpha gives numbers that no float holds.
    """
    if split.by not in ("dirichlet", "quantity"):
        return np.full(len(names), 1.0 / len(names))
    logs = []
    for name in names:
        rng = numpy_generator(seed, "pool-share", pool, stratum, name)
        logs.append(np.log(rng.gamma(split.alpha + 1.0)) + np.log1p(-rng.random()) / split.alpha)
    weights = np.exp(np.array(logs) - max(logs))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _whole_shares(shares: NDArray[np.float64], total: int) -> list[int]:
    """Whole numbers that add up to `total`, in proportion to the shares: rounded down, and the largest remainders up."""
    exact = shares * total
    counts = np.floor(exact).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]:
        counts[index] += 1
    return [int(count) for count in counts]


def _meet_needs(holdings: dict[str, list[str]], drawers: Sequence[Drawer], seed: int, pool: str) -> None:
    """Moves random patients, one at a time, from who has most to spare to who lacks most, until nobody lacks or nobody can spare;
    what is then still lacking is for the split of that client to refuse.
    """
    needed = {drawer.name: drawer.num_needed for drawer in drawers}
    spare = Counter({name: len(patients) - needed[name] for name, patients in holdings.items()})
    rng = numpy_generator(seed, "pool-needs", pool, *sorted(needed))
    while True:
        giver, taker = max(sorted(spare), key=spare.__getitem__), min(sorted(spare), key=spare.__getitem__)
        if spare[taker] >= 0 or spare[giver] <= 0:
            break
        patients = holdings[giver]
        holdings[taker].append(patients.pop(int(rng.integers(len(patients)))))
        spare[giver] -= 1
        spare[taker] += 1
