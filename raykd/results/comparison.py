"""Whether two runs of one scenario say the same: to the last bit, within what rounding on another machine may do, or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from raykd.results.reader import Run
from raykd.results.schema import TABLES, measured_columns

IDENTICAL, WITHIN, DIFFERENT = "IDENTICAL", "WITHIN TOLERANCE", "DIFFERENT"
TOLERANCES: dict[str, tuple[float, float]] = {
    "dsc": (0.01, 0.0),
    "nsd": (0.01, 0.0),
    "hd95_mm": (0.1, 0.01),
    "assd_mm": (0.02, 0.01),
    "volume_pred_mm3": (0.0, 0.01),
    **dict.fromkeys(("sum_confidence", "num_correct", "sum_brier", "sum_nll"), (0.0, 0.01)),
    "loss": (1e-4, 1e-3),
}
"""By column, how far numbers may be apart: absolutely, plus in parts of the original. All columns without one must be equal."""
SUMS = ("num_voxels", "sum_confidence", "num_correct", "sum_brier", "sum_nll")
"""Of the bins of a case in `calibration`, which are compared by what they add up to."""
OPEN_TOLERANCE = (1e-4, 1e-3)
"""Of the columns that methods add, and of the parts of the loss."""
WEIGHTS_TOLERANCE = 1e-3
"""Of a model's tensors: the largest difference in parts of the tensor's largest value."""


@dataclass(frozen=True)
class Difference:
    """A column, or a model, in which two runs differ.

    Attributes:
        where: `cases.dsc`, `models/global.safetensors`.
        num_differing, num_compared: rows, or values.
        largest: the largest difference; NaN where it is not one of numbers.
        tolerance: in words; `equal` where there is none.
        is_within: whether all differences are within it.
    """

    where: str
    num_differing: int
    num_compared: int
    largest: float
    tolerance: str
    is_within: bool

    def __str__(self) -> str:
        size = "" if np.isnan(self.largest) else f", by up to {self.largest:.3g}"
        return f"{self.where}: {self.num_differing} of {self.num_compared} differ{size} (must be {self.tolerance})"


def verdict(differences: list[Difference]) -> str:
    """One of IDENTICAL, WITHIN TOLERANCE, DIFFERENT."""
    if not differences:
        return IDENTICAL
    return WITHIN if all(difference.is_within for difference in differences) else DIFFERENT


def tolerance_of(column: str) -> tuple[float, float] | None:
    """Absolute and relative tolerance of a column; None: it must be equal."""
    is_open = column.startswith(("loss_", "share_", "weight_", "trust_"))
    return TOLERANCES.get(column, OPEN_TOLERANCE if is_open else None)


def table_differences(one: Run, other: Run) -> Iterator[Difference]:
    """Every column in which two runs differ, but for what is measured, the run's name, and workers that were lost."""
    for name in (name for name, schema in TABLES.items() if schema.is_of_run):
        left, right = (_comparable(run, name) for run in (one, other))
        if len(left) != len(right):
            yield Difference(
                name, abs(len(left) - len(right)), max(len(left), len(right)), float("nan"), "equally many rows", False
            )
            continue
        for column in dict.fromkeys([*left.columns, *right.columns]):
            if column not in left or column not in right:
                yield Difference(f"{name}.{column}", len(left), len(left), float("nan"), "there in both", False)
            elif found := _column_difference(f"{name}.{column}", left[column], right[column]):
                yield found


def _comparable(run: Run, name: str) -> pd.DataFrame:
    frame = run.table(name).drop(columns=[*measured_columns(name), "run_id"])
    if name == "calibration":  # rounding takes a voxel to the next bin, and a bin has a row where it has a voxel
        keys = [column for column in frame if column not in ("bin_index", *SUMS)]
        return frame.groupby(keys, observed=True, sort=False, dropna=False)[list(SUMS)].sum().reset_index()
    return frame[frame["kind"] != "worker_lost"].reset_index(drop=True) if name == "events" else frame


def _column_difference(where: str, left: pd.Series, right: pd.Series) -> Difference | None:
    one, other = (column.astype(object).where(column.notna(), None) for column in (left, right))
    differs = np.array([a != b for a, b in zip(one, other, strict=True)], dtype=bool)
    if not differs.any():
        return None
    tolerance = tolerance_of(where.partition(".")[2])
    is_number = pd.api.types.is_numeric_dtype(left) and not pd.api.types.is_bool_dtype(left)
    if not is_number:
        return Difference(where, int(differs.sum()), len(left), float("nan"), "equal", False)
    a, b = (column.to_numpy(dtype=float, na_value=np.nan) for column in (left, right))
    gaps = np.abs(a - b)[differs]
    if tolerance is None:
        return Difference(where, int(differs.sum()), len(left), float(np.nanmax(gaps, initial=0.0)), "equal", False)
    allowed = tolerance[0] + tolerance[1] * np.abs(a[differs])
    words = " + ".join(filter(None, (f"{tolerance[0]:g}" * bool(tolerance[0]), f"{tolerance[1]:.1%}" * bool(tolerance[1]))))
    is_within = bool((gaps <= allowed).all())
    return Difference(where, int(differs.sum()), len(left), float(np.nanmax(gaps, initial=0.0)), f"within {words}", is_within)
