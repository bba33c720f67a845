"""Ultrasound images: speckle, attenuation along the beam, shadows behind what reflects or absorbs, and log compression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raykd.data.phantom.family import Image
from raykd.data.phantom.grid import Grid
from raykd.data.phantom.implicit import Field, Vector
from raykd.data.phantom.scene import Part, paint

SOUND_MM_PER_US = 1.54
GAIN_DB_PER_MM_MHZ = 0.055
"""Time gain compensation for one way through average soft tissue."""
FLOOR_DB = -60.0
"""Noise of the receiver, relative to the speckle of the thyroid at the skin."""
HEADROOM_DB = 16.0
REFLECTION = 30.0
"""Echo of a perfect mirror, relative to the speckle of the thyroid."""
EDGES = ("wrap", "reflect", "wrap")
"""How speckle goes on beyond the image; wrapped, it is as strong at the edges as elsewhere."""
PROBE_RADIUS_MM = 40.0
"""Of a curved probe's face."""


class Acoustics(NamedTuple):
    """What ultrasound meets in a tissue.

    Attributes:
        echo_db: backscattered amplitude relative to thyroid.
        attenuation: one way, in dB/cm at 1 MHz, rising in proportion to the frequency.
        impedance: characteristic, in MRayl.
    """

    echo_db: float
    attenuation: float
    impedance: float


# Attenuation of blood, skin, fat, muscle across its fibres, connective tissue and bone: table 4 of
# https://pmc.ncbi.nlm.nih.gov/articles/PMC10001275 (thyroid as liver, a solid nodule as heart, a vessel's wall as breast, air as
# lung). Echo and impedance are plausible values.
ACOUSTICS: dict[str, Acoustics] = {
    "skin": Acoustics(5, 0.35, 1.70),
    "fat": Acoustics(-7, 0.63, 1.40),
    "connective": Acoustics(1, 0.75, 1.60),
    "fascia": Acoustics(6, 1.57, 1.80),
    "muscle": Acoustics(-9, 0.96, 1.68),
    "thyroid": Acoustics(0, 0.50, 1.65),
    "nodule": Acoustics(-8, 0.52, 1.64),
    "cyst": Acoustics(-45, 0.01, 1.52),
    "calcification": Acoustics(12, 15.0, 3.5),
    "vessel_wall": Acoustics(5, 0.75, 1.75),
    "blood": Acoustics(-32, 0.15, 1.66),
    "cartilage": Acoustics(-8, 1.57, 1.85),
    "bone": Acoustics(4, 15.0, 6.0),
    "air": Acoustics(-30, 40.0, 0.0004),
}


@dataclass(frozen=True)
class Protocol:
    """A probe and how its echoes become an image.

    Attributes:
        face: linear (parallel beams) or curved (a fan).
        frequency_mhz: of the pulse.
        num_looks: images from different angles that are averaged: spatial compounding.
        dynamic_range_db: what the grey scale spans.
    """

    face: Literal["linear", "curved"]
    frequency_mhz: float
    num_looks: int = 1
    dynamic_range_db: float = 60.0

    @property
    def pulse_sd_mm(self) -> Vector:
        """Standard deviation of the point spread across the beam, along it, and out of the image's plane.

        A pulse of two wavelengths, and a beam of f-number 2.5 in the plane and 6 out of it.
        """
        wavelength = SOUND_MM_PER_US / self.frequency_mhz
        return 2.5 * wavelength / 2.355, wavelength / 2.355, 6 * wavelength / 2.355


PROTOCOLS: dict[str, Protocol] = {
    "linear_12mhz": Protocol("linear", 12.0),
    "linear_7mhz": Protocol("linear", 7.0),
    "linear_compound": Protocol("linear", 10.0, num_looks=4, dynamic_range_db=65.0),
    "curved_5mhz": Protocol("curved", 5.0, dynamic_range_db=55.0),
}


def acquire(parts: Sequence[Part], protocol: Protocol, grid: Grid, rng: np.random.Generator) -> tuple[Image, NDArray[np.bool_]]:
    """One sweep as grey values from 0 to 255, and which voxels lie in the field of the probe, broadcastable to the image.

    Args:
        parts: of the neck, in painting order.
        rng: draws the speckle and the receiver's noise.
    """
    names = list(ACOUSTICS)
    echo = paint(parts, {name: 10 ** (ACOUSTICS[name].echo_db / 20) for name in names}, grid.shape)
    loss = paint(parts, {name: ACOUSTICS[name].attenuation for name in names}, grid.shape)
    impedance = paint(parts, {name: ACOUSTICS[name].impedance for name in names}, grid.shape, background=1.6)
    maps = np.stack([echo, loss, impedance])
    if protocol.face == "linear":
        return _image(maps, protocol, grid.spacing_mm, rng), np.ones((1, 1, 1), np.bool_)
    to_fan, from_fan, is_seen = fan_coordinates(grid.shape, grid.spacing_mm)
    bent = np.stack([_resample(one, to_fan) for one in maps])
    image = _resample(_image(bent, protocol, grid.spacing_mm, rng), from_fan)
    return np.where(is_seen[..., None], image, np.float32(0)), is_seen[..., None]


def _image(maps: Field, protocol: Protocol, spacing_mm: Vector, rng: np.random.Generator) -> Image:
    """Beams run along J, from its last voxel down."""
    echo, loss, impedance = maps
    passed = one_way_loss_db(loss, protocol.frequency_mhz, spacing_mm[1])
    depth_mm = (np.arange(echo.shape[1], dtype=np.float32)[::-1] + 0.5) * np.float32(spacing_mm[1])
    gain_db = GAIN_DB_PER_MM_MHZ * protocol.frequency_mhz * depth_mm[None, :, None]
    strength = 10 ** ((gain_db - passed) * np.float32(2 / 20))
    mirror = REFLECTION * reflectivity(impedance)
    floor = np.float32(10 ** (FLOOR_DB / 20)) * 10 ** (gain_db * np.float32(2 / 20))
    amplitude = np.zeros_like(echo)
    for _ in range(protocol.num_looks):
        amplitude += envelope(echo * strength, mirror * strength, floor, protocol.pulse_sd_mm, spacing_mm, rng)
    decibel = 20 * np.log10(np.maximum(amplitude / protocol.num_looks, 1e-9))
    return np.rint(255 * np.clip((decibel - HEADROOM_DB) / protocol.dynamic_range_db + 1, 0, 1)).astype(np.float32)


def one_way_loss_db(loss: Field, frequency_mhz: float, spacing_mm: float) -> Field:
    """Decibels lost between the probe and the middle of each voxel.

    Args:
        loss: in dB/cm at 1 MHz.
    """
    step = loss * np.float32(frequency_mhz * spacing_mm / 10)
    return np.cumsum(step[:, ::-1], axis=1)[:, ::-1] - step / 2


def reflectivity(impedance: Field) -> Field:
    """Share of the amplitude that comes straight back from each voxel's border to the one before it: |Z2 - Z1| / (Z2 + Z1)."""
    before = np.concatenate([impedance[:, 1:], impedance[:, -1:]], axis=1)
    return np.abs(impedance - before) / (impedance + before)


def envelope(echo: Field, mirror: Field, floor: Field, pulse_sd_mm: Vector, spacing_mm: Vector, rng: np.random.Generator) -> Field:
    """Amplitude of the echoes: many scatterers a voxel, as one circular Gaussian number, seen through the pulse.

    Without mirrors it is Rayleigh distributed, mean over standard deviation 1.91: Wagner, Smith, Sandrik and Lopez, IEEE Trans
    Sonics Ultrason 30:156, 1983, https://doi.org/10.1109/T-SU.1983.31404.

    Args:
        echo: root mean square amplitude of the scatterers of each voxel.
        mirror: amplitude of the echo of flat borders.
        floor: root mean square amplitude of the receiver's noise.
        pulse_sd_mm: standard deviation of the point spread along I, J, K.
    """
    sd = [length / spacing for length, spacing in zip(pulse_sd_mm, spacing_mm, strict=True)]
    impulse = np.zeros([2 * int(4 * s + 0.5) + 1 for s in sd])
    impulse[tuple(n // 2 for n in impulse.shape)] = 1
    norm = np.sqrt((ndimage.gaussian_filter(impulse, sd) ** 2).sum())  # keeps the mean square of uncorrelated numbers
    real, imaginary = rng.standard_normal((2, *echo.shape), dtype=np.float32) * np.float32(np.sqrt(0.5))
    real, imaginary = (ndimage.gaussian_filter(part * echo, sd, mode=EDGES) / np.float32(norm) for part in (real, imaginary))
    real += ndimage.gaussian_filter(mirror, sd)
    noise = rng.standard_normal((2, *echo.shape), dtype=np.float32) * np.float32(np.sqrt(0.5))
    return np.hypot(real + floor * noise[0], imaginary + floor * noise[1])


def fan_coordinates(shape: tuple[int, int, int], spacing_mm: Vector) -> tuple[Field, Field, NDArray[np.bool_]]:
    """How a curved probe's beams (angle, J) lie in its image (I, J), as voxel coordinates.

    Returns:
        Where in the image each voxel of the fan lies (2, I, J), where in the fan each voxel of the image lies (2, I, J), and which
        voxels of the image the fan reaches.
    """
    i, j = np.indices(shape[:2], dtype=np.float32)
    lateral, depth = (i - (shape[0] - 1) / 2) * spacing_mm[0], (shape[1] - 0.5 - j) * spacing_mm[1]
    half_angle = np.arctan2(shape[0] * spacing_mm[0] / 2, PROBE_RADIUS_MM + shape[1] * spacing_mm[1] / 2)
    angle = lateral * (half_angle / (shape[0] * spacing_mm[0] / 2))
    x, y = (PROBE_RADIUS_MM + depth) * np.sin(angle), (PROBE_RADIUS_MM + depth) * np.cos(angle) - PROBE_RADIUS_MM
    to_fan = np.stack([x / spacing_mm[0] + (shape[0] - 1) / 2, shape[1] - 0.5 - y / spacing_mm[1]])
    bearing, reach = np.arctan2(lateral, PROBE_RADIUS_MM + depth), np.hypot(lateral, PROBE_RADIUS_MM + depth) - PROBE_RADIUS_MM
    column = bearing * (shape[0] / 2 / half_angle) + (shape[0] - 1) / 2
    is_seen = (np.abs(bearing) <= half_angle) & (reach <= shape[1] * spacing_mm[1])
    return to_fan, np.stack([column, shape[1] - 0.5 - reach / spacing_mm[1]]), is_seen


def _resample(volume: Field, coordinates: Field) -> Field:
    """A volume at the same places of every slice."""
    slices = np.arange(volume.shape[2], dtype=np.float32)
    i, j = (np.repeat(c[..., None], len(slices), axis=2) for c in coordinates)
    return ndimage.map_coordinates(volume, [i, j, np.broadcast_to(slices, i.shape)], order=1, mode="nearest")
