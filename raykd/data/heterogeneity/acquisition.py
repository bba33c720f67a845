"""How one scan was made, and the image that it makes: contrast, coil, point spread, motion, ghosts, spikes, noise and gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from raykd.data.case import Case
from raykd.numerics.intensity import clip_limits
from raykd.scenario.errors import DataError

if TYPE_CHECKING:
    import torchio

BIAS_ORDER = 3
BIAS_POWERS = [powers for powers in product(range(BIAS_ORDER + 1), repeat=3) if sum(powers) <= BIAS_ORDER]
"""Powers of (i, j, k) of each coefficient of the bias field, in TorchIO's order."""
AIR = 0.1
"""Intensities scaled to [0, 1] up to this are air, which every contrast map leaves as it is: its noise is not to be stretched."""
CONTRAST_KNOTS = (0.3, 0.5, 0.75, 1.0)
"""Where a contrast map is drawn, on the same scale."""
SIGNED = 0.05
"""Values below minus this share of the largest make an image signed; smaller ones are what interpolation leaves in a magnitude."""


@dataclass(frozen=True)
class Movement:
    """The patient moves at `time` (0 to 1 of the scan) and stays there until the next movement."""

    time: float
    degrees: tuple[float, float, float]
    translation_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Acquisition:
    """How one scan was made; the neutral values change nothing.

    Attributes:
        contrast: how far intensities follow the map, 0 to 1.
        contrast_map: the map's values at `CONTRAST_KNOTS`, the largest 1; up to `AIR` it is the identity.
        gamma: exponent on intensities scaled to [0, 1].
        blur_mm: standard deviation of the point spread.
        bias_field: one coefficient for each of `BIAS_POWERS`, in log intensity; empty: none.
        ghosting: intensity of the ghosts, 0 to 1.
        num_ghosts: number of them.
        phase: which of the two finest axes is the phase axis, 0 or 1.
        spike: height of a false sample of k-space over the largest true one.
        spike_position: where it lies in k-space, each coordinate in [0, 1) with the centre at 1/2.
        noise: standard deviation of the noise, in units of the image's own.
        movements: by time.
        gain: factor on the image.
    """

    contrast: float = 0.0
    contrast_map: tuple[float, ...] = ()
    gamma: float = 1.0
    blur_mm: float = 0.0
    bias_field: tuple[float, ...] = ()
    ghosting: float = 0.0
    num_ghosts: int = 4
    phase: int = 0
    noise: float = 0.0
    movements: tuple[Movement, ...] = ()
    spike: float = 0.0
    spike_position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gain: float = 1.0

    @property
    def is_neutral(self) -> bool:
        """Whether images stay as they are."""
        return self == Acquisition(num_ghosts=self.num_ghosts, phase=self.phase)

    @property
    def only_for_magnitudes(self) -> list[str]:
        """The settings in use that mean nothing where 0 is not the absence of signal."""
        in_use = {"bias_field": bool(self.bias_field), "contrast": self.contrast > 0, "intensity_scale": self.gain != 1.0}
        return [name for name, is_used in in_use.items() if is_used]

    def record(self) -> dict[str, float | str]:
        """By dotted name: scanner.noise, scanner.bias_field.coefficients.012 (powers of i, j, k), scanner.motion.0.time ..."""
        named: dict[str, float | str] = {"scanner.gamma": self.gamma, "scanner.blur_mm": self.blur_mm, "scanner.noise": self.noise}
        if self.contrast:
            named["scanner.contrast"] = self.contrast
            named |= {f"scanner.contrast_map.{at}": value for at, value in zip(CONTRAST_KNOTS, self.contrast_map, strict=True)}
        if self.gain != 1.0:
            named["scanner.gain"] = self.gain
        if self.spike:
            named["scanner.spike"] = self.spike
            named |= {f"scanner.spike.{axis}": at for axis, at in zip("ijk", self.spike_position, strict=True)}
        if self.bias_field:
            for (i, j, k), value in zip(BIAS_POWERS, self.bias_field, strict=True):
                named[f"scanner.bias_field.coefficients.{i}{j}{k}"] = value
        if self.ghosting:
            named |= {
                "scanner.ghosting": self.ghosting,
                "scanner.num_ghosts": float(self.num_ghosts),
                "scanner.phase": float(self.phase),
            }
        for index, movement in enumerate(self.movements):
            named[f"scanner.motion.{index}.time"] = movement.time
            for axis, degrees, mm in zip("ijk", movement.degrees, movement.translation_mm, strict=True):
                named |= {f"scanner.motion.{index}.{axis}_degrees": degrees, f"scanner.motion.{index}.{axis}_mm": mm}
        return named


def acquire(case: Case, scan: Acquisition, rng: torch.Generator) -> Tensor:
    """The image (C, I, J, K) as `scan` would have recorded it.

    Args:
        case: its image is taken as a magnitude if no value is negative; noise is then Rician, and Gaussian otherwise.
        scan: the parameters.
        rng: of the noise alone.

    Raises:
        DataError: the image has values well below 0, and the scan a factor or map that only a magnitude can have.

    Source:
        Rician noise: Gudbjartsson and Patz, Magnetic Resonance in Medicine 1995, https://doi.org/10.1002/mrm.1910340618
    """
    import torchio

    image_CIJK = case.image_CIJK
    if scan.only_for_magnitudes and float(image_CIJK.min()) < -SIGNED * float(image_CIJK.max()):
        raise DataError(
            f"case {case.case_id}: scanner {', '.join(scan.only_for_magnitudes)} must be left out for images with negative values, "
            f"got values down to {float(image_CIJK.min()):g}; noise, blur_mm, gamma and motion can be had for CT"
        )
    is_magnitude, noise = bool(image_CIJK.min() >= 0), scan.noise * float(image_CIJK.std())
    if scan.contrast:
        image_CIJK = with_contrast(image_CIJK, scan.contrast, scan.contrast_map)
    if scan.gamma != 1.0:
        image_CIJK = _with_gamma(image_CIJK, scan.gamma)
    if scan.bias_field:
        image_CIJK = image_CIJK * bias_field(case.shape, scan.bias_field)
    subject = torchio.Subject(image=torchio.ScalarImage(tensor=image_CIJK, affine=case.affine))
    for transform in _transforms(case, scan):
        # Not called as transform(subject): that draws from PyTorch's global generator.
        subject = transform.apply_transform(subject)
    image_CIJK = subject["image"].data.float()
    image_CIJK = image_CIJK + noise * torch.randn(image_CIJK.shape, generator=rng)
    if is_magnitude:
        image_CIJK = torch.hypot(image_CIJK, noise * torch.randn(image_CIJK.shape, generator=rng))
    return image_CIJK if scan.gain == 1.0 else scan.gain * image_CIJK


def bias_field(shape: tuple[int, int, int], coefficients: Sequence[float]) -> Tensor:
    """The factor (I, J, K) of each voxel: the exponential of a polynomial of coordinates that run from -1 to 1.

    Equal to `torchio.BiasField`'s of order 3, which takes forty times as long because it builds every monomial on the full grid.

    Args:
        shape: of the image.
        coefficients: one for each of `BIAS_POWERS`.

    Source:
        Van Leemput et al., IEEE Transactions on Medical Imaging 18(10), 1999; Sudre et al., NiftyNet; TorchIO.
    """
    cube = np.zeros((BIAS_ORDER + 1,) * 3)
    cube[tuple(zip(*BIAS_POWERS, strict=True))] = coefficients
    i, j, k = ((np.arange(n) - (n - 1) / 2) / max((n - 1) / 2, 0.5) for n in shape)
    return torch.from_numpy(np.exp(np.polynomial.polynomial.polygrid3d(i, j, k, cube)).astype(np.float32))


def with_contrast(image_CIJK: Tensor, strength: float, contrast_map: Sequence[float]) -> Tensor:
    """Intensities through a mixture of the identity and a smooth curve between its knots (Fritsch and Carlson's monotone cubic
    pieces, so that it overshoots none of them); those above the 99.5th percentile keep their distance to it.

    Args:
        image_CIJK: a magnitude.
        strength: share of the curve in the mixture, 0 to 1.
        contrast_map: as in `Acquisition`.
    """
    low, top = float(image_CIJK.min()), float(np.quantile(image_CIJK.numpy(), 0.995))
    if top <= low:  # nearly all of it is padding
        top = clip_limits(image_CIJK, 0.0, 0.995)[1]
    if top <= low:
        return image_CIJK
    scaled = (image_CIJK.numpy().astype(np.float64) - low) / (top - low)
    inside = np.clip(scaled, 0, 1)
    curve = PchipInterpolator([0.0, AIR, *CONTRAST_KNOTS], [0.0, AIR, *contrast_map])
    is_air = inside <= AIR
    mapped = np.where(is_air, scaled, (1 - strength) * scaled + strength * (curve(inside) + scaled - inside))
    return torch.from_numpy((low + (top - low) * mapped).astype(np.float32))


def _with_gamma(image_CIJK: Tensor, gamma: float) -> Tensor:
    """Intensities scaled to [0, 1], raised to a power, and scaled back; a constant image stays as it is."""
    low, high = image_CIJK.aminmax()
    span = high - low
    return low + span * ((image_CIJK - low) / span) ** gamma if span > 0 else image_CIJK


def _transforms(case: Case, scan: Acquisition) -> list[torchio.Transform]:
    """TorchIO's deterministic transforms for this scan."""
    import torchio

    transforms: list[torchio.Transform] = []
    if scan.blur_mm:
        transforms.append(torchio.Blur(std=(scan.blur_mm,) * 3))
    if scan.movements:
        degrees, translation = (np.array([getattr(m, name) for m in scan.movements]) for name in ("degrees", "translation_mm"))
        times = np.array([movement.time for movement in scan.movements])
        transforms.append(torchio.Motion(degrees=degrees, translation=translation, times=times, image_interpolation="linear"))
    if scan.ghosting:
        in_plane = np.argsort(case.spacing_mm, kind="stable")[:2]
        axis = int(in_plane[scan.phase])
        transforms.append(torchio.Ghosting(num_ghosts=scan.num_ghosts, axis=axis, intensity=scan.ghosting, restore=None))
    if scan.spike:
        transforms.append(torchio.Spike(spikes_positions=np.array([scan.spike_position]), intensity=scan.spike))
    return transforms
