"""Where the voxels of a scan lie in a knee: x medial, y anterior, z superior."""

from __future__ import annotations

from raykd.data.phantom.grid import Grid, Pose
from raykd.data.phantom.implicit import Vector
from raykd.data.phantom.knee.population import Subject

CENTRE_MM = (0.0, 6.0, 9.0)
"""Body point (x, y, z) at the centre of a scan of an average subject."""


class KneeGrid(Grid):
    """The voxels of a scan, seen from the leg of a subject."""

    def __init__(self, subject: Subject, shape: tuple[int, int, int], spacing_mm: Vector):
        self.subject = subject
        pose = Pose(
            scale=subject.scale,
            shift_mm=subject.shift_mm,
            rotation_deg=subject.rotation_deg,
            texture_seed=subject.texture_seed,
            aspect=subject.ml_aspect,
            is_mirrored=subject.side == "right",  # the right knee's medial side is to the patient's left
            centre_mm=CENTRE_MM,
        )
        super().__init__(pose, shape, spacing_mm)
