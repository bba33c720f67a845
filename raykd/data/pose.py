"""Where the voxels of a file lie in space: units, the two poses of a NIfTI header, and how far two grids are apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raykd.data.integrity import DamagedFile

TOLERANCE_MM, TOLERANCE_EDGE = 0.03, 0.03
"""How far apart two grids that count as one may lie at any corner of a volume: in mm, and as a share of the smallest voxel edge."""
SAME_SPACING = 0.005
"""The difference of two spacings, relative to one of them, above which they are two and not one that was rounded."""
SHEAR_EDGE = 0.25
"""How far a volume's corner may lie from that of the nearest volume with right angles, as a share of the smallest voxel edge."""
NIFTI_UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""By the code of xyzt_units: unknown (taken for mm), metre, mm, micron."""
UNITS_MM = {"": 1.0, "?": 1.0, "mm": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "µm": 0.001, "microns": 0.001}
"""Of NRRD and MetaImage files."""
NRRD_SPACES = ("right-anterior-superior", "ras", "left-anterior-superior", "las", "left-posterior-superior", "lps")
"""Spaces of an NRRD file that say which way a patient's right, front and head are."""

Affine = NDArray[np.float64]
Told = tuple[str, str]
"""What is unusual of a file, in words that hold for every such file, and what is written in this one."""


def distance_mm(one: Affine, other: Affine, shape: tuple[int, ...]) -> float:
    """The largest distance between the places that two affines give to a corner voxel of a volume, and so to any voxel of it."""
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, n - 1) for n in shape[:3]))], dtype=np.float64)
    return float(np.linalg.norm(corners @ (one - other)[:3].T, axis=1).max())


def tolerance_mm(affine: Affine) -> float:
    """How far apart two grids may lie that count as one, the smaller of 0.03 mm and 3 % of the smallest voxel edge."""
    return min(TOLERANCE_MM, TOLERANCE_EDGE * float(np.linalg.norm(affine[:3, :3], axis=0).min()))


def check_right_angles(affine: Affine, shape: tuple[int, ...]) -> None:
    """Raises `DamagedFile` where the axes of a volume do not meet at right angles, as those of a tilted gantry or of an affine
    registration: its voxels are no boxes, and their edges give no volume.
    """
    edges_mm = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / edges_mm)
    nearest = affine.copy()
    nearest[:3, :3] = left @ right * edges_mm
    off_mm, limit_mm = distance_mm(affine, nearest, shape), SHEAR_EDGE * float(edges_mm.min())
    if off_mm > limit_mm:
        surplus = float(np.prod(edges_mm)) / abs(float(np.linalg.det(affine[:3, :3]))) - 1
        raise DamagedFile(
            f"the axes of a volume must meet at right angles, to within {limit_mm:.2g} mm at its corners",
            f"{off_mm:.2f} mm; the edges of its voxels would give volumes {100 * surplus:.1f} % too large",
            "resample it to a grid of right angles",
        )


def nifti_affine(header: Any, shape: tuple[int, ...]) -> tuple[Affine, list[Told]]:
    """The affine of a NIfTI header in mm, and what a user should know of it.

    The sform counts where its code is above 0, else the qform, else the voxel edges alone.

    Args:
        header: of nibabel.
        shape: along I, J, K.

    Raises:
        DamagedFile: the unit is none of length; sform and voxel edges differ in spacing; sform and qform mirror one another.
    """
    scale, notes = np.diag([*[nifti_unit_mm(header)] * 3, 1.0]), list[Told]()
    (sform, has_sform), (qform, has_qform) = _sform(header), _qform(header)
    told = f"sform {_text(sform, has_sform)}, qform {_text(qform, has_qform)}"
    if has_sform:
        _check_poses(header, sform, qform if has_qform else None, told)
        notes += _sform_notes(header, sform, has_qform, shape)
    if has_sform and has_qform and (off := distance_mm(scale @ sform, scale @ qform, shape)) > tolerance_mm(scale @ sform):
        notes.append(("sform and qform differ, and the sform counts", f"{off:.1f} mm apart, {told}"))
    if not has_sform and not has_qform:
        notes.append(("the pose is not known, and the axes are taken to run to the left, to the front and upwards", told))
    if unit := {1: "metre", 3: "micron"}.get(int(header["xyzt_units"]) & 7):
        notes.append(("the unit of length is not the millimetre, and is read as it is", unit))
    affine = sform if has_sform else qform if has_qform else header.get_base_affine()
    return scale @ np.asarray(affine, dtype=np.float64), notes


def nifti_unit_mm(header: Any) -> float:
    """The unit of length of a NIfTI header in mm. Raises `DamagedFile` where it is none of length."""
    code = int(header["xyzt_units"]) & 7
    if code not in NIFTI_UNITS_MM:
        raise DamagedFile("xyzt_units must be metre, mm or micron", f"code {code}", "set the unit of length of the file")
    return NIFTI_UNITS_MM[code]


def _sform(header: Any) -> tuple[Affine, bool]:
    return np.asarray(header.get_sform(), dtype=np.float64), int(header["sform_code"]) > 0


def _qform(header: Any) -> tuple[Affine, bool]:
    try:
        return np.asarray(header.get_qform(), dtype=np.float64), int(header["qform_code"]) > 0
    except ValueError as error:
        if int(header["qform_code"]) > 0 and int(header["sform_code"]) <= 0:
            raise DamagedFile("the qform must be a rotation", str(error), "set the qform of the file") from None
        return np.full((4, 4), np.nan), False


def _check_poses(header: Any, sform: Affine, qform: Affine | None, told: str) -> None:
    """Raises `DamagedFile` where a header holds two spacings, or two handednesses."""
    hint = "find out which of the two is right, and write it to both"
    edges, written = _spacings(header, sform)
    if (np.abs(edges - written) > SAME_SPACING * edges).any() and np.linalg.matrix_rank(sform[:3, :3]) == 3:
        got = f"{edges.round(4).tolist()} and {written.round(4).tolist()}; {told}"
        raise DamagedFile("spacing must be the same in sform and pixdim", got, hint)
    if qform is not None and np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        raise DamagedFile("sform and qform must not mirror one another", told, hint)


def _sform_notes(header: Any, sform: Affine, has_qform: bool, shape: tuple[int, ...]) -> Iterator[Told]:
    """What in a header does not agree with its sform, and counts for nothing, where its qform does not tell."""
    edges, written = _spacings(header, sform)
    if int(header["qform_code"]) > 0 and not has_qform:
        yield "the qform is no rotation, and the sform counts", f"quaternion {[float(header[f'quatern_{axis}']) for axis in 'bcd']}"
    elif not has_qform and np.abs(edges - written).max() * max(shape) > tolerance_mm(sform):
        got = f"{edges.round(4).tolist()} and {written.round(4).tolist()}"
        yield "spacings of sform and pixdim differ as by rounding, and the sform counts", got


def _spacings(header: Any, sform: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The voxel edges of an sform, and those that stand in the header."""
    return np.linalg.norm(sform[:3, :3], axis=0), np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))


def _text(affine: Affine, is_set: bool) -> str:
    return f"{'' if is_set else '(code 0) '}{affine[:3].round(3).tolist()}"


def itk_unit_mm(name: str, fields: Mapping[str, str]) -> float:
    """The unit of length of an NRRD or MetaImage file in mm, 1 where it names none: ITK reads past it.

    Args:
        name: of the file.
        fields: of its header.

    Raises:
        DamagedFile: the unit is unknown, or not that of every axis; an axis has no direction; intensities are written as a
            function of voxels.
    """
    if not name.endswith(".nrrd"):
        slope, offset = (fields.get(f"elementtointensityfunction{part}", "") for part in ("slope", "offset"))
        if slope not in ("", "1", "1.0") or offset not in ("", "0", "0.0"):
            got = f"ElementToIntensityFunction with slope {slope!r} and offset {offset!r}"
            raise DamagedFile("voxels must be intensities", got, "write the file with both applied")
        written = fields.get("distanceunits", "")
    elif fields.get("space directions", "(((").count("(") < 3:
        raise DamagedFile("every axis must have a direction in space", fields["space directions"], "save one volume a file")
    else:
        written = fields.get("space units") or fields.get("units") or ""
    units = {part.strip().lower() for part in (written.split('"')[1::2] if '"' in written else [written])} - {""} or {""}
    if len(units) > 1 or not units <= set(UNITS_MM):
        raise DamagedFile("the axes of a volume must have one unit of length", written, "write it in mm")
    return UNITS_MM[units.pop()]


def itk_notes(name: str, fields: Mapping[str, str]) -> list[Told]:
    """What a user should know of the pose of an NRRD or MetaImage file."""
    if name.endswith(".nrrd"):
        space = fields.get("space", "none").lower()
        is_known, got = space in NRRD_SPACES and "space directions" in fields, f"space {space}"
    else:
        is_known = any(key in fields for key in ("transformmatrix", "rotation", "orientation"))
        got = f"AnatomicalOrientation {fields.get('anatomicalorientation', 'none')}, no TransformMatrix"
    unknown = ("the pose is not known, and the axes are taken to run to the left, to the back and upwards", got)
    unit_mm = itk_unit_mm(name, fields)
    other_unit = ("the unit of length is not the millimetre, and is read as it is", f"{unit_mm:g} mm")
    return [*([] if is_known else [unknown]), *([] if unit_mm == 1 else [other_unit])]
