"""Knees of the OAI: subjects and visits from paths, outlines as voxels, masks without a pose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from layout_files import keys, problems, source, write_series
from scipy.io import savemat

from raykd.data.sources._contours import inside
from raykd.scenario.errors import DataError

COLUMNS, ROWS, SLICES = 7, 6, 5
SAGITTAL = ("0\\1\\0", "0\\0\\-1")
"""Columns run to the back, rows downwards; slices then run to the right."""


def _voxels(seed: int = 0) -> np.ndarray:
    return (np.arange(COLUMNS * ROWS * SLICES).reshape(COLUMNS, ROWS, SLICES) * 7 + seed) % 199


def _knee(root: Path, path: str, side: str = "RIGHT", seed: int = 0, names: list[str] | None = None) -> None:
    tags = {"0008|103e": f"SAG_3D_DESS_{side}"}
    names = names or [f"{k + 1:03d}" for k in range(SLICES)]
    write_series(root / path, _voxels(seed), names, tags, directions=SAGITTAL)


def _datastruct(path: Path, **contours: dict[int, list[list[float]]]) -> None:
    """A MATLAB struct array with an entry for each slice; contours by structure and slice."""
    entries = np.empty((1, SLICES), dtype=[(name, object) for name in contours])
    for k in range(SLICES):
        for name, of_slice in contours.items():
            cell = np.empty((1, 1), dtype=object)
            cell[0, 0] = np.array(of_slice[k], dtype=float) if k in of_slice else np.empty((0, 0))
            entries[0, k][name] = cell if k in of_slice else np.empty((0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"datastruct": entries}, do_compression=True)


def _square(left: float, right: float, bottom: float, top: float) -> list[list[float]]:
    return [[left, bottom, 1], [right, bottom, 1], [right, top, 1], [left, top, 1]]


def _imorphics(root: Path, **settings: Any) -> Any:
    block = {"name": "oai", "collection": "imorphics", "images": "oai", "masks": "masks", **settings}
    return source(root, ("femoral_cartilage", "tibial_cartilage"), **block)


def test_even_odd_rule_agrees_with_the_winding_of_a_concave_polygon() -> None:
    # A "C" of 5 x 5 with its mouth to the right; centres of voxels are whole numbers.
    points = np.array([[0.5, 0.5], [5.5, 0.5], [5.5, 2.5], [2.5, 2.5], [2.5, 3.5], [5.5, 3.5], [5.5, 5.5], [0.5, 5.5]])
    want = np.zeros((8, 7), dtype=bool)
    want[1:6, 1:6] = True
    want[3:6, 3] = False
    np.testing.assert_array_equal(inside(points, 8, 7), want)
    np.testing.assert_array_equal(inside(points[::-1], 8, 7), want)
    assert inside(points - 100, 8, 7).sum() == 0


def test_outlines_become_classes_where_they_were_drawn(tmp_path: Path) -> None:
    _knee(tmp_path, "oai/0.C.2/9001104/20050812/10466203")
    femoral = {1: _square(0.5, 3.5, 0.5, 2.5)}
    lateral, medial = {1: _square(2.5, 5.5, 0.5, 1.5)}, {3: _square(4.5, 6.5, 3.5, 5.5)}
    _datastruct(
        tmp_path / "masks/9001104/V00/9001104_femur.mat",
        FemoralCartilage=femoral,
        LateralTibialCartilage=lateral,
        MedialTibialCartilage=medial,
    )
    made = _imorphics(tmp_path)
    (key,) = made.keys()
    assert (key.case_id, key.patient_id, made.traits(key)) == ("9001104-V00", "9001104", {"visit": "V00", "side": "right"})
    assert made.population() == "oai"
    # By hand, in the file's columns, rows and slices: y counts rows from the bottom, row = ROWS - y.
    drawn = np.zeros((COLUMNS, ROWS, SLICES), dtype=np.uint8)
    drawn[3:6, 5, 1] = 2
    drawn[1:4, 4:6, 1] = 1
    drawn[5:7, 1:3, 3] = 2
    case = made.load(key)
    np.testing.assert_array_equal(case.image_CIJK[0].numpy(), _voxels()[::-1, ::-1].transpose(2, 0, 1))
    np.testing.assert_array_equal(case.label_IJK.numpy(), drawn[::-1, ::-1].transpose(2, 0, 1))
    made.check()


def test_entries_follow_the_names_of_files_and_not_their_place(tmp_path: Path) -> None:
    _knee(tmp_path, "oai/0.C.2/9001104/20050812/10466203", names=[f"{SLICES - k:03d}" for k in range(SLICES)])
    _datastruct(tmp_path / "masks/9001104/V00/a.mat", FemoralCartilage={0: _square(0.5, 3.5, 0.5, 2.5)})
    made = _imorphics(tmp_path)
    label_IJK = made.load(made.keys()[0]).label_IJK
    # File 001 is the last slice along the normal, which runs to the right: the highest I.
    assert sorted(set(label_IJK.nonzero()[:, 0].tolist())) == [SLICES - 1]


def test_visits_are_paired_and_stay_with_their_patient(tmp_path: Path) -> None:
    _knee(tmp_path, "oai/00m/0.C.2/9001104/20050812/1", seed=1)
    _knee(tmp_path, "oai/12m/1.C.2/9001104/20060812/2", side="LEFT", seed=2)
    for visit in ("V00", "V01"):
        _datastruct(tmp_path / f"masks/9001104/{visit}/a.mat", FemoralCartilage={0: _square(0.5, 3.5, 0.5, 2.5)})
    made = _imorphics(tmp_path)
    assert [(key.case_id, key.patient_id) for key in keys(made)] == [("9001104-V00", "9001104"), ("9001104-V01", "9001104")]
    assert [made.traits(key)["side"] for key in keys(made)] == ["right", "left"]
    assert made.load(made.keys()[1]).image_CIJK.sum() == _voxels(2).sum()


def test_missing_doubled_and_damaged_knees_are_all_reported(tmp_path: Path) -> None:
    outline = {0: _square(0.5, 3.5, 0.5, 2.5)}
    for subject in ("9000001", "9000002", "9000003", "9000004"):
        _datastruct(tmp_path / f"masks/{subject}/V00/a.mat", FemoralCartilage=outline)
    _knee(tmp_path, "oai/0.C.2/9000002/1/1", side="LEFT", seed=1)
    _knee(tmp_path, "oai/0.C.2/9000002/1/2", side="RIGHT", seed=2)
    _knee(tmp_path, "oai/0.C.2/9000003/1/1", seed=3)
    _knee(tmp_path, "oai/0.C.2/9000004/1/1", seed=4)
    mat = tmp_path / "masks/9000003/V00/a.mat"
    mat.write_bytes(mat.read_bytes()[:-20])
    (tmp_path / "oai/0.C.2/9000004/1/1/005").unlink()
    found = {line.split("'")[1]: line for line in problems(_imorphics(tmp_path))}
    assert found.keys() == {"9000001-V00", "9000002-V00", "9000003-V00", "9000004-V00"}
    assert "must have an image" in found["9000001-V00"]
    assert "SAG_3D_DESS_LEFT" in found["9000002-V00"] and "SAG_3D_DESS_RIGHT" in found["9000002-V00"]
    assert "variable datastruct" in found["9000003-V00"]
    assert "5 for 4 slices" in found["9000004-V00"]


def _zib(root: Path, classes: tuple[str, ...] = ("femur", "tibial_cartilage"), **settings: Any) -> Any:
    return source(
        root, classes, **{"name": "oai", "collection": "zib", "images": "00m", "masks": "zib/segmentation_masks", **settings}
    )


def _write_zib_mask(root: Path, subject: str, values_LPS: np.ndarray) -> Path:
    mask = SimpleITK.GetImageFromArray(np.ascontiguousarray(values_LPS.T).astype(np.uint8))
    path = root / f"zib/segmentation_masks/{subject}.segmentation_masks.mhd"
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(mask, str(path))
    return path


def test_zib_masks_are_laid_on_the_series_that_the_list_names(tmp_path: Path) -> None:
    _knee(tmp_path, "00m/0.C.2/9001104/20050812/1", side="LEFT", seed=1)
    _knee(tmp_path, "00m/0.C.2/9001104/20050812/2", side="RIGHT", seed=2)
    # In the image's columns, rows, slices; the mask runs to the left, to the back and upwards.
    drawn = np.zeros((COLUMNS, ROWS, SLICES), dtype=np.uint8)
    drawn[1, 2, 3], drawn[5, 0, 1], drawn[6, 5, 4] = 1, 4, 2
    _write_zib_mask(tmp_path, "9001104", drawn.transpose(2, 0, 1)[::-1, :, ::-1])
    paths = tmp_path / "zib/doc/oai_mri_paths.txt"
    paths.parent.mkdir()
    paths.write_text("9001104: 0.C.2/9001104/20050812/2\n9002430: 0.C.2/9002430/20050812/3\n")
    with pytest.raises(DataError, match="set mri_paths"):
        _zib(tmp_path).keys()
    made = _zib(tmp_path, mri_paths="zib/doc/oai_mri_paths.txt")
    case = made.load(made.keys()[0])
    assert case.image_CIJK.sum() == _voxels(2).sum()
    want = np.where(drawn == 4, 2, np.where(drawn == 1, 1, 0))
    np.testing.assert_array_equal(case.label_IJK.numpy(), want[::-1, ::-1].transpose(2, 0, 1))
    paths.write_text("9001104: 0.C.2/9001104/20050812/2\nnonsense\n")
    with pytest.raises(DataError, match=r"oai_mri_paths.txt:2:1: .*'nonsense'"):
        _zib(tmp_path, mri_paths="zib/doc/oai_mri_paths.txt").keys()


def test_a_cut_zib_mask_and_an_unknown_structure_are_refused(tmp_path: Path) -> None:
    _knee(tmp_path, "00m/0.C.2/9001104/20050812/1")
    mask = _write_zib_mask(tmp_path, "9001104", np.ones((SLICES, COLUMNS, ROWS)))
    raw = mask.with_suffix(".raw")
    raw.write_bytes(raw.read_bytes()[:-1])
    (line,) = problems(_zib(tmp_path))
    assert "as long as its header says" in line and "209 of 210 bytes" in line
    with pytest.raises(DataError, match="did you mean 'tibial_cartilage'"):
        _zib(tmp_path, ("femur", "tibia_cartilage")).keys()
