"""Writes docs/images/shifts.png, one slice of one phantom knee under every shift: `python docs/make_shift_pictures.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from raykd.data.case import Case
from raykd.data.heterogeneity.annotator import annotate
from raykd.data.heterogeneity.label_budget import limit_classes, limit_slices
from raykd.data.heterogeneity.resolution import Resolution, ResolutionSettings
from raykd.data.heterogeneity.scanner import ScannerSettings, ScannerShift
from raykd.data.sources._base import CaseKey
from raykd.scenario.registry import SOURCES
from raykd.scenario.scanner_profiles import SCANNER_PROFILES
from raykd.scenario.sites import LabelNoise

CLASSES = ("femoral_cartilage", "tibial_cartilage", "patellar_cartilage")
SITE, SEED, COLUMNS = "docs", 11, 5
LATERAL_MM = 20.0
"""How far from the middle of the knee the slice lies."""


def phantom() -> Case:
    """A knee on a grid fine enough to be made coarser."""
    source_class = SOURCES.get("phantom")
    block = {"name": "phantom", "protocol": "dess_we", "num_cases": 1, "spacing_mm": (1.0, 0.6, 0.6)}
    source = source_class(source_class.Settings(**block), CLASSES, SEED, SITE, Path())
    keys: list[CaseKey] = source.keys()
    case: Case = source.load(keys[0])
    return case


def grid(case: Case, **settings: Any) -> Case:
    """The case on another grid."""
    return Resolution(ResolutionSettings(**settings), SEED, SITE).apply(case)


def scan(case: Case, **settings: Any) -> Case:
    """The case from another scanner."""
    return ScannerShift(ScannerSettings(**settings), SEED, SITE).apply(case)


def images(case: Case) -> dict[str, Case]:
    """The image by the settings that made it."""
    pictures = {
        "source, 1 × 0.6 × 0.6 mm": case,
        "spacing_mm: 2.5": grid(case, spacing_mm=2.5),
        "spacing_mm: [6, null, null]": grid(case, spacing_mm=(6.0, None, None)),
        "… slice_profile: gaussian": grid(case, spacing_mm=(6.0, None, None), slice_profile="gaussian"),
        "matrix: [80, 80]": grid(case, matrix=(80, 80)),
        "field_of_view_mm: [null, 90, 90]": grid(case, field_of_view_mm=(None, 90.0, 90.0)),
        "noise: 0.3": scan(case, noise=0.3),
        "bias_field: 0.5": scan(case, bias_field=0.5),
        "contrast: 1": scan(case, contrast=1.0),
        "gamma: [2, 2]": scan(case, gamma=(2.0, 2.0)),
        "blur_mm: 1.2": scan(case, blur_mm=1.2),
        "motion: 3": scan(case, motion=3, motion_degrees=5.0, motion_mm=5.0),
        "ghosting: 0.6": scan(case, ghosting=0.6),
        "spike: 1": scan(case, spike=1.0),
        "noise: 0.02, field_strength_t: 0.1": scan(case, noise=0.02, field_strength_t=0.1),
    }
    profiles = [name for name in SCANNER_PROFILES if not name.startswith("ct_")]
    return pictures | {f"profile: {name}": scan(case, profile=name) for name in profiles}


def labels(case: Case) -> dict[str, Case]:
    """The label map by the settings that made it."""

    def drawn(**noise: float) -> Case:
        return annotate(case, LabelNoise(**noise), seed=SEED, site=SITE)

    return {
        "labels of the source": case,
        "noise: {bias_mm: 1}": drawn(bias_mm=1.0),
        "noise: {bias_mm: -0.5}": drawn(bias_mm=-0.5),
        "noise: {boundary_mm: 1}": drawn(boundary_mm=1.0),
        "noise: {missing: 0.5}": drawn(missing=0.5),
        "classes: [tibial_cartilage]": limit_classes(case, CLASSES, ["tibial_cartilage"]),
        "slices: 0.2 (grey: unknown)": limit_slices(grid(case, spacing_mm=(3.0, None, None)), 0.2),
    }


def sagittal(case: Case, volume: np.ndarray) -> np.ndarray:
    """The slice `LATERAL_MM` from the middle, head up and front to the left."""
    index = round(float(np.linalg.solve(case.affine, [LATERAL_MM, 0.0, 0.0, 1.0])[0]))
    return np.asarray(volume[index].T[::-1, ::-1])


def coronal(case: Case, volume: np.ndarray) -> np.ndarray:
    """The middle coronal slice, which cuts across sagittal slices, head up."""
    return np.asarray(volume[:, int(volume.shape[1] * 0.55)].T[::-1])


def draw(axes: Any, title: str, case: Case, is_label: bool) -> None:
    """One picture; labels lie over the image."""
    is_across = "slices" in title
    cut = coronal if is_across else sagittal
    column_mm, row_mm = case.spacing_mm[0 if is_across else 1], case.spacing_mm[2]
    image = cut(case, case.image_CIJK[0].numpy())
    low, high = np.quantile(case.image_CIJK.numpy(), [0.01, 0.995])
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=row_mm / column_mm, interpolation="nearest")
    if is_label and case.label_IJK is not None:
        label = cut(case, case.label_IJK.numpy()).astype(int)
        colours = np.zeros((256, 4))
        colours[1:4] = [(0.9, 0.25, 0.2, 0.75), (0.2, 0.6, 1.0, 0.75), (1.0, 0.8, 0.1, 0.75)]
        colours[255] = (0.6, 0.6, 0.6, 0.6)
        axes.imshow(colours[label], aspect=row_mm / column_mm, interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def main() -> None:
    """Draws all and writes the file."""
    case = phantom()
    pictures = [(title, shown, False) for title, shown in images(case).items()]
    pictures += [(title, shown, True) for title, shown in labels(case).items()]
    rows = -(-len(pictures) // COLUMNS)
    figure, all_axes = plt.subplots(rows, COLUMNS, figsize=(2.4 * COLUMNS, 2.6 * rows), layout="constrained")
    for axes in all_axes.flat:
        axes.set_axis_off()
    for axes, (title, shown, is_label) in zip(all_axes.flat, pictures, strict=False):
        draw(axes, title, shown, is_label)
    figure.savefig(Path(__file__).parent / "images" / "shifts.png", dpi=80)


if __name__ == "__main__":
    main()
