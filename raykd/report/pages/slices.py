"""What it looks like: slices of test cases to scroll through, with outlines."""

from __future__ import annotations

from raykd.report.blocks import Block, Outlines, Text
from raykd.report.material import Material

KEY = "slices"
TITLE = "What it looks like"
NEEDS = "slices of test cases; set evaluation.previews to 1 or more"


def page(material: Material) -> list[Block]:
    """A viewer a case, under one set of switches."""
    viewers = material.viewers
    if not viewers:
        return []
    radiological = " and radiological orientation" if material.evidence.has_bodies else ""
    words = (
        f"Slices across the coarsest axis, on each site's own voxels in true proportion{radiological}; the bar is 20 mm. Scroll "
        "with the slider, the wheel over a picture, or the arrow keys. Each structure has a colour and a line of its own. The "
        "reference is filled, the model is a thick line, the teacher is dotted."
    )
    labels = tuple(dict.fromkeys(label for viewer in viewers for label in viewer.labels))
    return [Text(words), Outlines(labels, material.structures), *viewers]
