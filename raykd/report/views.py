"""What each site sees: a test case as its source has it, as the site acquires it, with the reference, and with a prediction."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from raykd.report.blocks import Panel
from raykd.report.evidence import REPOSITORY, Evidence
from raykd.report.pictures import SLICE, num_labelled, picture, student_of
from raykd.report.wording import NONE, number, plural, readable, short

NUM_CASES = 3
"""Of a site, however many were kept; one where sites are many."""
MANY_SITES = 4
Layers = Mapping[str, pd.Series]


@dataclass(frozen=True)
class View:
    """A site or the repository: what it has, by heading, and for each case a title and its pictures."""

    name: str
    is_repository: bool
    facts: tuple[tuple[str, str], ...]
    cases: tuple[tuple[str, tuple[Panel, ...]], ...]


def views(
    evidence: Evidence, sites: Sequence[int], methods: Sequence[str], structures: Sequence[str], shown: dict[bytes, str]
) -> Iterator[View]:
    """The repository and the sites of which slices were kept.

    Args:
        evidence: all runs.
        sites: client ids, in order.
        methods: the first of these that has slices of a site is shown there, in its last round and first seed.
        structures: the names of the classes 1, 2, ...
        shown: the images that the page has already, by content; grows.
    """
    for client_id in (REPOSITORY, *sites):
        rows = _of_one_run(evidence.tables["previews"], client_id, methods)
        if rows.empty:
            continue
        clients = evidence.tables["clients"]
        own = clients[(clients["run_id"] == rows["run_id"].iloc[0]) & (clients["client_id"] == client_id)]
        facts = _repository_facts(evidence) if client_id == REPOSITORY else {}
        for row in own.to_dict("records"):
            facts = site_facts(row)
        num_cases = NUM_CASES if len(sites) <= MANY_SITES else 1
        cases = [_case(evidence, one, structures, shown) for one in _fullest_slices(rows)[:num_cases]]
        yield View(evidence.name(client_id), client_id == REPOSITORY, tuple(facts.items()), tuple(cases))


def _of_one_run(previews: pd.DataFrame, client_id: int, methods: Sequence[str]) -> pd.DataFrame:
    rows = previews[previews["client_id"] == client_id]
    method = next((method for method in methods if (rows["method"] == method).any()), None)
    rows = rows[rows["method"] == method].sort_values("seed", kind="stable")
    rows = rows[rows["run_id"] == rows["run_id"].iloc[0]] if len(rows) else rows
    return rows[rows["round"] == rows["round"].max()]


def _fullest_slices(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Of each case, the slice that shows most of the reference."""
    cases = [case for _, case in rows.groupby("case_id", observed=True, sort=False)]
    return [max((one for _, one in case.groupby(SLICE, observed=True)), key=num_labelled) for case in cases]


def _case(
    evidence: Evidence, rows: pd.DataFrame, structures: Sequence[str], shown: dict[bytes, str]
) -> tuple[str, tuple[Panel, ...]]:
    layers = {str(layer): group.iloc[0] for layer, group in rows.groupby("layer", observed=True)}
    case_id, client_id, axis = str(rows["case_id"].iloc[0]), int(rows["client_id"].iloc[0]), int(rows["axis"].iloc[0])
    title = f"{evidence.planes[axis][0].upper()}{evidence.planes[axis][1:]} of {case_id}"
    panels = []
    for base, outlines, caption in _pictures(evidence, layers, client_id):
        if base in layers:
            svg = picture(layers, outlines, shown, f"{title}, {evidence.name(client_id)}: {caption}", base, structures)
            panels.append(Panel(svg, caption))
    if not student_of(layers) and "teacher" not in layers:
        panels.append(Panel(Markup(), "No prediction was kept of this case"))
    return title, tuple(panels)


def _pictures(evidence: Evidence, layers: Layers, client_id: int) -> Iterator[tuple[str, dict[str, str], str]]:
    """Base layer, outlines by layer, and caption of each picture."""
    owner = "repository" if client_id == REPOSITORY else "site"
    if "source" in layers:
        yield "source", {}, f"As its source has it, {spacing_words(layers['source'])}"
    yield "image", {}, f"As the {owner} has it, {spacing_words(layers['image'])}"
    if "reference" in layers:
        yield "image", {"reference": "reference"}, "Reference"
    student = student_of(layers)
    if student:
        yield "image", {student: "student"}, f"Prediction of {_method_and_score(evidence, layers[student])}"
    elif "teacher" in layers:
        yield "image", {"teacher": "teacher"}, "Prediction of the teacher"


def _method_and_score(evidence: Evidence, row: pd.Series) -> str:
    deployed = evidence.deployed
    is_same = deployed["run_id"].astype(str) == str(row["run_id"])
    for column in ("client_id", "case_id"):
        is_same &= deployed[column] == row[column]
    score = float(deployed.loc[is_same, "dsc"].mean())
    return str(row["method"]) if pd.isna(score) else f"{row['method']}, DSC {number(score)}"


def spacing_words(row: Mapping[str, Any] | pd.Series) -> str:
    """Voxel edges along I, J, K of a layer, or those within the slice where the third is not recorded."""
    axis = int(row["axis"])
    edges = {axis: row["slice_mm"], (2, 2, 1)[axis]: row["row_mm"], (1, 0, 0)[axis]: row["col_mm"]}
    return " × ".join(short(edges[a]) for a in range(3) if not pd.isna(edges[a])) + " mm"


def site_facts(row: Mapping[Any, Any]) -> dict[str, str]:
    """What a row of `clients` says of a site, by heading; what is as anywhere else is left out."""
    known = {name: value for name, value in row.items() if not pd.isna(value)}
    facts = {
        "Source": known.get("source", NONE) + (", split by case" if known.get("split_unit") == "case" else ""),
        "Scanner": known.get("scanner", NONE),
        "Labels": _label_words(known),
        "Slices": f"{known['slice_gap_mm']:.3g} mm between two slices are covered by neither" if known.get("slice_gap_mm") else "",
        "Takes part": _presence_words(known),
        "Drawn for it": ", ".join(
            f"{key} {short(value)}" for key, value in dict(_leaves(json.loads(known.get("drawn", "{}")))).items()
        ),
    }
    return {heading: words for heading, words in facts.items() if words not in ("", NONE)}


def _label_words(known: Mapping[Any, Any]) -> str:
    if "num_labelled" not in known:
        return ""
    num_training = int(known["num_labelled"]) + int(known.get("num_unlabelled", 0))
    parts = [f"{int(known['num_labelled'])} of {plural(num_training, 'training scan')}"]
    if known.get("label_slices", 1.0) < 1:
        parts.append(f"{100 * known['label_slices']:.3g}% of the slices of each")
    if "label_classes" in known:
        parts.append(readable(str(known["label_classes"])))
    return "; ".join([*parts, *([known["label_noise"]] if "label_noise" in known else [])])


def _presence_words(known: Mapping[Any, Any]) -> str:
    """Rounds as the report counts them, from 1."""
    first = int(known.get("joins", 0)) + 1
    if "leaves" in known:
        return f"rounds {first} to {int(known['leaves'])}" if known["leaves"] > first else f"round {first} only"
    return f"from round {first} on" if first > 1 else ""


def _leaves(drawn: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """What was drawn by key path, a whole block by the paths of its keys."""
    for key, value in drawn.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _repository_facts(evidence: Evidence) -> dict[str, str]:
    source = (evidence.scenario.get("repository") or {}).get("source") or {}
    words = [str(source[key]) for key in ("name", "anatomy", "protocol") if source.get(key)]
    return {"Source": ", ".join(words)} if words else {}
