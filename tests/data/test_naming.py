"""Which patterns files follow is told from their names, in miniatures of the layouts that collections have."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from raykd.data.layouts import guess_layout
from raykd.data.naming import naming_of, volumes_below

CASES = ("001", "002", "003", "004")
TWO = CASES[:2]
BRATS = ("t1", "t1ce", "t2", "flair", "seg")


def files(pattern: str, kinds: tuple[str, ...] = ("",), cases: tuple[str, ...] = CASES) -> list[str]:
    """`pattern` with every kind and every case, which it names `{k}` and `{c}`."""
    return [pattern.format(c=case, k=kind) for case in cases for kind in kinds]


LAYOUTS = {
    "a folder a patient, its name again in its files": (
        files("BraTS_{c}/BraTS_{c}_{k}.nii.gz", BRATS),
        ("*/*_t1.nii.gz", "*/*_seg.nii.gz", ["*/*_t2.nii.gz", "*/*_t1ce.nii.gz", "*/*_flair.nii.gz"]),
    ),
    "one such patient": (
        files("BraTS_{c}/BraTS_{c}_{k}.nii.gz", BRATS, ("001",)),
        ("*/*_t1.nii.gz", "*/*_seg.nii.gz", ["*/*_t2.nii.gz", "*/*_t1ce.nii.gz", "*/*_flair.nii.gz"]),
    ),
    "kinds in folders of their own": (
        files("{k}/{c}.nii.gz", ("flair", "seg", "t1")),
        ("t1/*.nii.gz", "seg/*.nii.gz", ["flair/*.nii.gz"]),
    ),
    "two labels each": (
        files("sub-{c}_run-1_T2starw{k}.nii.gz", ("", "_gmseg-manual", "_seg-manual")),
        ("*_run-1_T2starw.nii.gz", "*_run-1_T2starw_seg-manual.nii.gz", ["*_run-1_T2starw_gmseg-manual.nii.gz"]),
    ),
    "lab": (files("{c}{k}.nii.gz", ("", "_lab")), ("*.nii.gz", "*_lab.nii.gz", [])),
    "mask": (files("{c}_{k}.nii.gz", ("scan", "mask")), ("*_scan.nii.gz", "*_mask.nii.gz", [])),
    "words that come first": (files("{k}{c}.nii.gz", ("img", "lab")), ("img*.nii.gz", "lab*.nii.gz", [])),
    "words that come first, set off": (files("{k}_{c}.nrrd", ("image", "mask")), ("image_*.nrrd", "mask_*.nrrd", [])),
    "three machines": (files("P{c}_{k}.nii.gz", ("MR", "CT", "PET")), ("*_CT.nii.gz", None, ["*_MR.nii.gz", "*_PET.nii.gz"])),
    "one patient in three machines": (
        files("P{c}_{k}.nii.gz", ("MR", "CT", "PET"), ("001",)),
        ("*_CT.nii.gz", None, ["*_MR.nii.gz", "*_PET.nii.gz"]),
    ),
    "three machines in a folder a patient": (
        files("P{c}/{k}.nii.gz", ("MR", "CT", "PET"), TWO),
        ("*/CT.nii.gz", None, ["*/MR.nii.gz", "*/PET.nii.gz"]),
    ),
    "three machines, a folder each": (
        files("{k}/P{c}.nii.gz", ("MR", "CT", "PET"), TWO),
        ("CT/*.nii.gz", None, ["MR/*.nii.gz", "PET/*.nii.gz"]),
    ),
    "two visits": (
        files("{c}/{k}.nii.gz", ("v1/t1", "v1/seg", "v2/t1", "v2/seg")),
        ("*/v1/t1.nii.gz", "*/v1/seg.nii.gz", ["*/v2/t1.nii.gz", "*/v2/seg.nii.gz"]),
    ),
    "two sides": (files("{c}_{k}.nii.gz", ("left_t1", "left_seg", "right_t1", "right_seg")), ("*_t1.nii.gz", "*_seg.nii.gz", [])),
    "deep": (
        files("data/{c}/anat/{c}_T1w{k}.nii.gz", ("", "_label-tumor_mask")),
        ("data/*/anat/*_T1w.nii.gz", "data/*/anat/*_T1w_label-tumor_mask.nii.gz", []),
    ),
    "a collection beside another": (
        files("{k}/a{c}.nii.gz", ("north_t1", "north_seg")) + files("{k}/{c}.nii.gz", ("south_t1", "south_seg"), TWO),
        ("north_t1/*.nii.gz", "north_seg/*.nii.gz", ["south_t1/*.nii.gz", "south_seg/*.nii.gz"]),
    ),
    "some labelled": (files("img/{c}.nii.gz") + files("msk/{c}.nii.gz", cases=TWO), ("img/*.nii.gz", "msk/*.nii.gz", [])),
    "files of macOS": (files("{k}{c}_t1.nii.gz", ("", "._")), ("*_t1.nii.gz", None, [])),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_patterns_are_told_from_names(layout: str, tmp_path: Path) -> None:
    names, (images, labels, others) = LAYOUTS[layout]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = naming_of(tmp_path, volumes_below(tmp_path, 5))
    assert (found.images, found.labels, [pattern for pattern, _ in found.others]) == (images, labels, others)
    assert found.num_left == 0


@pytest.mark.parametrize(
    ("names", "block"),
    [
        (files("P{c}/{k}.dcm", ("CT/1", "CT/2", "MR/1", "MR/2", "PET/1", "PET/2")), {"images": "*/CT"}),
        (files("P{c}_{k}.dcm", ("CT/1", "CT/2", "MR/1", "MR/2")), {"images": "*_CT"}),
        (files("P{c}/{k}.dcm", ("CT/1", "CT/2", "SEG/1")), {"images": "*/CT", "labels": "*/SEG/1.dcm"}),
    ],
)
def test_folders_of_series_follow_patterns_too(names: list[str], block: dict[str, str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert guess_layout(tmp_path).block == {"name": "dicom"} | {key: f"{tmp_path}/{pattern}" for key, pattern in block.items()}


def test_labels_without_a_word_are_told_by_their_voxels_and_go_with_the_image_that_they_are_named_after(tmp_path: Path) -> None:
    rng, labels = np.random.default_rng(0), np.zeros((6, 6, 6), np.uint8)
    labels[1:5, 1:5, 1:5], labels[3:5, 1:5, 1:5] = 47, 48
    for case in CASES:
        for kind in ("FLAIR", "T1"):
            nibabel.save(
                nibabel.Nifti1Image(rng.integers(0, 2000, (6, 6, 6)).astype(np.int16), np.eye(4)),
                tmp_path / f"{case}_{kind}.nii.gz",
            )
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / f"{case}_T1_DLMUSE.nii.gz")
    guess = guess_layout(tmp_path)
    assert str(guess) == (
        "guessed: --images '*_T1.nii.gz' --labels '*_T1_DLMUSE.nii.gz'; "
        "not read: *_FLAIR.nii.gz (4 files), to be chosen with --images and --labels"
    )
