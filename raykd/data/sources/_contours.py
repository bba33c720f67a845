"""The outlines that iMorphics drew of knee cartilage and menisci, as voxels."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raykd.data.integrity import DamagedFile

STRUCTURES = (
    "FemoralCartilage",
    "LateralTibialCartilage",
    "MedialTibialCartilage",
    "PatellarCartilage",
    "LateralMeniscus",
    "MedialMeniscus",
)
"""The fields of `datastruct`; the number of a structure is its place here, from 1."""
MAX_POINTS = 1 << 16


def read_contours(path: Path, num_slices: int, num_rows: int, num_columns: int) -> NDArray[np.int32]:
    """The structures of every slice, in the order of the slices' file names: (num_columns, num_rows, num_slices).

    A point is (x, y): x columns from the left, y rows from the bottom. A voxel belongs to the outlines around its centre; where
    structures overlap the one that comes first in `STRUCTURES` keeps it.

    Raises:
        DamagedFile: the file is no MATLAB file of version 5 to 7, has no `datastruct` of this many slices, or a contour is none.
    """
    slices = _datastruct(path)
    if len(slices) != num_slices:
        raise DamagedFile("datastruct must have an entry for every slice of the image", f"{len(slices)} for {num_slices} slices")
    values_IJK = np.zeros((num_columns, num_rows, num_slices), dtype=np.int32)
    for index, entry in enumerate(slices):
        for number, name in reversed(list(enumerate(STRUCTURES, start=1))):
            for contour in _contours(entry, name, index):
                points = np.stack([contour[:, 0], num_rows - contour[:, 1]], axis=1)
                values_IJK[inside(points, num_columns, num_rows), index] = number
    return values_IJK


def inside(points: NDArray[np.float64], num_columns: int, num_rows: int) -> NDArray[np.bool_]:
    """Which voxel centres a closed polygon surrounds, by the even-odd rule: (num_columns, num_rows).

    Args:
        points: corners as column, row; centres have whole numbers.
        num_columns, num_rows: of the slice.
    """
    x, y = points.T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    rows = np.arange(num_rows)
    row, edge = np.nonzero((y <= rows[:, None]) != (next_y <= rows[:, None]))
    crossing = x[edge] + (row - y[edge]) * (next_x - x)[edge] / (next_y - y)[edge]
    toggles = np.zeros((num_columns + 1, num_rows), dtype=np.int64)
    np.add.at(toggles, (np.clip(np.ceil(crossing), 0, num_columns).astype(np.int64), row), 1)
    is_inside: NDArray[np.bool_] = np.cumsum(toggles, axis=0)[:num_columns] % 2 == 1
    return is_inside


def _datastruct(path: Path) -> list[Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(path, struct_as_record=False, variable_names=["datastruct"])["datastruct"]
        return list(np.atleast_2d(found)[0])
    except (MatReadError, OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, zlib.error) as error:
        raise DamagedFile("labels must be a MATLAB file with a variable datastruct", str(error)) from None


def _contours(entry: Any, name: str, index: int) -> list[NDArray[np.float64]]:
    cells = np.asarray(getattr(entry, name, np.empty(0)), dtype=object).ravel()
    contours = []
    for cell in cells:
        contour = np.asarray(cell)
        if contour.size == 0:
            continue
        is_number = contour.dtype.kind in "uif" and contour.ndim == 2 and contour.shape[1] >= 2
        if not is_number or len(contour) > MAX_POINTS or not np.isfinite(contour[:, :2]).all():
            got = f"{contour.dtype} of shape {contour.shape} in slice {index + 1}, {name}"
            raise DamagedFile("a contour must be finite points, a row each", got)
        contours.append(contour.astype(np.float64))
    return contours
