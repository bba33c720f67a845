"""A scanned thing as parts that are painted one over the other: their materials make the image, their outlines the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raykd.data.phantom.implicit import Box, Field, Points, Vector, capsule


class Part(NamedTuple):
    """A material on a box of voxels.

    Attributes:
        coverage: share of each voxel in [0, 1], of the box's shape or broadcast to it.
        label: of the voxels that it covers by more than half; None: they keep the label of what lies below.
    """

    material: str
    box: Box
    coverage: Field
    label: int | None = 0


def paint(parts: Sequence[Part], values: Mapping[str, float], shape: tuple[int, int, int], background: float = 0.0) -> Field:
    """One value for each voxel: each part's over what lies below it, in the order of the list.

    Args:
        values: of each material.
        background: where no part is.
    """
    image = np.full(shape, background, np.float32)
    for part in parts:
        below = image[part.box]
        below += part.coverage * (np.float32(values[part.material]) - below)
    return image


def label_map(parts: Sequence[Part], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The label of the topmost part that covers more than half of a voxel, 0 where there is none."""
    labels = np.zeros(shape, np.uint8)
    for part in parts:
        if part.label is not None:
            below = labels[part.box]
            below[np.broadcast_to(part.coverage > 0.5, below.shape)] = part.label
    return labels


def chain(points: Points, nodes: Sequence[tuple[Vector, float]]) -> Field:
    """A tube through nodes (centre, radius), each two joined by a rounded cone."""
    fields = [capsule(points, start, end, r, s) for (start, r), (end, s) in pairwise(nodes)]
    return np.minimum.reduce(fields)
