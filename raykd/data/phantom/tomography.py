"""X-ray computed tomography: projections, beam hardening, and the noise of a filtered back-projection.

Artefacts are smooth, so they are computed on a coarse grid by projecting and back-projecting; what is fine, the kernel's blur and
the grain of the noise, is computed in the frequencies of the image itself.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import linalg, sparse

from raykd.data.phantom.grid import centred_axes
from raykd.data.phantom.implicit import Field

COARSE_PIXELS = 56
NUM_VIEWS = 45

ENERGIES_KEV = (40, 50, 60, 80, 100, 150)
ATTENUATION_PER_MM: dict[str, tuple[float, ...]] = {
    "water": (0.02683, 0.02269, 0.02059, 0.01837, 0.01707, 0.01505),
    "bone": (0.12777, 0.08145, 0.06044, 0.04280, 0.03562, 0.02842),
    "aluminium": (0.15350, 0.09939, 0.07501, 0.05449, 0.04601, 0.03721),
}
"""Linear attenuation of water, cortical bone (1.92 g/cm3) and aluminium (2.70 g/cm3) at `ENERGIES_KEV`.

Source: Hubbell and Seltzer, X-Ray Mass Attenuation Coefficients, NIST SRD 126, https://www.nist.gov/pml/x-ray-mass-attenuation-coefficients.
"""


class ParallelBeam:
    """Projection and back-projection of slices, on a grid of `COARSE_PIXELS` or fewer along I and J.

    Args:
        shape: number of voxels of a slice along I and J.
        spacing_mm: their edges.
    """

    def __init__(self, shape: tuple[int, int], spacing_mm: tuple[float, float]):
        axes = centred_axes((*shape, 1), (*spacing_mm, 1.0))[:2]
        pitch = max(length * spacing for length, spacing in zip(shape, spacing_mm, strict=True)) / COARSE_PIXELS
        self._pitch_mm = max(pitch, *spacing_mm)
        coarse = [_coarse_axis(axis, self._pitch_mm) for axis in axes]
        self._to_fine = [_interpolation(axis, knots) for axis, knots in zip(axes, coarse, strict=True)]
        self._to_coarse = [_mean(matrix) for matrix in self._to_fine]
        self._shape = (len(coarse[0]), len(coarse[1]))
        self._matrix, self._num_bins = _rays(coarse[0], coarse[1], self._pitch_mm)

    def project(self, image: Field) -> Field:
        """Line integrals (view, bin, K) of an image (I, J, K), in its unit times mm."""
        i, j = self._to_coarse
        coarse = j @ np.tensordot(i, image, axes=1)
        rays = self._matrix @ coarse.reshape(-1, image.shape[2]) * self._pitch_mm
        return rays.reshape(NUM_VIEWS, self._num_bins, -1).astype(np.float32)

    def mean_over_views(self, rays: Field) -> Field:
        """For each voxel the mean of what `rays` (view, bin, K) hold along the lines through it."""
        coarse = self._matrix.T @ rays.reshape(-1, rays.shape[2]) / NUM_VIEWS
        i, j = self._to_fine
        spread = np.tensordot(i, coarse.reshape(*self._shape, -1), axes=1)
        return j @ spread

    def reconstruct(self, rays: Field) -> Field:
        """Filtered back-projection (I, J, K) of line integrals.

        Source of the filter: Ramachandran and Lakshminarayanan, PNAS 68:2236, 1971, https://doi.org/10.1073/pnas.68.9.2236.
        """
        distance = np.arange(self._num_bins)
        is_odd = distance % 2 == 1
        ramp = np.where(is_odd, -1 / (np.pi * np.maximum(distance, 1)) ** 2, 0.0)
        ramp[0] = 0.25
        filtered = (linalg.toeplitz(ramp) / self._pitch_mm).astype(np.float32) @ rays
        return np.pi * self.mean_over_views(filtered)


@lru_cache(maxsize=4)
def parallel_beam(shape: tuple[int, int], spacing_mm: tuple[float, float]) -> ParallelBeam:
    """The projector of a grid; those last used are kept."""
    return ParallelBeam(shape, spacing_mm)


def _coarse_axis(axis: Field, pitch_mm: float) -> Field:
    count = max(2, round((axis[-1] - axis[0]) / pitch_mm) + 1)
    return (np.arange(count) - (count - 1) / 2) * pitch_mm


def _interpolation(axis: Field, knots: Field) -> Field:
    """The matrix that interpolates values at `knots` linearly to `axis`."""
    return np.stack([np.interp(axis, knots, unit) for unit in np.eye(len(knots))], axis=1).astype(np.float32)


def _mean(to_fine: Field) -> Field:
    """Its counterpart: each knot the weighted mean of the points near it."""
    weights = to_fine.T
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)


def _rays(x_mm: Field, y_mm: Field, pitch_mm: float) -> tuple[sparse.csr_matrix, int]:
    """The share of each pixel in each ray (view, bin), for views over half a turn."""
    num_bins = 2 * int(np.ceil(np.hypot(x_mm[-1], y_mm[-1]) / pitch_mm)) + 3
    pixels = np.arange(len(x_mm) * len(y_mm))
    rows, columns, shares = [], [], []
    for view in range(NUM_VIEWS):
        angle = np.pi * (view + 0.5) / NUM_VIEWS
        position = (x_mm[:, None] * np.cos(angle) + y_mm[None, :] * np.sin(angle)).ravel() / pitch_mm + (num_bins - 1) / 2
        first = np.floor(position).astype(np.int64)
        for bins, share in ((first, 1 - (position - first)), (first + 1, position - first)):
            rows.append(view * num_bins + bins)
            columns.append(pixels)
            shares.append(share)
    entries = (np.concatenate(shares).astype(np.float32), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(entries, shape=(NUM_VIEWS * num_bins, len(pixels))), num_bins


def effective_attenuation(material: str, spectrum: tuple[float, ...]) -> float:
    """Attenuation per mm of a thin layer: the mean over the spectrum."""
    return float(np.dot(spectrum, ATTENUATION_PER_MM[material]))


def polychromatic(lengths_mm: dict[str, Field], spectrum: tuple[float, ...]) -> Field:
    """What a detector measures behind these lengths of material: -ln of the spectrum's mean transmission.

    Args:
        lengths_mm: along each ray, by material of `ATTENUATION_PER_MM`.
        spectrum: share of each energy of `ENERGIES_KEV` in the detected signal; sums to 1.
    """
    shares = np.asarray(spectrum, np.float32)
    transmission = sum(share * np.exp(_exponent(lengths_mm, energy)) for energy, share in enumerate(shares) if share)
    return -np.log(np.maximum(transmission, 1e-30))


def _exponent(lengths_mm: dict[str, Field], energy: int) -> Field:
    exponents = [length * np.float32(-ATTENUATION_PER_MM[name][energy]) for name, length in lengths_mm.items()]
    return np.add.reduce(exponents)


def equivalent_mm(measured: Field, material: str, spectrum: tuple[float, ...], longest_mm: float) -> Field:
    """The length of one material that would give each measurement: the correction for beam hardening that scanners apply.

    Args:
        longest_mm: the longest that can occur.
    """
    lengths = np.linspace(-0.1 * longest_mm, longest_mm, 1001)
    return np.interp(measured, polychromatic({material: lengths}, spectrum), lengths).astype(np.float32)


def reconstruct_with_kernel(image: Field, noise: Field, cutoff: float, boost: float) -> Field:
    """The image through a reconstruction kernel, with noise of the same kernel.

    The noise power of a filtered back-projection rises with frequency and falls with the kernel squared: Riederer, Pelc and
    Chesler, Phys Med Biol 23:446, 1978, https://doi.org/10.1088/0031-9155/23/3/008.

    Args:
        image: (I, J, K).
        noise: white, of unit standard deviation, the same shape.
        cutoff: share of the highest frequency of the grid at which the kernel has fallen to (1 + boost) / e.
        boost: how much the kernel lifts the middle frequencies; 0: none.

    Returns:
        The two, stacked: the blurred image, and noise of unit standard deviation.
    """
    shape = image.shape[:2]
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(shape[0], 0.5), np.fft.rfftfreq(shape[1], 0.5), indexing="ij"))
    relative = (frequency / cutoff) ** 2
    kernel = np.exp(-relative) * (1 + boost * relative)
    full = np.hypot(*np.meshgrid(np.fft.fftfreq(shape[0], 0.5), np.fft.fftfreq(shape[1], 0.5), indexing="ij"))
    full_relative = (full / cutoff) ** 2
    power = full * (np.exp(-full_relative) * (1 + boost * full_relative)) ** 2
    grain = np.sqrt(frequency) * kernel / np.sqrt(power.mean())
    both = [
        np.fft.irfft2(np.fft.rfft2(a, axes=(0, 1)) * f[..., None], s=shape, axes=(0, 1))
        for a, f in ((image, kernel), (noise, grain))
    ]
    return np.stack(both).astype(np.float32)
