"""Stacks of slices to scroll through: a case of a site with outlines of the reference, of every method's model and the teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element

import numpy as np
import pandas as pd

from raykd.report.blocks import Viewer
from raykd.report.evidence import Evidence
from raykd.report.pictures import SLICE, frame, image_of, marks_of, num_labelled, pixels_of, student_of
from raykd.report.svg import element
from raykd.report.wording import number

MOST_CASES = 3
"""Of a site, however many were kept."""
MOST_STUDENTS = 8
Layers = dict[str, pd.Series]


def viewers_of(
    evidence: Evidence,
    sites: Sequence[int],
    labels: Sequence[str],
    structures: Sequence[str],
    shown: dict[bytes, str],
    max_bytes: int,
) -> list[Viewer]:
    """One viewer a test case whose slices were kept, of which some are left out where all would be too many bytes.

    Args:
        evidence: all runs.
        sites: client ids, in order.
        labels: whose outlines to show, in this order; the first that has slices of a case decides on the images.
        structures: the names of the classes 1, 2, ...
        shown: the images that the page has already, by content; grows.
        max_bytes: of all viewers together.
    """
    stacks = [stack for client_id in sites for stack in _stacks(evidence, client_id, labels[:MOST_STUDENTS])]
    most = max((len(slices) for _, slices in stacks), default=0)
    while stacks:
        before = dict(shown)
        made = [_viewer(evidence, case, _thinned(slices, most), structures, before, at) for at, (case, slices) in enumerate(stacks)]
        size = sum(len(viewer.svg) for viewer in made)
        if size <= max_bytes or most == 1:
            shown.update(before)
            return made
        most = max(1, min(most - 1, most * max_bytes // size))
    return []


def _stacks(evidence: Evidence, client_id: int, labels: Sequence[str]) -> Iterator[tuple[pd.Series, dict[int, dict[str, Layers]]]]:
    """Of each case kept of a site: its first row, and slice to label to layers, of those labels that saw the same image."""
    previews = evidence.tables["previews"]
    own = previews[(previews["client_id"] == client_id) & previews["method"].isin(labels)]
    if own.empty:
        return
    own = own[own["round"] == own.groupby("run_id", observed=True)["round"].transform("max")]
    first_seed = own.groupby("method", observed=True)["seed"].transform("min")
    own = own[own["seed"] == first_seed]
    for case_id in list(dict.fromkeys(own["case_id"]))[:MOST_CASES]:
        rows = own[own["case_id"] == case_id]
        slices: dict[int, dict[str, Layers]] = {}
        for label in labels:
            for (_, _, index), group in rows[rows["method"] == label].groupby(SLICE, observed=True):
                layers = {str(layer): group.iloc[at] for at, layer in enumerate(group["layer"])}
                known = slices.setdefault(int(index), {})
                if "image" in layers and all(
                    bytes(one["image"]["pixels"]) == bytes(layers["image"]["pixels"]) for one in known.values()
                ):
                    known[label] = layers
        kept = {index: slices[index] for index in sorted(slices) if slices[index]}
        if kept:
            yield rows.iloc[0], kept


def _thinned(slices: dict[int, dict[str, Layers]], most: int) -> dict[int, dict[str, Layers]]:
    """At most so many of the slices, evenly spread, the one with most of the reference among them."""
    if len(slices) <= most:
        return slices
    indices = list(slices)
    fullest = max(indices, key=lambda index: _fullness(slices[index]))
    chosen = {indices[at] for at in np.linspace(0, len(indices) - 1, most).round().astype(int)}
    if fullest not in chosen:
        chosen.remove(min(chosen, key=lambda index: abs(index - fullest)))
        chosen.add(fullest)
    return {index: slices[index] for index in indices if index in chosen}


def _fullness(by_label: Mapping[str, Layers]) -> int:
    layers = next(iter(by_label.values()))
    return num_labelled(pd.DataFrame(list(layers.values())))


def _viewer(
    evidence: Evidence,
    case: pd.Series,
    slices: dict[int, dict[str, Layers]],
    structures: Sequence[str],
    shown: dict[bytes, str],
    number_: int,
) -> Viewer:
    client_id, case_id, axis = int(case["client_id"]), str(case["case_id"]), int(case["axis"])
    indices = list(slices)
    start = max(range(len(indices)), key=lambda at: _fullness(slices[indices[at]]))
    image = next(iter(slices[indices[start]].values()))["image"]
    drawn = [_slice(by_label, at, at == start, structures, shown) for at, by_label in enumerate(slices.values())]
    title = f"{evidence.name(client_id)}: {evidence.planes[axis].replace('slice', 'slices')} of {case_id}"
    kept = (label for by_label in slices.values() for label, layers in by_label.items() if student_of(layers))
    labels = tuple(dict.fromkeys(kept))
    edge = float(image["slice_mm"]) if pd.notna(image.get("slice_mm")) else np.nan
    places = tuple(f"{index}" if np.isnan(edge) else f"{index}, {index * edge:.0f} mm" for index in indices)
    return Viewer(
        key=f"viewer-{number_}",
        title=title,
        svg=frame(image, drawn, f"{title}; outlines of reference, model and teacher"),
        places=places,
        start=start,
        labels=labels,
        scores=tuple((label, number(_score(evidence, label, client_id, case_id))) for label in labels),
        client_id=client_id,
        case_id=case_id,
        keys={"site": evidence.name(client_id)},
    )


def _slice(by_label: Mapping[str, Layers], at: int, is_first: bool, structures: Sequence[str], shown: dict[bytes, str]) -> Element:
    """A slice: the image, and what is outlined on it. All but the first are hidden until a reader scrolls there."""
    image = next(iter(by_label.values()))["image"]
    group = element("g", class_="slice" if is_first else "slice off", transform=f"scale({image['col_mm']:g} {image['row_mm']:g})")
    group.set("data-at", str(at))
    group.append(image_of(image, shown))
    for layer in ("reference", "teacher"):
        row = next((layers[layer] for layers in by_label.values() if layer in layers), None)
        if row is not None:
            group.extend(marks_of(pixels_of(row), layer, structures))
    for label, layers in by_label.items():
        if student := student_of(layers):
            group.extend(marks_of(pixels_of(layers[student]), "student", structures, label=label))
    return group


def _score(evidence: Evidence, label: str, client_id: int, case_id: str) -> float:
    deployed = evidence.deployed
    own = deployed[(deployed["method"] == label) & (deployed["client_id"] == client_id) & (deployed["case_id"] == case_id)]
    return float(own["dsc"].mean())
