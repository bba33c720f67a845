"""What is predicted where the reference has nothing? Such rows have no score, and are in no mean of one."""

from __future__ import annotations

import pandas as pd

from raykd.results.questions.comparison import Comparison

MM3_OF_ML = 1000.0


def false_positives(comparison: Comparison) -> pd.DataFrame:
    """One row a cell, site and class with empty references, cases of all seeds counted: `num_cases` with an empty reference,
    `num_absent` of them where the class is known not to be there, `num_predicted` of them with a predicted voxel, their `share`,
    and `volume_ml`, the mean false-positive volume over all of them, in mL. What nobody outlined in a case is not counted.
    """
    cases = comparison.deployed
    empty = cases[cases["is_ref_empty"].fillna(False).astype(bool)]
    counted = empty.assign(
        client_name=[comparison.names.get(int(client_id), str(client_id)) for client_id in empty["client_id"]],
        class_name=empty["class_name"].astype(str),
        is_absent=(empty["reference"].astype(object) == "absent") if "reference" in empty else False,
        is_predicted=empty["is_pred_empty"] == False,  # noqa: E712 (nullable)
        volume_ml=empty["volume_pred_mm3"] / MM3_OF_ML,
    )
    table = (
        counted.groupby(["cell", "client_name", "class_name"], sort=False)
        .agg(
            num_cases=("is_predicted", "size"),
            num_absent=("is_absent", "sum"),
            num_predicted=("is_predicted", "sum"),
            volume_ml=("volume_ml", "mean"),
        )
        .reset_index()
        .astype({"num_cases": int, "num_absent": int, "num_predicted": int, "volume_ml": float})
    )
    table.insert(0, "method", comparison.cells.loc[table["cell"], "method"].to_numpy())
    table.insert(1, "condition", comparison.cells.loc[table["cell"], "condition"].to_numpy())
    table.insert(table.columns.get_loc("volume_ml"), "share", table["num_predicted"] / table["num_cases"])  # type: ignore[arg-type]
    return table.drop(columns="cell")
