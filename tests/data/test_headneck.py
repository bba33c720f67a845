"""Planning CT in which organs are missing by nature: who was outlined for what goes from the list of cases to the scores."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from raykd.data.case import Case
from raykd.data.sources._files import FileSource
from raykd.data.sources.folder import FolderSettings, FolderSource
from raykd.federation.evaluation import case_rows
from raykd.results.statistics import case_scores
from raykd.scenario.load import scenario_from_dict

DATA = Path(__file__).parents[3] / "shared/data/headneck_ct"
CLASSES = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Esophagus", "Larynx", "Mandible")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there: the head and neck CT of open-kbp is needed")
NAMED = ("pt_2", "pt_3", "pt_4")


def listed(root: Path, *, says: bool) -> FileSource:
    """Three of the cases; `says`: the manifest has the column of what was outlined."""
    rows = {row["case"]: row["outlined"] for row in csv.DictReader((DATA / "cases.csv").read_text(encoding="utf-8").splitlines())}
    lines = [f"{DATA}/images/{name}.nii.gz,{DATA}/labels/{name}.nii.gz,{rows[name] if says else ''}" for name in NAMED]
    (root / "cases.csv").write_text("\n".join(["image,label,outlined", *lines]) + "\n", encoding="utf-8")
    settings = FolderSettings(name="folder", manifest="cases.csv", allow_outside=True, modality="ct")
    return FolderSource(settings, CLASSES, 0, "site", root)


def scored(case: Case, predicted_IJK: torch.Tensor) -> dict[str, tuple[float | None, str]]:
    block = {"source": {"name": "phantom", "num_cases": 1}}
    built = scenario_from_dict(
        {
            "name": "hn", "classes": list(CLASSES), "clients": [{"group": "a", **block}], "method": {"name": "fedavg"},
            "repository": {**block, "num_validation": 0, "teacher": {"network": {"name": "unet"}}},
            "student": {"network": {"name": "unet"}},
        },
        Path("/"),
    ).scenario  # fmt: skip
    whose = {"split": "test", "model": "global", "round_index": 0, "client_id": 0}
    rows = case_rows(built, case, predicted_IJK, has_surface=False, **whose)  # type: ignore[arg-type]
    return {row["class_name"]: (row["dsc"], row["reference"]) for row in rows}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, Case]]:
    made = {says: listed(tmp_path_factory.mktemp("hn"), says=says) for says in (True, False)}
    keys = {says: source.keys() for says, source in made.items()}
    return {says: {key.case_id: source.load(key) for key in keys[says]} for says, source in made.items()}


def test_cases_hold_what_their_list_says(loaded: dict[bool, dict[str, Case]]) -> None:
    outlined = {name: case.outlined for name, case in loaded[True].items()}
    assert outlined == {"pt_2": (1, 2, 3, 4, 5, 7), "pt_3": (1, 2, 3, 4), "pt_4": None}
    for case in loaded[True].values():
        assert case.label_IJK is not None
        assert set(case.label_IJK.unique().tolist()) - {0} == set(case.outlined or range(1, 8))


def test_a_model_gains_nothing_from_organs_that_nobody_outlined(loaded: dict[bool, dict[str, Case]]) -> None:
    """One model predicts the reference and nothing else, the other a block of each missing organ besides, as one does that knows
    them. Where the list says who was outlined, both score 1 for the same organs. Where it does not, the organs have no score.
    """
    case = loaded[True]["pt_3"]
    assert case.label_IJK is not None
    shy, bold = case.label_IJK.clone(), case.label_IJK.clone()
    for index in (5, 6, 7):
        bold[10 * index : 10 * index + 4, :4, :4] = index
    found = scored(case, shy)
    assert found == scored(case, bold) == dict.fromkeys(CLASSES[:4], (1.0, "outlined"))
    silent = loaded[False]["pt_3"]
    assert scored(silent, bold) == dict.fromkeys(CLASSES[:4], (1.0, "outlined")) | dict.fromkeys(CLASSES[4:], (None, "empty"))


def test_a_missed_organ_still_counts(loaded: dict[bool, dict[str, Case]]) -> None:
    import pandas as pd

    case = loaded[True]["pt_2"]
    assert case.label_IJK is not None
    found = scored(case, torch.where(case.label_IJK == 7, 0, case.label_IJK.long()).to(torch.uint8))
    assert found["Mandible"] == (0.0, "outlined") and "Larynx" not in found
    keys = {"method": "m", "seed": 0, "client_id": 0, "patient_id": "p", "case_id": "c"}
    rows = pd.DataFrame([{**keys, "dsc": dsc} for dsc, _ in found.values()]).astype({"dsc": float})
    assert case_scores(rows)["score"].tolist() == pytest.approx([5 / 6])
    assert np.isfinite(case_scores(rows)["score"]).all()
