"""Where the axes of arrays without a header run to."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
"""The axis of RAS+ along which each letter runs, and whether forwards."""


def _three_directions(axes: str) -> str:
    if len(axes) != 3 or {DIRECTIONS.get(letter, (9, 0))[0] for letter in axes} != {0, 1, 2}:
        rule = "must be three letters, one each of R or L, A or P, S or I: where the axes run to"
        raise PydanticCustomError("axes", rule)
    return axes


Axes = Annotated[str, AfterValidator(_three_directions)]


def affine_from_axes(axes: str, spacing_mm: tuple[float, float, float], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The RAS+ affine of a grid whose centre lies at the origin.

    Args:
        axes: where its axes run to, as `LPS`: to the left, to the back, upwards.
        spacing_mm: along these axes.
        shape: voxels along them.
    """
    affine = np.eye(4)
    affine[:3, :3] = 0.0
    for axis, letter in enumerate(axes):
        ras_axis, sign = DIRECTIONS[letter]
        affine[ras_axis, axis] = sign * spacing_mm[axis]
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine
