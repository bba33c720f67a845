"""From the `cases` table to one score a patient: which model counts, and what is averaged before anything is compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import pandas as pd

MODELS = ("global", "personal", "teacher")
"""Which model a client deploys: the first one that was evaluated there in the run's last round."""

HIGHER_IS_BETTER = {"dsc": True, "nsd": True, "hd95_mm": False, "assd_mm": False}
RANGES = {"dsc": (0.0, 1.0), "nsd": (0.0, 1.0), "hd95_mm": (0.0, math.inf), "assd_mm": (0.0, math.inf)}
"""The least and the most that a score can be."""
PATIENT = ["client_id", "patient_id"]
KEYS = ["method", "seed", *PATIENT, "case_id"]

Metric = Literal["dsc", "nsd", "hd95_mm", "assd_mm"]


def deployed_cases(cases: pd.DataFrame, models: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The rows that say how a method's model fares in the end: test cases of the clients, last round, one model a client.

    Args:
        cases: the `cases` table of one or several runs.
        models: run_id to model, where another than the first of `MODELS` present is deployed.
    """
    rows = cases[(cases["split"] == "test") & (cases["client_id"] >= 0)]
    last = rows.groupby("run_id", observed=True)["round"].transform("max")
    rows = rows[rows["round"] == last]
    kept = []
    for (run_id, _), client in rows.groupby(["run_id", "client_id"], observed=True):
        present = set(client["model"])
        first = next((model for model in MODELS if model in present), "")
        chosen = (models or {}).get(str(run_id), first)
        chosen = chosen if chosen in present else first  # a site that took no part has no model of its own
        kept.append(client[client["model"] == chosen])
    return pd.concat(kept) if kept else rows


def evaluated_cases(cases: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """The rows that say how a method fared in every round: test cases of the clients, of the model that is deployed in the end, or
    of the first of `MODELS` that was evaluated at a client in that round where the deployed one was not.

    Args:
        cases: the `cases` table of one or several runs.
        models: run_id to the model that is deployed in the end; global where it is silent.
    """
    rows = cases[(cases["split"] == "test") & (cases["client_id"] >= 0)]
    names = rows["model"].astype(str)
    place = names.map({name: number for number, name in enumerate(MODELS, start=1)}).astype(int)
    place = place.mask(names == rows["run_id"].astype(str).map(lambda run_id: models.get(run_id, "global")), 0)
    return rows[place == place.groupby([rows["run_id"], rows["client_id"], rows["round"]], observed=True).transform("min")]


def site_scores_by_round(cases: pd.DataFrame, deployed: str | None = None) -> pd.Series:
    """The scores of the sites of one run by round and client: the mean over patients of the mean over a patient's cases of the mean
    over classes, of the deployed model, or of the shared one in rounds before there are others. Their mean is the run's score.

    Args:
        cases: the `cases` table of the run.
        deployed: the model that its sites use in the end; None: what most of them have in the last round.
    """
    last = deployed_cases(cases)["model"].astype(str)
    model = deployed or (last.mode().iloc[0] if len(last) else "global")
    rows = evaluated_cases(cases, dict.fromkeys(cases["run_id"].astype(str).unique(), model))
    patients = case_scores(rows.assign(method=rows["round"])).groupby(["method", *PATIENT])["score"].mean()
    return patients.groupby(["method", PATIENT[0]]).mean().rename_axis(["round", PATIENT[0]]).rename("dsc")


def patient_class_scores(cases: pd.DataFrame, clients: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """One row per run, patient and class: the scores of the models that sites deploy, each a mean over the patient's cases.

    Args:
        cases, clients: the tables of one or several runs.
        models: run_id to the model that is deployed, where the run says so.
    """
    rows = deployed_cases(cases, models)
    rows = rows.assign(patient_id=rows["patient_id"].astype(object).fillna(rows["case_id"]).astype(str))
    keys = ["run_id", "scenario", "method", "seed", "client_id", "patient_id", "model", "class_index", "class_name"]
    means = rows.groupby(keys, observed=True)[list(HIGHER_IS_BETTER)].mean().reset_index()
    sites = clients[["run_id", "client_id", "client_name", "group"]].astype({"run_id": str, "client_name": str, "group": str})
    named = means.astype({"run_id": str}).merge(sites, on=["run_id", "client_id"], how="left")
    return named[[*keys[:5], "client_name", "group", "patient_id", "model", "class_name", *HIGHER_IS_BETTER]]


def case_scores(deployed: pd.DataFrame, metric: Metric = "dsc") -> pd.DataFrame:
    """One row a method, seed, client and case, whose `score` is the mean over the classes that have a value. Where a table does not
    say whose case it is, every case is a patient."""
    valued = deployed.dropna(subset=[metric])
    case_ids = valued["case_id"].astype(str)
    patients = valued["patient_id"].astype(object).fillna(case_ids) if "patient_id" in valued else case_ids
    valued = valued.assign(case_id=case_ids, patient_id=patients.astype(str))
    scores = valued.groupby(KEYS, observed=True)[metric].mean().rename("score").reset_index()
    return scores.astype({"client_id": "int64"})


def patient_scores(scores: pd.DataFrame, by: str = "method") -> pd.DataFrame:
    """One row a seed, client and patient, one column a value of `by`: the mean over the patient's cases (visits, sides).

    Only patients that every column has in the same seed are kept, so that all columns are of the same people and trainings.
    """
    visits = scores.groupby([by, "seed", *PATIENT], observed=True)["score"].mean()
    return visits.unstack(by).dropna()
