"""The scanner of a site: its signature is fixed for the run, every scan deviates a little from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from raykd.data.case import Case
from raykd.data.heterogeneity._base import Shift
from raykd.numerics.rng import generator, integer, uniform
from raykd.scenario.fields import Strict
from raykd.scenario.registry import SHIFTS
from raykd.scenario.sites import Scanner

if TYPE_CHECKING:
    import torchio

BIAS_ORDER = 3
BIAS_POWERS = [powers for powers in product(range(BIAS_ORDER + 1), repeat=3) if sum(powers) <= BIAS_ORDER]
"""Powers of (i, j, k) of each coefficient of the bias field, in TorchIO's order."""


class ScannerSettings(Scanner):
    """A client's `scanner` block, as a shift."""

    name: Literal["scanner"] = "scanner"


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
        gamma: exponent on intensities scaled to [0, 1].
        blur_mm: standard deviation of the point spread.
        bias_field: one coefficient for each of `BIAS_POWERS`, in log intensity; empty: none.
        ghosting: intensity of the ghosts, 0 to 1.
        num_ghosts: number of them.
        phase: which of the two finest axes is the phase axis, 0 or 1.
        noise: standard deviation of the noise, in units of the image's own.
        movements: by time.
    """

    gamma: float = 1.0
    blur_mm: float = 0.0
    bias_field: tuple[float, ...] = ()
    ghosting: float = 0.0
    num_ghosts: int = 4
    phase: int = 0
    noise: float = 0.0
    movements: tuple[Movement, ...] = ()

    @property
    def is_neutral(self) -> bool:
        """Whether images stay as they are."""
        return self == Acquisition(num_ghosts=self.num_ghosts, phase=self.phase)

    def record(self) -> dict[str, float | str]:
        """By dotted name: scanner.noise, scanner.bias_field.coefficients.012 (powers of i, j, k), scanner.motion.0.time ..."""
        named: dict[str, float | str] = {"scanner.gamma": self.gamma, "scanner.blur_mm": self.blur_mm, "scanner.noise": self.noise}
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


@SHIFTS.register("scanner")
class ScannerShift(Shift):
    """Contrast, bias field, point spread, motion, ghosts and noise, in the order in which an acquisition adds them.

    The site draws its bias field, gamma and ghosts; each scan multiplies the strengths by log-normal factors and moves the
    coefficients and log gamma by normal steps, all of relative size `jitter`. Movements are the patient's: each scan draws its own.
    """

    Settings: ClassVar[type[Strict]] = ScannerSettings

    def apply(self, case: Case) -> Case:
        scan = self.acquisition(case.case_id)
        if scan.is_neutral:
            return case
        image_CIJK = acquire(case, scan, generator(self.seed, "scanner noise", self.site, case.case_id))
        return replace(case.with_record(**scan.record()), image_CIJK=image_CIJK)

    def signature(self) -> Acquisition:
        """What all scans of the site have in common."""
        s, rng = self.settings, generator(self.seed, "scanner", self.site)
        coefficients = s.bias_field * torch.randn(len(BIAS_POWERS), generator=rng, dtype=torch.float64)
        return Acquisition(
            gamma=math.exp(uniform(rng, math.log(s.gamma[0]), math.log(s.gamma[1]))),
            blur_mm=s.blur_mm,
            bias_field=tuple(coefficients.tolist()) if s.bias_field else (),
            ghosting=s.ghosting,
            num_ghosts=4 + integer(rng, 7),
            phase=integer(rng, 2),
            noise=s.noise,
        )

    def acquisition(self, case_id: str) -> Acquisition:
        """The signature with the jitter and the movements of one scan."""
        s, site, rng = self.settings, self.signature(), generator(self.seed, "scanner", self.site, case_id)
        blur, ghosting, noise, log_gamma, *steps = torch.randn(4 + len(BIAS_POWERS), generator=rng, dtype=torch.float64).tolist()
        low, high = sorted(s.gamma)
        gamma = site.gamma * math.exp(s.jitter * log_gamma * math.log(high / low) / 2)
        return replace(
            site,
            gamma=min(max(gamma, low), high),
            blur_mm=site.blur_mm * math.exp(s.jitter * blur),
            bias_field=tuple(c + s.jitter * s.bias_field * step for c, step in zip(site.bias_field, steps, strict=False)),
            ghosting=min(site.ghosting * math.exp(s.jitter * ghosting), 1.0),
            noise=site.noise * math.exp(s.jitter * noise),
            movements=_movements(s, rng),
        )


def _movements(settings: Any, rng: torch.Generator) -> tuple[Movement, ...]:
    draws = torch.rand(settings.motion, 7, generator=rng, dtype=torch.float64)
    angles, shifts = (2 * draws[:, 1:4] - 1) * settings.motion_degrees, (2 * draws[:, 4:] - 1) * settings.motion_mm
    times = draws[:, 0].sort().values
    return tuple(
        Movement(time, tuple(degrees), tuple(mm))
        for time, degrees, mm in zip(times.tolist(), angles.tolist(), shifts.tolist(), strict=True)
    )


def acquire(case: Case, scan: Acquisition, rng: torch.Generator) -> Tensor:
    """The image (C, I, J, K) as `scan` would have recorded it.

    Args:
        case: its image is taken as a magnitude if no value is negative; noise is then Rician, and Gaussian otherwise.
        scan: the parameters.
        rng: of the noise alone.

    Source:
        Rician noise: Gudbjartsson and Patz, Magnetic Resonance in Medicine 1995, https://doi.org/10.1002/mrm.1910340618
    """
    import torchio

    image_CIJK = case.image_CIJK
    is_magnitude, noise = bool(image_CIJK.min() >= 0), scan.noise * float(image_CIJK.std())
    if scan.gamma != 1.0:
        image_CIJK = _with_gamma(image_CIJK, scan.gamma)
    if scan.bias_field:
        image_CIJK = image_CIJK * bias_field(case.shape, scan.bias_field)
    subject = torchio.Subject(image=torchio.ScalarImage(tensor=image_CIJK, affine=case.affine))
    for transform in _transforms(case, scan):
        # Not called as transform(subject): that draws from PyTorch's global generator.
        subject = transform.apply_transform(subject)
    image_CIJK = subject["image"].data.float()
    real_CIJK = image_CIJK + noise * torch.randn(image_CIJK.shape, generator=rng)
    if not is_magnitude:
        return real_CIJK
    return torch.hypot(real_CIJK, noise * torch.randn(image_CIJK.shape, generator=rng))


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
    return transforms
