"""How often intervals hold the truth, and how often two methods that are the same are told apart: simulated, and a table of
docs/analysis.md. `python tests/results/test_coverage.py` prints the table."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from raykd.results.statistics import Clusters

TRIALS = 2000
PATIENT_SD = 0.06
SHARED = 0.7
"""Of a patient's variance, what every training sees of the same patient."""
DESIGNS = ((2, 4, 1), (4, 6, 1), (4, 6, 3), (4, 6, 5), (4, 30, 5), (12, 6, 3))
"""Sites, patients of each, trainings. Twelve sites are drawn, not fixed."""
DRAWN_SD = 0.05
"""Between sites that are drawn."""


def bell(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    return rng.normal(0, PATIENT_SD, size)


def ceiling(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Below a ceiling, as Dice is: beta(6, 2), scaled."""
    return (rng.beta(6, 2, size) - 0.75) * PATIENT_SD / np.sqrt(0.75 * 0.25 / 9)


def simulated(
    design: tuple[int, int, int], seed_sd: float, same_patients: bool, noise: Callable[..., np.ndarray], trial: int
) -> tuple[Clusters, float]:
    """Scores of a training's own luck, at all sites and at each, and of patients; and the mean that they are about: with one
    training, that of this one."""
    sites, num, seeds = design
    rng = np.random.default_rng([trial, sites, num, seeds])
    luck = rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, seed_sd / 2, (seeds, sites))
    levels = rng.normal(0, DRAWN_SD, sites) if sites > 6 else np.linspace(-0.1, 0.1, sites)
    if same_patients:
        patients = np.sqrt(SHARED) * noise(rng, (1, sites, num)) + np.sqrt(1 - SHARED) * noise(rng, (seeds, sites, num))
    else:
        patients = noise(rng, (seeds, sites, num))
    scores = levels[:, None] + luck[:, :, None] + patients
    seed, site, patient = np.indices(scores.shape)
    units = (site * num + patient) + (0 if same_patients else seed * sites * num)
    truth = float(luck.mean()) if seeds == 1 else 0.0
    if sites > 6:
        means, (seed, site) = scores.mean(axis=2), np.indices(scores.shape[:2])
        return Clusters.of(means.reshape(-1, 1), seed.ravel(), np.zeros(means.size, np.intp), site.ravel()), truth
    return Clusters.of(scores.reshape(-1, 1), seed.ravel(), site.ravel(), units.ravel()), truth


def coverage(design: tuple[int, int, int], seed_sd: float, same_patients: bool, noise: Callable[..., np.ndarray] = bell) -> float:
    held = 0
    for trial in range(TRIALS):
        own, truth = simulated(design, seed_sd, same_patients, noise, trial)
        (interval,) = own.estimates()
        held += interval.low <= truth <= interval.high
    return held / TRIALS


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("same_patients", [True, False])
def test_intervals_hold_the_truth_as_often_as_they_say(design: tuple[int, int, int], same_patients: bool) -> None:
    for seed_sd in (0.0, 0.01, 0.02):
        for noise in (bell, ceiling):
            assert coverage(design, seed_sd, same_patients, noise) >= 0.94, (seed_sd, noise.__name__)


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [0.01, 0.02])
@pytest.mark.parametrize("same_patients", [True, False])
def test_methods_that_are_the_same_are_told_apart_in_one_of_twenty_studies_at_most(seed_sd: float, same_patients: bool) -> None:
    """Two methods on the same patients: what is simulated is their difference, five trainings of four sites with six patients."""
    told = sum(simulated((4, 6, 5), seed_sd, same_patients, bell, trial)[0].p_value() < 0.05 for trial in range(TRIALS))
    assert told / TRIALS <= 0.06


def main() -> None:
    lines = ["| sites x patients x trainings | SD of trainings | other patients in each | the same in each |", "|---|---|---|---|"]
    for design in DESIGNS:
        for seed_sd in (0.0, 0.01, 0.02):
            own, same = (coverage(design, seed_sd, same_patients) for same_patients in (False, True))
            lines.append(f"| {' x '.join(map(str, design))} | {seed_sd:g} | {own:.3f} | {same:.3f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
