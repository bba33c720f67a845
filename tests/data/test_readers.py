"""Whatever a file says of its voxels and their places, every reader gives what an independent one gives, and says no more or less.

Random volumes, poses, types, slopes and units go through the readers of NIfTI, NRRD, MetaImage, DICOM series, DICOM-SEG and .npz.
The other side is nibabel's raw values, SimpleITK's physical points, pydicom's stored values and plain numpy, put together here.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_files import source, write_dicom, write_segmentation
from scipy.spatial.transform import Rotation

from raykd.data.sources._dicom_segmentation import read_segmentation
from raykd.data.sources._dicom_series import read_series
from raykd.data.volume_io import ImageVolume, read_volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
INTEGERS = ("u1", "i1", "u2", "i2", "u4", "i4")
SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
few = settings(max_examples=25, deadline=None, derandomize=True, database=None)

turns = st.tuples(*[st.floats(-1, 1).map(lambda x: round(x, 3))] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
edges_mm = st.tuples(*[st.floats(0.3, 5.0).map(lambda x: round(x, 2))] * 3)
origins = st.tuples(*[st.floats(-200, 200).map(lambda x: round(x, 2))] * 3)
shapes = st.tuples(*[st.integers(2, 5)] * 3)
seeds = st.integers(0, 99)
nifti_scalings = st.sampled_from([(1, 0), (0.5, -20.5), (-2, 7), (0, 3), (np.nan, 0)])
dicom_types = st.sampled_from([("u1", None), ("i1", None), ("u2", 12), ("i2", 12), ("u2", None), ("i2", None), ("i4", None)])
dicom_scalings = st.lists(st.sampled_from([(None, None), (1, 0), (1, -1024), (0.25, -20.5), (-3, 7e4)]), min_size=5, max_size=5)


@st.composite
def grids(draw: Any, mirrored: bool = True) -> tuple[tuple[int, int, int], np.ndarray]:
    """A shape and an affine in RAS+, in any orientation, oblique, mirrored or straight."""
    directions = np.eye(3) if draw(st.booleans()) else Rotation.from_quat(draw(turns)).as_matrix()
    directions = directions[:, list(draw(st.permutations(range(3))))]
    if not mirrored or draw(st.booleans()):
        directions[:, 0] *= np.sign(np.linalg.det(directions))
    affine = np.eye(4)
    affine[:3, :3] = directions * draw(edges_mm)
    affine[:3, 3] = draw(origins)
    return draw(shapes), affine


def stored(dtype: str, shape: tuple[int, ...], seed: int, bits: int | None = None) -> np.ndarray:
    """Values over the whole range of a type, its ends among them."""
    rng, kind = np.random.default_rng(seed), np.dtype(dtype)
    if kind.kind == "b":
        values = rng.random(shape) < 0.5
    elif kind.kind == "f":
        values = rng.normal(scale=1e3, size=shape)
    else:
        width = bits or 8 * kind.itemsize
        low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if kind.kind == "i" else (0, (1 << width) - 1)
        values = rng.integers(low, high, size=shape, endpoint=True)
        values.flat[0], values.flat[-1] = low, high
    return values.astype(kind)


def agree(image: ImageVolume, values: np.ndarray, to_mm: Callable[[tuple[int, ...]], Any]) -> None:
    """The value of every voxel of the other side stands where it lies in RAS+, in an array whose axes run right, front, up."""
    image_CIJK, affine = image
    assert image_CIJK.size == values.size
    assert np.diag(affine).min() > -1e-3  # where two axes are equally near to a direction, either may have it
    scale = max(float(np.abs(values).max()), 1e-30)
    for index in itertools.product(*(range(n) for n in values.shape)):
        place = (np.linalg.inv(affine) @ [*to_mm(index), 1.0])[:3]
        at = np.rint(place).astype(int)
        assert np.abs(place - at).max() < 0.01 and ((at >= 0) & (at < image_CIJK.shape[1:])).all()
        assert image_CIJK[0][tuple(at)] == pytest.approx(float(values[index]), abs=1e-6 * scale)


def affinely(affine: np.ndarray) -> Callable[[tuple[int, ...]], Any]:
    return lambda index: (affine @ [*index, 1.0])[:3]


@given(
    grids(),
    st.sampled_from([*INTEGERS, "i8", "f4", "f8"]),
    nifti_scalings,
    st.sampled_from([0, 1, 2, 3]),
    st.sampled_from([(1, 1), (2, 0), (0, 1)]),
    st.sampled_from([".nii", ".nii.gz"]),
    seeds,
)
@few
def test_nifti(grid: Any, dtype: str, scaling: Any, unit: int, codes: tuple[int, int], suffix: str, seed: int) -> None:
    shape, affine = grid
    unit_mm = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}[unit]
    written = np.diag([1 / unit_mm] * 3 + [1]) @ affine
    raw = stored(dtype, shape, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        made = nibabel.Nifti1Image(raw, None, dtype=raw.dtype)
        made.header.set_data_dtype(raw.dtype)
        made.header.set_qform(written, codes[1])
        made.header.set_sform(written if codes[0] else None, codes[0])
        made.header["pixdim"][1:4] = np.linalg.norm(written[:3, :3], axis=0)
        made.header["xyzt_units"] = unit
        nibabel.save(made, path)
        _set_scaling(path, *scaling)
        slope, intercept = (1, 0) if not scaling[0] or np.isnan(scaling[0]) else scaling
        agree(read_volume(path), raw.astype(np.float64) * slope + intercept, affinely(affine))


def _set_scaling(path: Path, slope: float, intercept: float) -> None:
    """Writes scl_slope and scl_inter over what nibabel wrote, at bytes 112 to 119."""
    import gzip

    raw = bytearray(gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes())
    raw[112:120] = np.array([slope, intercept], dtype="<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)) if path.name.endswith(".gz") else bytes(raw))


@given(
    grids(),
    st.sampled_from([*INTEGERS, "i8", "f4", "f8"]),
    st.sampled_from([".nrrd", ".mha", ".mhd"]),
    st.booleans(),
    st.integers(0, 99),
)
@few
def test_nrrd_and_metaimage(grid: Any, dtype: str, suffix: str, is_compressed: bool, seed: int) -> None:
    shape, affine = grid
    raw = stored(dtype, shape, seed)
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(raw.transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        SimpleITK.WriteImage(image, str(path), is_compressed)
        other = SimpleITK.ReadImage(str(path))
        agree(
            read_volume(path),
            SimpleITK.GetArrayFromImage(other).transpose(2, 1, 0).astype(np.float64),
            lambda index: np.multiply(other.TransformIndexToPhysicalPoint([int(n) for n in index]), (-1, -1, 1)),
        )


def _text(numbers: Any) -> list[str]:
    return [f"{x:.12f}"[:16] for x in np.ravel(numbers)]


@given(grids(mirrored=False), dicom_types, st.sampled_from(SYNTAXES), dicom_scalings, st.booleans(), seeds)
@few
def test_dicom_series(grid: Any, kind: Any, syntax: str, scalings: Any, is_reversed: bool, seed: int) -> None:
    (num_columns, num_rows, num_slices), affine = grid
    lps = LPS @ affine
    edges = np.linalg.norm(lps[:3, :3], axis=0)
    dtype = "i2" if kind[0] == "i4" and syntax == SYNTAXES[2] else kind[0]
    raw = stored(dtype, (num_columns, num_rows, num_slices), seed, kind[1])
    with tempfile.TemporaryDirectory() as folder:
        for k in range(num_slices):
            slope, intercept = scalings[k]
            write_dicom(
                Path(folder) / f"{num_slices - k if is_reversed else k}",
                np.ascontiguousarray(raw[:, :, k].T),
                bits=kind[1],
                syntax=syntax,
                ImageOrientationPatient=_text([lps[:3, 0] / edges[0], lps[:3, 1] / edges[1]]),
                ImagePositionPatient=_text(lps[:3, 3] + k * lps[:3, 2]),
                PixelSpacing=_text([edges[1], edges[0]]),
                RescaleSlope=slope,
                RescaleIntercept=intercept,
            )
        found = [pydicom.dcmread(path) for path in Path(folder).iterdir()]
        normal = np.cross(*np.split(np.array(found[0].ImageOrientationPatient, dtype=float), 2))
        found.sort(key=lambda one: float(np.array(one.ImagePositionPatient, dtype=float) @ normal))
        values = np.stack(
            [one.pixel_array * float(one.get("RescaleSlope", 1)) + float(one.get("RescaleIntercept", 0)) for one in found]
        )

        def to_mm(index: tuple[int, ...]) -> np.ndarray:
            one = found[index[0]]
            row, column = np.split(np.array(one.ImageOrientationPatient, dtype=float), 2)
            between_rows, between_columns = map(float, one.PixelSpacing)
            in_lps = (
                np.array(one.ImagePositionPatient, dtype=float)
                + index[2] * between_columns * row
                + index[1] * between_rows * column
            )
            return in_lps * (-1, -1, 1)

        agree(read_series(Path(folder), "a"), values, to_mm)


@given(grids(mirrored=False), seeds)
@few
def test_dicom_segmentation(grid: Any, seed: int) -> None:
    shape, affine = grid
    oriented = nibabel.io_orientation(affine)
    ras = affine @ nibabel.orientations.inv_ornt_aff(oriented, shape)
    image = np.zeros((1, *nibabel.apply_orientation(np.zeros(shape), oriented).shape), dtype=np.float32), ras
    mask, lps = stored("?", shape, seed), LPS @ affine
    edges = np.linalg.norm(lps[:3, :3], axis=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seg.dcm"
        write_segmentation(
            path,
            {3: ("liver", mask)},
            orientation=_text([lps[:3, 0] / edges[0], lps[:3, 1] / edges[1]]),
            position=lambda k: _text(lps[:3, 3] + k * lps[:3, 2]),
            pixel_spacing=_text([edges[1], edges[0]]),
        )
        values = read_segmentation(path, image)
        agree((values[None].astype(np.float32), ras), 3.0 * mask, affinely(affine))


@given(grids(), st.sampled_from([*INTEGERS, "i8", "f2", "f4", "f8", "?", ">i2", ">f4"]), st.booleans(), seeds)
@few
def test_npz(grid: Any, dtype: str, is_posed: bool, seed: int) -> None:
    shape, affine = grid
    raw = np.stack([stored(dtype, shape, seed), stored(dtype, shape, seed + 1)])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    straight = np.diag([-spacing[0], spacing[1], -spacing[2], 1.0])
    straight[:3, 3] = -straight[:3, :3] @ (np.array(shape) - 1) / 2
    arrays = {"affine": np.stack([affine, affine])} if is_posed else {"spacing_mm": spacing}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "a.npz", images=raw, labels=np.zeros(raw.shape, "u1"), **arrays)
        block = {"name": "npz", "file": "a.npz"} | ({} if is_posed else {"axes": "LAI"})
        made = source(Path(folder), ("liver",), **block)
        case = made.load(made.keys()[1])
        agree((case.image_CIJK.numpy(), case.affine), raw[1].astype(np.float64), affinely(affine if is_posed else straight))
