"""Calibration: whether a model is as sure as it is right."""

from __future__ import annotations

from raykd.report.blocks import Block
from raykd.report.material import Material

KEY = "calibration"
TITLE = "Whether a model is as sure as it is right"
NEEDS = "predicted probabilities beside classes, which the table of cases does not hold"


def page(material: Material) -> list[Block]:
    """Empty for every run: only the class of a voxel is scored and kept."""
    return []
