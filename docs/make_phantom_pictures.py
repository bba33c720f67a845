"""Draws docs/images/phantoms.png, every anatomy and protocol of the phantom: `python docs/make_phantom_pictures.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from raykd.data.phantom.families import FAMILIES
from raykd.data.phantom.family import Family, Profile
from raykd.numerics.rng import numpy_generator

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PLANE = {"knee": 0, "abdomen_ct": 2, "cardiac_mr": 2, "ultrasound": 2, "casting_ct": 1}
"""The axis that each picture looks along."""
SEED = {"knee": 2, "abdomen_ct": 1, "cardiac_mr": 1, "ultrasound": 2, "casting_ct": 6}
NUM_COLUMNS = 7


def window(anatomy: str, image: np.ndarray) -> tuple[float, float]:
    """Black and white: the usual window of an abdomen, else what the image spans."""
    low, high = (-140.0, 240.0) if anatomy == "abdomen_ct" else np.percentile(image, (0.5, 99.7)).tolist()
    return low, high


def row(axes: np.ndarray, anatomy: str, family: Family) -> None:
    """Labels over the first protocol, then every protocol."""
    profile = Profile(severity=0.8, kl_grades=(1,) if family.has_grades else None, side="right" if family.has_sides else None)
    subject = family.draw(numpy_generator(SEED[anatomy], "picture"), profile)
    shape = tuple(round(edge / spacing) for edge, spacing in zip(family.field_of_view_mm, family.spacing_mm, strict=True))
    plane = PLANE[anatomy]
    height, width = [spacing for axis, spacing in enumerate(family.spacing_mm) if axis != plane][::-1]
    for column, protocol in enumerate((family.protocols[0], *family.protocols)):
        image, label = family.scan(subject, protocol, shape, family.spacing_mm, numpy_generator(SEED[anatomy], "picture-scan"))  # type: ignore[arg-type]
        if column == 0:
            counts = [
                (np.take(label, n, plane) > 0).sum() + 5000 * len(np.unique(np.take(label, n, plane))) for n in range(shape[plane])
            ]
            middle = int(np.argmax(counts)) if anatomy != "knee" else shape[0] // 2 - 16
        low, high = window(anatomy, image)
        axes[column].imshow(np.take(image, middle, plane).T, "gray", origin="lower", vmin=low, vmax=high, aspect=height / width)
        if column == 0:
            shown = np.ma.masked_equal(np.take(label, middle, plane).T, 0)
            axes[0].imshow(
                shown, "tab20", origin="lower", vmin=1, vmax=12, alpha=0.6, aspect=height / width, interpolation="nearest"
            )
        axes[column].set_title(anatomy if column == 0 else protocol, fontsize=8)


def main() -> None:
    """All anatomies, one below the other."""
    figure, axes = plt.subplots(len(FAMILIES), NUM_COLUMNS, figsize=(12.6, 8.6))
    for line, (anatomy, family) in zip(axes, FAMILIES.items(), strict=True):
        row(line, anatomy, family)
    for axis in axes.ravel():
        axis.axis("off")
    figure.tight_layout(pad=0.4)
    figure.savefig(Path(__file__).parent / "images" / "phantoms.png", dpi=80)


if __name__ == "__main__":
    main()
