"""The score of a federation: how well the models that sites deploy do on their own cases.

The same definition as `raykd.results.statistics.scores` has it for tables; this one is for rows that are not written yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean

from raykd.federation.protocols import Row

SHARED = ("global", "personal", "teacher")
"""What counts at a site where the deployed model was not evaluated, the first that was: a site that takes no part has no model of
its own, and some methods give it the teacher alone. The order is that of `raykd.results.statistics.MODELS`."""


def mean_dsc(rows: Iterable[Row], split: str, deployed: str) -> float | None:
    """The mean over sites of the mean over their patients of the mean over a patient's cases; None where no case has a score.

    A case's DSC is the mean over the classes that its reference holds. At each site the deployed model counts where it was
    evaluated, else the first of `SHARED` that was.

    Args:
        rows: of `cases`, from one evaluation.
        split: validation or test.
        deployed: the model that a site uses in the end: global, personal or teacher.
    """
    sites: dict[int, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["split"] == split and row["client_id"] >= 0:
            sites[row["client_id"]][row["model"]].append(row)
    chosen = (next(models[name] for name in (deployed, *SHARED) if name in models) for models in sites.values())
    scored = ([row for row in site if row["dsc"] is not None] for site in chosen)
    means = [_mean_of_patients(site) for site in scored if site]
    return fmean(means) if means else None


def _mean_of_patients(rows: Iterable[Row]) -> float:
    patients: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        patients[row.get("patient_id") or row["case_id"]][row["case_id"]].append(float(row["dsc"]))
    return fmean(fmean(fmean(dscs) for dscs in cases.values()) for cases in patients.values())
