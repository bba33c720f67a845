"""Slices of test cases with outlines, on each client's own grid and in its true proportions."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import tostring

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.image import imsave
from numpy.typing import NDArray

from raykd.report.svg import element
from raykd.report.wording import number
from raykd.results.statistics import MODELS

STUDENTS = MODELS[:2]
SLICE = ["case_id", "axis", "slice_index"]
LABEL_UNKNOWN = 255
BAR_MM = 20.0
SLICES_OF_ONE_METHOD = 3


@dataclass(frozen=True)
class Panel:
    """A picture and the line beneath it."""

    svg: Markup
    caption: str


def panels_of_client(
    previews: pd.DataFrame, deployed: pd.DataFrame, methods: Sequence[str], shown: dict[bytes, str], planes: Sequence[str]
) -> Iterator[Panel]:
    """The slice that shows most of the reference, once a method; several slices where there is one method.

    Args:
        previews: the rows of one client.
        deployed: the test cases of the same client, last round, deployed model.
        methods: whose outlines to show, in this order.
        shown: the images that the page has already, by content; grows.
        planes: what to call a slice perpendicular to I, J, K.
    """
    last = previews[previews["round"] == previews.groupby("run_id", observed=True)["round"].transform("max")]
    for method in methods:
        rows = last[last["method"] == method].sort_values("seed", kind="stable")
        rows = rows[rows["run_id"] == rows["run_id"].iloc[0]] if len(rows) else rows
        slices = sorted((group for _, group in rows.groupby(SLICE, observed=True)), key=num_labelled, reverse=True)
        for one in slices[: SLICES_OF_ONE_METHOD if len(methods) == 1 else 1]:
            case_id, axis = str(one["case_id"].iloc[0]), int(one["axis"].iloc[0])
            scores = deployed[(deployed["method"] == method) & (deployed["case_id"] == case_id)]["dsc"]
            caption = f"{method}: {planes[axis]} of {case_id}, DSC of the scan {number(float(scores.mean()))}"
            layers = {str(layer): group.iloc[0] for layer, group in one.groupby("layer", observed=True)}
            if "image" in layers:
                yield Panel(picture(layers, outlines_of(layers), shown, caption), caption)


def outlines_of(layers: Mapping[str, pd.Series]) -> dict[str, str]:
    """The layers drawn as outlines, with what the page's style calls them."""
    student = student_of(layers)
    named = (("reference", "reference"), ("teacher", "teacher"), (student, "student"))
    return {layer: style for layer, style in named if layer in layers}


def student_of(layers: Mapping[str, pd.Series]) -> str:
    """The layer of the site's model; "" where there is none."""
    return next((name for name in STUDENTS if name in layers), "")


def num_labelled(layers: pd.DataFrame) -> int:
    reference = layers.loc[layers["layer"] == "reference", "pixels"]
    return int(np.count_nonzero(np.frombuffer(reference.iloc[0], np.uint8))) if len(reference) else 0


def picture(
    layers: Mapping[str, pd.Series], outlines: Mapping[str, str], shown: dict[bytes, str], description: str, base: str = "image"
) -> Markup:
    """Image and outlines; an image shown before is referred to, not repeated.

    Args:
        layers: the rows of `previews` of one slice, by layer.
        outlines: layers to outline, with what the page's style calls them.
        shown: the images that the page has already, by content; grows.
        description: what a screen reader says.
        base: the layer beneath the outlines.
    """
    image = layers[base]
    rows, cols = int(image["rows"]), int(image["cols"])
    height, width = rows * float(image["row_mm"]), cols * float(image["col_mm"])
    grid = element("g", transform=f"scale({image['col_mm']:g} {image['row_mm']:g})")
    content = bytes(image["pixels"])
    if content in shown:
        grid.append(element("use", href=f"#{shown[content]}"))
    else:
        shown[content] = f"image-{image['client_id']}-{len(shown)}"
        source = f"data:image/png;base64,{_png(_pixels(image))}"
        grid.append(
            element(
                "image",
                id=shown[content],
                href=source,
                width=cols,
                height=rows,
                preserveAspectRatio="none",
                image_rendering="pixelated",
            )
        )
    for layer, style in outlines.items():
        grid.append(element("path", d=outline(_pixels(layers[layer])), class_=f"outline {style}"))
    bar = f"M{width - BAR_MM - 3:g} {height - 3:g}h{BAR_MM:g}"
    root = element(
        "svg",
        grid,
        element("path", d=bar, class_="scale-bar"),
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=description,
    )
    return Markup(tostring(root, encoding="unicode"))


def _pixels(row: pd.Series) -> NDArray[np.uint8]:
    return np.frombuffer(row["pixels"], np.uint8).reshape(int(row["rows"]), int(row["cols"]))


def _png(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    imsave(buffer, pixels, cmap="gray", vmin=0, vmax=255, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def outline(label: NDArray[np.uint8]) -> str:
    """The SVG path, in pixels, of all edges between pixels of different classes; voxel edges stay visible as the steps they are."""
    known = np.pad(np.where(label == LABEL_UNKNOWN, 0, label), 1)
    across = _runs(known[1:, :] != known[:-1, :])
    down = _runs((known[:, 1:] != known[:, :-1]).T)
    return "".join([f"M{a - 1} {i}h{b - a}" for i, a, b in across] + [f"M{i} {a - 1}v{b - a}" for i, a, b in down])


def _runs(is_edge: NDArray[np.bool_]) -> Iterator[tuple[int, int, int]]:
    """Row, start and stop of every unbroken run of True."""
    steps = np.diff(np.pad(is_edge.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    starts, stops = np.argwhere(steps == 1), np.argwhere(steps == -1)
    for (row, start), (_, stop) in zip(starts.tolist(), stops.tolist(), strict=True):
        yield row, start, stop
