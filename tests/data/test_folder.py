"""Images and labels of a folder: pairing, patients, classes, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydantic import ValidationError

from raykd.data.sources._base import CaseKey
from raykd.data.sources.folder import FolderSettings, FolderSource
from raykd.data.volume_io import write_nifti
from raykd.numerics.rng import numpy_generator
from raykd.scenario.errors import DataError
from raykd.scenario.registry import SOURCES

SHAPE = (6, 7, 8)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def _image(name: str) -> np.ndarray:
    return numpy_generator(0, "image", name).normal(100, 20, size=SHAPE).astype(np.float32)


def _label() -> np.ndarray:
    """One voxel each of 1, 5, 9 and 200, at known places."""
    label = np.zeros(SHAPE, dtype=np.int16)
    label[0, 0, 0], label[1, 0, 0], label[2, 0, 0], label[3, 0, 0] = 1, 5, 9, 200
    return label


def _write_pairs(root: Path, *names: str) -> None:
    for name in names:
        write_nifti(root / f"data/{name}_t1.nii.gz", _image(name), AFFINE)
        write_nifti(root / f"data/{name}_seg.nii.gz", _label(), AFFINE)


def _source(root: Path, classes: tuple[str, ...] = ("liver", "spleen"), **settings: Any) -> FolderSource:
    block = {"name": "folder", "images": "data/*_t1.nii.gz", "labels": "data/*_seg.nii.gz", **settings}
    return FolderSource(FolderSettings.model_validate_json(json.dumps(block)), classes, 0, "university", root)


def _keys(source: FolderSource) -> list[CaseKey]:
    return source.keys()


def _refused(source: FolderSource, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        for key in _keys(source):
            source.load(key)
    for part in parts:
        assert part in str(caught.value)


def test_folder_is_found_by_its_name() -> None:
    assert SOURCES.get("folder") is FolderSource


def test_pairs_are_cases_named_by_the_wildcard_in_order(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "p2-b", "p1-a", "odd name[1]")
    (tmp_path / "data/notes_t1.txt").write_text("not an image")
    (tmp_path / "data/._p1-a_t1.nii.gz").write_bytes(b"left by macOS")
    source = _source(tmp_path)
    assert [key.case_id for key in _keys(source)] == ["odd name[1]", "p1-a", "p2-b"]
    for key in _keys(source):
        case = source.load(key)
        assert (case.case_id, case.patient_id, case.spacing_mm) == (key.case_id, key.case_id, (1.0, 2.0, 3.0))
        np.testing.assert_array_equal(case.image_CIJK[0].numpy(), _image(key.case_id))
    assert case.record["source.split"] == "by patient"


def test_the_wildcard_may_stand_for_a_folder(tmp_path: Path) -> None:
    for name in ("s1", "s2"):
        write_nifti(tmp_path / f"sub-{name}/t1.nii", _image(name), AFFINE)
        write_nifti(tmp_path / f"sub-{name}/seg.nii", _label(), AFFINE)
    (tmp_path / "sub-s3").mkdir()
    source = _source(tmp_path, images="sub-*/t1.nii", labels="sub-*/seg.nii", patient_pattern="sub-s([0-9])/")
    assert [(key.case_id, key.patient_id) for key in _keys(source)] == [("s1", "1"), ("s2", "2")]


def test_labels_that_the_pattern_of_images_also_matches_are_no_images(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", _image("a"), AFFINE)
    write_nifti(tmp_path / "a_seg.nii.gz", _label(), AFFINE)
    source = _source(tmp_path, images="*.nii.gz", labels="*_seg.nii.gz")
    assert [key.case_id for key in _keys(source)] == ["a"]


def test_patients_come_from_the_pattern_unless_the_unit_is_the_case(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "p1-a", "p1-b", "p2-a")
    pattern = "^(p[0-9]+)-"
    assert [key.patient_id for key in _keys(_source(tmp_path, patient_pattern=pattern))] == ["p1", "p1", "p2"]
    within = _source(tmp_path, patient_pattern=pattern, unit="case")
    assert [key.patient_id for key in _keys(within)] == ["p1-a", "p1-b", "p2-a"]
    assert within.load(within.keys()[0]).record["source.split"] == "within-subject"


def test_a_name_without_a_patient_is_refused(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "p1-a", "x")
    _refused(_source(tmp_path, patient_pattern="^(p[0-9]+)-"), "'x'", "must find a patient", "x_t1.nii.gz")


def test_values_become_classes_in_the_order_of_the_scenario(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "a")
    by_name = {(0, 0, 0): 2, (1, 0, 0): 1, (2, 0, 0): 1}
    for values, want in (({"spleen": [1], "liver": [5, 9]}, by_name), (None, {(0, 0, 0): 1})):
        source = _source(tmp_path, label_values=values)
        label_IJK = source.load(source.keys()[0]).label_IJK
        assert label_IJK is not None and label_IJK.dtype.itemsize == 1
        label = np.zeros(SHAPE, dtype=np.uint8)
        for place, index in want.items():
            label[place] = index
        np.testing.assert_array_equal(label_IJK.numpy(), label)


def test_other_values_are_refused_where_asked(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "a")
    source = _source(tmp_path, label_values={"spleen": [1], "liver": [5]}, other_values="refuse")
    _refused(source, "'a'", "a_seg.nii.gz", "[9, 200]", "other_values: background")


@pytest.mark.parametrize(
    ("values", "part"), [({"spleen": [1]}, "write []"), ({"spleen": [1], "liver": [], "livr": [2]}, "did you mean 'liver'?")]
)
def test_label_values_name_exactly_the_classes(tmp_path: Path, values: dict[str, list[int]], part: str) -> None:
    with pytest.raises(DataError) as caught:
        _source(tmp_path, label_values=values)
    assert part in str(caught.value) and "university" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"images": "data/a.nii"}, "exactly one '*'"),
        ({"labels": "*_*/t1.nii"}, "exactly one '*'"),
        ({"patient_pattern": "p(1"}, "regular expression"),
        ({"patient_pattern": "p1"}, "one group"),
        ({"clip": [5.0, 5.0]}, "low < high"),
        ({"label_values": {"a": [1], "b": [1]}}, "each value once"),
        ({"label_values": {"a": [0]}}, "never 0"),
        ({"unit": "slab"}, "'patient' or 'case'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, settings: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _source(tmp_path, **settings)
    assert part in str(caught.value)


def test_a_pattern_without_a_match_names_itself_and_the_folder(tmp_path: Path) -> None:
    _refused(_source(tmp_path), "university", "'data/*_t1.nii.gz'", str(tmp_path / "data"), "got none")


def test_a_missing_label_file_is_refused_or_an_unlabelled_case(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "a", "b")
    (tmp_path / "data/b_seg.nii.gz").unlink()
    _refused(_source(tmp_path), "'b'", "b_seg.nii.gz", "must have its label file", "allow_unlabelled: true")
    source = _source(tmp_path, allow_unlabelled=True)
    assert [source.load(key).label_IJK is None for key in _keys(source)] == [False, True]
    alone = _source(tmp_path, images="data/b_t1*.gz", labels=None)
    assert [alone.load(key).label_IJK for key in _keys(alone)] == [None]


def test_a_label_without_an_image_is_refused(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "a", "b")
    (tmp_path / "data/b_t1.nii.gz").unlink()
    _refused(_source(tmp_path), "'b'", "b_seg.nii.gz", "must have an image", "data/b_t1.nii.gz")


def test_shape_and_affine_of_a_label_are_those_of_its_image(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "a")
    path = tmp_path / "data/a_seg.nii.gz"
    write_nifti(path, _label()[:, :, 1:], AFFINE)
    _refused(_source(tmp_path), "'a'", "a_seg.nii.gz", "shape (6, 7, 8)", "(6, 7, 7)")
    for entry, wrong in (((0, 0), 1.01), ((2, 3), 1.5), ((0, 1), 0.02)):
        affine = AFFINE.copy()
        affine[entry] = wrong
        write_nifti(path, _label(), affine)
        _refused(_source(tmp_path), "'a'", "a_seg.nii.gz", "image's affine", str(wrong)[:4])
    almost = AFFINE.copy()
    almost[0, 0], almost[2, 3] = 1.0005, 0.001
    write_nifti(path, _label(), almost)
    source = _source(tmp_path)
    assert source.load(source.keys()[0]).label_IJK is not None


def test_a_label_stored_in_another_orientation_is_turned_onto_its_image(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "a")
    turned = nibabel.Nifti1Image(_label().astype(np.uint8), AFFINE).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nibabel.save(turned, tmp_path / "data/a_seg.nii.gz")
    source = _source(tmp_path, label_values={"liver": [5], "spleen": [9]})
    label_IJK = source.load(source.keys()[0]).label_IJK
    assert label_IJK is not None and label_IJK[1, 0, 0] == 1 and label_IJK[2, 0, 0] == 2 and int(label_IJK.sum()) == 3


def test_intensities_are_clipped_and_a_constant_image_is_refused(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "a")
    source = _source(tmp_path, clip=[90.0, 110.0], modality="ct")
    case = source.load(source.keys()[0])
    np.testing.assert_array_equal(case.image_CIJK[0].numpy(), np.minimum(np.maximum(_image("a"), 90), 110))
    assert case.record["source.modality"] == "ct"
    _refused(_source(tmp_path, clip=[1000.0, 2000.0]), "'a'", "a_t1.nii.gz", "must not be constant", "1000.0 everywhere")


def test_files_outside_the_folder_of_the_scenario_need_leave(tmp_path: Path) -> None:
    root = tmp_path / "scenario"
    _write_pairs(tmp_path / "elsewhere", "a")
    (root / "data").mkdir(parents=True)
    (root / "data/a_t1.nii.gz").symlink_to(tmp_path / "elsewhere/data/a_t1.nii.gz")
    outside = {"images": "../elsewhere/data/*_t1.nii.gz", "labels": "../elsewhere/data/*_seg.nii.gz"}
    absolute = {"images": f"{tmp_path}/elsewhere/data/*_t1.nii.gz", "labels": f"{tmp_path}/elsewhere/data/*_seg.nii.gz"}
    for settings in (outside, absolute, {"labels": None}):
        _refused(_source(root, **settings), "'a'", "must lie in the folder", "allow_outside: true")
        assert len(_source(root, **settings, allow_outside=True).keys()) == 1


def test_keys_read_no_voxel(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a_t1", "a_seg"):
        (tmp_path / f"data/{name}.nii.gz").write_bytes(b"broken")
    source = _source(tmp_path)
    assert [key.case_id for key in _keys(source)] == ["a"]
    _refused(source, "'a'", "a_t1.nii.gz", "readable")


def test_the_fingerprint_follows_content_and_settings_but_not_the_place(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        _write_pairs(tmp_path / folder, "a")
    here, there = _source(tmp_path / "here"), _source(tmp_path / "there")
    assert here.fingerprint() == there.fingerprint()
    assert json.loads(json.dumps(here.fingerprint())) == here.fingerprint()
    assert [row[0] for row in here.fingerprint()["files"]["a"]] == ["data/a_t1.nii.gz", "data/a_seg.nii.gz"]
    assert _source(tmp_path / "here", clip=[0.0, 1.0]).fingerprint() != here.fingerprint()
    write_nifti(tmp_path / "here/data/a_t1.nii.gz", _image("other"), AFFINE)
    assert _source(tmp_path / "here").fingerprint() != there.fingerprint()


def test_check_reports_every_bad_case_and_twins(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "a", "b", "c", "d")
    _source(tmp_path).check()
    for name in ("b", "c"):
        path = tmp_path / f"data/{name}_t1.nii.gz"
        path.write_bytes(path.read_bytes()[:-9])
    (tmp_path / "data/d_t1.nii.gz").write_bytes((tmp_path / "data/a_t1.nii.gz").read_bytes())
    with pytest.raises(DataError) as caught:
        _source(tmp_path).check()
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "'b'" in lines[0] and "'c'" in lines[1] and "'d'" in lines[2] and "the bytes of case 'a'" in lines[2]


@pytest.mark.parametrize("name", ["b_T1.nii.gz", "b_t1.NII.GZ", "b_t1.Nii.gz"])
def test_a_file_that_a_pattern_misses_by_case_alone_is_refused(tmp_path: Path, name: str) -> None:
    _write_pairs(tmp_path, "a")
    (tmp_path / "data" / name).touch()
    _refused(_source(tmp_path), name, "'data/*_t1.nii.gz', which counts upper and lower case", "rename it")


def test_upper_case_endings_are_read_as_what_they_are(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "a")
    for kind in ("t1", "seg"):
        (tmp_path / f"data/a_{kind}.nii.gz").rename(tmp_path / f"data/a_{kind}.NII.GZ")
    source = _source(tmp_path, images="data/*_t1.NII.GZ", labels="data/*_seg.NII.GZ")
    source.check()
    np.testing.assert_array_equal(source.load(source.keys()[0]).image_CIJK[0].numpy(), _image("a"))


def test_two_names_of_one_file_are_one_image_and_a_link_into_nothing_is_refused(tmp_path: Path) -> None:
    _write_pairs(tmp_path, "a")
    (tmp_path / "data/b_t1.nii.gz").symlink_to("a_t1.nii.gz")
    _refused(_source(tmp_path, labels=None), "case 'b'", "an image must belong to one case, got that of case 'a' too")
    (tmp_path / "data/b_t1.nii.gz").unlink()
    (tmp_path / "data/b_t1.nii.gz").symlink_to("gone.nii.gz")
    _refused(_source(tmp_path, labels=None), "b_t1.nii.gz", "the file must exist")


def test_accents_may_be_encoded_in_two_ways(tmp_path: Path) -> None:
    """As macOS and Linux write the same name; where both are there, they are two cases."""
    composed, apart = (unicodedata.normalize(form, "ガ") for form in ("NFC", "NFD"))
    write_nifti(tmp_path / apart / f"{apart}_t1.nii.gz", _image("a"), AFFINE)
    write_nifti(tmp_path / apart / f"{composed}_seg.nii.gz", _label(), AFFINE)
    patterns = {"images": f"{composed}/*_t1.nii.gz", "labels": f"{composed}/*_seg.nii.gz"}
    (key,) = _keys(_source(tmp_path, **patterns))
    assert key.case_id == composed and _source(tmp_path, **patterns).load(key).label_IJK is not None
    write_nifti(tmp_path / apart / f"{composed}_t1.nii.gz", _image("b"), AFFINE)
    assert {key.case_id for key in _keys(_source(tmp_path, **patterns, allow_unlabelled=True))} == {composed, apart}


@pytest.mark.slow
def test_real_slabs_are_whole_labelled_and_apart(tmp_path: Path) -> None:
    repository = Path(__file__).parents[2]
    command = [sys.executable, str(repository / "scenarios/real/fetch.py"), str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(repository)}, capture_output=True, text=True, check=False)
    if "could not be fetched" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    num_slabs = {"torso/repository": 5, "torso/ct-site": 3, "torso/mr-site": 3, "vertebra/repository": 9}
    num_slabs |= {f"vertebra/{site}": 3 for site in ("spine-ct-site", "spine-mr-site", "abdomen-mr-site")}
    for folder, num in num_slabs.items():
        patterns = {"images": f"{folder}/*_image.nii.gz", "labels": f"{folder}/*_label.nii.gz"}
        source = _source(tmp_path, **patterns, patient_pattern="^([a-e])-", label_values={"liver": [5], "spleen": [1]})
        source.check()
        keys = source.keys()
        assert len(keys) == num
        cases = [source.load(key) for key in keys]
        for below, above in pairwise(cases):
            if below.patient_id == above.patient_id:
                top = below.affine @ [0, 0, below.shape[2] - 1, 1]
                assert np.linalg.norm((above.affine[:, 3] - top)[:3]) == pytest.approx(3 * below.spacing_mm[2], rel=1e-3)


def test_further_wildcards_stand_for_the_same_name(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        write_nifti(tmp_path / f"brats/{name}/{name}_t1.nii.gz", _image(name), AFFINE)
        write_nifti(tmp_path / f"brats/{name}/{name}_seg.nii.gz", _label(), AFFINE)
    write_nifti(tmp_path / "brats/p3/p1_t1.nii.gz", _image("p3"), AFFINE)
    settings = {"images": "brats/*/*_t1.nii.gz", "labels": "brats/*/*_seg.nii.gz", "patient_pattern": "_?(p[0-9])_t1"}
    source = _source(tmp_path, **settings)
    assert [(key.case_id, key.patient_id) for key in _keys(source)] == [("p1", "p1"), ("p2", "p2")]
    assert source.load(_keys(source)[1]).label_IJK is not None
