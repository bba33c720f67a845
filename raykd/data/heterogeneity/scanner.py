"""The scanner of a site: its signature is fixed for the run, every scan deviates a little from it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from raykd.data.case import Case
from raykd.data.heterogeneity._base import Shift
from raykd.data.heterogeneity.acquisition import BIAS_POWERS, CONTRAST_KNOTS, Acquisition, Movement, acquire
from raykd.numerics.rng import generator, integer, numpy_generator, uniform
from raykd.scenario.fields import Strict
from raykd.scenario.registry import SHIFTS
from raykd.scenario.sites import Scanner

REFERENCE_FIELD_T = 3.0
"""The field at which `noise` is what it says."""


class ScannerSettings(Scanner):
    """A client's `scanner` block, as a shift."""

    name: Literal["scanner"] = "scanner"


@SHIFTS.register("scanner")
class ScannerShift(Shift):
    """Contrast, bias field, point spread, motion, ghosts, spikes, noise and gain, in the order in which an acquisition adds them.

    The site draws its contrast map, bias field, gamma, gain and ghosts; each scan multiplies the strengths by log-normal factors
    and moves the coefficients, log gamma and log gain by normal steps, all of relative size `jitter`. Movements are the patient's
    and a spike strikes anywhere: each scan draws its own.
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
        noise = s.noise if s.field_strength_t is None else s.noise * REFERENCE_FIELD_T / s.field_strength_t
        return Acquisition(
            contrast=s.contrast,
            contrast_map=self._contrast_map() if s.contrast else (),
            gain=self._gain(),
            spike=s.spike,
            gamma=math.exp(uniform(rng, math.log(s.gamma[0]), math.log(s.gamma[1]))),
            blur_mm=s.blur_mm,
            bias_field=tuple(coefficients.tolist()) if s.bias_field else (),
            ghosting=s.ghosting,
            num_ghosts=4 + integer(rng, 7),
            phase=integer(rng, 2),
            noise=noise,
        )

    def acquisition(self, case_id: str) -> Acquisition:
        """The signature with the jitter and the movements of one scan."""
        s, site, rng = self.settings, self.signature(), generator(self.seed, "scanner", self.site, case_id)
        blur, ghosting, noise, log_gamma, *steps = torch.randn(4 + len(BIAS_POWERS), generator=rng, dtype=torch.float64).tolist()
        return replace(
            site,
            gamma=_within(s.gamma, site.gamma, s.jitter * log_gamma),
            blur_mm=site.blur_mm * math.exp(s.jitter * blur),
            bias_field=tuple(c + s.jitter * s.bias_field * step for c, step in zip(site.bias_field, steps, strict=False)),
            ghosting=min(site.ghosting * math.exp(s.jitter * ghosting), 1.0),
            noise=site.noise * math.exp(s.jitter * noise),
            movements=_movements(s, rng),
            **self._further_jitter(site, case_id),
        )

    def _further_jitter(self, site: Acquisition, case_id: str) -> dict[str, Any]:
        """What came later has an address of its own, so that the draws above stay what they were."""
        s, rng = self.settings, numpy_generator(self.seed, "scanner further", self.site, case_id)
        contrast, spike, log_gain = rng.standard_normal(3)
        position = tuple(rng.random(3).tolist())
        return {
            "contrast": min(site.contrast * math.exp(s.jitter * contrast), 1.0),
            "gain": _within(s.intensity_scale, site.gain, s.jitter * log_gain),
            "spike": site.spike * math.exp(s.jitter * spike),
            "spike_position": position if s.spike else site.spike_position,
        }

    def _contrast_map(self) -> tuple[float, ...]:
        values = numpy_generator(self.seed, "scanner contrast", self.site).random(len(CONTRAST_KNOTS))
        return tuple((values / values.max()).tolist())

    def _gain(self) -> float:
        low, high = self.settings.intensity_scale
        share = numpy_generator(self.seed, "scanner intensity scale", self.site).random()
        return float(low * (high / low) ** share)


def _within(bounds: tuple[float, float], value: float, step: float) -> float:
    """The value moved by a step in units of half the range of logarithms, and kept in the range."""
    low, high = bounds
    return min(max(value * math.exp(step * math.log(high / low) / 2), low), high)


def _movements(settings: Any, rng: torch.Generator) -> tuple[Movement, ...]:
    draws = torch.rand(settings.motion, 7, generator=rng, dtype=torch.float64)
    angles, shifts = (2 * draws[:, 1:4] - 1) * settings.motion_degrees, (2 * draws[:, 4:] - 1) * settings.motion_mm
    times = draws[:, 0].sort().values
    return tuple(
        Movement(time, tuple(degrees), tuple(mm))
        for time, degrees, mm in zip(times.tolist(), angles.tolist(), shifts.tolist(), strict=True)
    )
