"""A slice as a picture: pixels as PNG, outlines as paths, in true proportion."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element, tostring

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from raykd.report.svg import element
from raykd.results.statistics import MODELS

STUDENTS = MODELS[:2]
SLICE = ["case_id", "axis", "slice_index"]
LABEL_UNKNOWN = 255
BAR_MM = 20.0


def student_of(layers: Mapping[str, pd.Series]) -> str:
    """The layer of the site's model; "" where there is none."""
    return next((name for name in STUDENTS if name in layers), "")


def num_labelled(layers: pd.DataFrame) -> int:
    """Pixels of a slice that the reference labels."""
    reference = layers.loc[layers["layer"] == "reference", "pixels"]
    return int(np.count_nonzero(np.frombuffer(reference.iloc[0], np.uint8))) if len(reference) else 0


def picture(
    layers: Mapping[str, pd.Series],
    outlines: Mapping[str, str],
    shown: dict[bytes, str],
    description: str,
    base: str = "image",
    structures: Sequence[str] = (),
) -> Markup:
    """Image and outlines; an image shown before is referred to, not repeated.

    Args:
        layers: the rows of `previews` of one slice, by layer.
        outlines: layers to outline, with what the page's style calls them.
        shown: the images that the page has already, by content; grows.
        description: what a screen reader says.
        base: the layer beneath the outlines.
        structures: the names of the classes 1, 2, ...
    """
    image = layers[base]
    grid = element("g", transform=f"scale({image['col_mm']:g} {image['row_mm']:g})")
    grid.append(image_of(image, shown))
    for layer, style in outlines.items():
        grid.extend(marks_of(pixels_of(layers[layer]), style, structures))
    return frame(image, [grid], description)


def frame(image: pd.Series, children: list[Element], description: str) -> Markup:
    """What is drawn on a slice in mm, with a bar of 20 mm."""
    height, width = int(image["rows"]) * float(image["row_mm"]), int(image["cols"]) * float(image["col_mm"])
    bar = element("path", d=f"M{width - BAR_MM - 3:g} {height - 3:g}h{BAR_MM:g}", class_="scale-bar")
    root = element("svg", *children, bar, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=description)
    return Markup(tostring(root, encoding="unicode"))


def image_of(image: pd.Series, shown: dict[bytes, str]) -> Element:
    """The pixels of a layer, one unit each; those shown before are referred to, not repeated."""
    content = bytes(image["pixels"])
    if content in shown:
        return element("use", href=f"#{shown[content]}")
    shown[content] = f"image-{image['client_id']}-{len(shown)}"
    source = f"data:image/png;base64,{_png(pixels_of(image))}"
    size = {"width": int(image["cols"]), "height": int(image["rows"])}
    return element("image", id=shown[content], href=source, **size, preserveAspectRatio="none", image_rendering="pixelated")


def pixels_of(row: pd.Series) -> NDArray[np.uint8]:
    """A layer's pixels, rows x cols."""
    return np.frombuffer(row["pixels"], np.uint8).reshape(int(row["rows"]), int(row["cols"]))


def _png(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def marks_of(pixels: NDArray[np.uint8], style: str, structures: Sequence[str], **data: str) -> Iterator[Element]:
    """One mark per class of a label map: the outline, and for the reference its area as well.

    Args:
        pixels: rows x cols, class indices.
        style: reference, student or teacher.
        structures: the names of the classes 1, 2, ...
        data: what else a mark is about, as `data-` attributes.
    """
    for index in np.unique(pixels[(pixels > 0) & (pixels != LABEL_UNKNOWN)]).tolist():
        mask = (pixels == index).astype(np.uint8)
        path = element("path", d=outline(mask), class_=f"outline {style} {class_style(index)}")
        marks = (
            [path] if style != "reference" else [element("path", d=area(mask), class_=f"area {style} {class_style(index)}"), path]
        )
        for mark in marks:
            about = {"structure": structures[index - 1]} if index <= len(structures) else {}
            for name, value in {**about, **data}.items():
                mark.set(f"data-{name}", value)
            yield mark


def class_style(index: int) -> str:
    """What the page's style calls the colour and the line of a class; they come again after eight classes."""
    return f"l{(index - 1) % 8}"


def area(mask: NDArray[np.uint8]) -> str:
    """The SVG path, in pixels, that fills a mask: a bar per run of each row."""
    return "".join(f"M{start} {row}h{stop - start}v1h{start - stop}z" for row, start, stop in _runs(mask > 0))


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
