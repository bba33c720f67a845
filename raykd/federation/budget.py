"""What ends a run before its last round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from raykd.federation.protocols import Row
from raykd.scenario.timing import Stop


def spend(totals: dict[str, float], transfers: Iterable[Row], simulated_s: float) -> None:
    """Adds to `num_bytes` over all links, and to `simulated_s`."""
    totals["num_bytes"] += sum(row["num_bytes"] for row in transfers)
    totals["simulated_s"] += simulated_s


def spent(stop: Stop, totals: Mapping[str, float]) -> str:
    """The first budget that is used up, in a sentence; "": none is.

    Args:
        stop: the budgets.
        totals: `num_bytes` over all links and `simulated_s` so far.
    """
    gigabytes, hours = totals["num_bytes"] / 1e9, totals["simulated_s"] / 3600
    if stop.gigabytes is not None and gigabytes >= stop.gigabytes:
        return f"federation.stop.gigabytes: {gigabytes:.6g} of {stop.gigabytes:g} have crossed"
    if stop.simulated_hours is not None and hours >= stop.simulated_hours:
        return f"federation.stop.simulated_hours: {hours:.6g} of {stop.simulated_hours:g} have passed"
    return ""


def reached(stop: Stop, cases: Iterable[Row], deployed: str) -> str:
    """The target that an evaluation reaches, in a sentence; "": it does not, or there is none.

    Args:
        stop: the budgets.
        cases: rows of `cases` of one evaluation.
        deployed: the model that a site would use in the end.
    """
    if stop.dsc is None:
        return ""
    dsc = validation_dsc(cases, deployed)
    return f"federation.stop.dsc: {dsc:.4f} of {stop.dsc:g} on validation cases" if dsc >= stop.dsc else ""


def validation_dsc(cases: Iterable[Row], deployed: str) -> float:
    """Mean over clients of the mean DSC of their validation cases and of the classes that these hold; 0 where there is none.

    The model is the one that is deployed in the end where it was evaluated, else the global one.
    """
    scores: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in cases:
        if row["split"] == "validation" and row["client_id"] >= 0 and row["dsc"] is not None:
            scores[row["model"]][row["client_id"]].append(float(row["dsc"]))
    own = scores.get(deployed) or scores.get("global") or scores.get("personal") or {}
    return sum(sum(values) / len(values) for values in own.values()) / len(own) if own else 0.0
