"""The physics of the phantoms beyond the knee: against hand calculation, a Bloch simulation, and statistics in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raykd.data.phantom import abdomen_scan, cardiac_scan, casting_scan, ultrasound_scan
from raykd.data.phantom.grid import Grid, Pose
from raykd.data.phantom.implicit import coverage
from raykd.data.phantom.scene import Part
from raykd.data.phantom.signal_equations import balanced_ssfp, inversion_recovery, nulling_time
from raykd.data.phantom.tomography import ParallelBeam, equivalent_mm, polychromatic, reconstruct_with_kernel
from raykd.data.phantom.ultrasound_scan import ACOUSTICS, envelope, fan_coordinates, one_way_loss_db, reflectivity
from raykd.numerics.rng import numpy_generator

STILL = Pose(scale=1.0, shift_mm=(0.0, 0.0, 0.0), rotation_deg=(0.0, 0.0, 0.0), texture_seed=1, warp_mm=0.0)


def cylinder(grid: Grid, material: str, radius_mm: float) -> Part:
    x, y, _ = grid.points
    share = np.broadcast_to(coverage(np.hypot(x, y) - radius_mm, grid.spacing_mm[0]), grid.shape)
    return Part(material, grid.whole(), share)


# --- magnetic resonance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("t1", "t2"), [(1441.0, 290.0), (1030.0, 40.0), (290.0, 70.0)])
def test_balanced_ssfp_agrees_with_a_bloch_simulation(t1: float, t2: float) -> None:
    tr, te, angle = 3.2, 1.6, np.deg2rad(60)
    y, z, sign = 0.0, 1.0, 1.0
    for _ in range(int(8 * t1 / tr)):
        c, s = np.cos(sign * angle), np.sin(sign * angle)
        y, z = c * y + s * z, c * z - s * y
        after = abs(y)
        y, z = y * np.exp(-tr / t2), 1 + (z - 1) * np.exp(-tr / t1)
        sign = -sign  # alternating pulses, on resonance
    assert float(balanced_ssfp(1.0, t1, t2, tr, te, 60)) == pytest.approx(after * np.exp(-te / t2), rel=1e-3)


def test_inversion_recovery_nulls_at_the_nulling_time_and_recovers() -> None:
    assert nulling_time(540, 1e6) == pytest.approx(540 * np.log(2))  # fully recovered between inversions
    assert float(inversion_recovery(1.0, 540, 1600, nulling_time(540, 1600))) == pytest.approx(0, abs=1e-12)
    assert float(inversion_recovery(0.8, 540, 1e6, 540 * np.log(4))) == pytest.approx(0.8 * 0.5)


def test_contrast_of_the_cardiac_protocols() -> None:
    signals = {name: protocol.signals() for name, protocol in cardiac_scan.PROTOCOLS.items()}
    assert signals["cine_ssfp"]["blood"] > 1.5 * signals["cine_ssfp"]["myocardium"]
    assert signals["cine_spgr"]["blood"] > 1.5 * signals["cine_spgr"]["myocardium"]  # it flows in
    late = signals["lge"]
    assert late["scar"] > late["blood"] > 4 * late["myocardium"]
    black = signals["t2_black_blood"]
    assert black["scar"] > black["myocardium"] > 4 * black["blood"]
    assert black["fat"] < 0.2 * signals["cine_ssfp"]["fat"]


# --- computed tomography ---------------------------------------------------------------------------------------------------------


def test_a_disc_projects_to_its_chords_and_is_reconstructed() -> None:
    grid = Grid(STILL, (100, 80, 2), (1.0, 1.0, 1.0))
    disc = cylinder(grid, "metal", 30.0).coverage
    beam = ParallelBeam((100, 80), (1.0, 1.0))
    rays = beam.project(disc)
    # All views see the chord through the centre, 2 R, and the same area, pi R^2.
    pitch_mm = 100 / 56
    assert rays.max(axis=1) == pytest.approx(60.0, rel=0.06)
    assert rays.sum(axis=1) * pitch_mm == pytest.approx(np.pi * 900, rel=0.02)
    image = beam.reconstruct(rays)
    x, y, _ = grid.points
    radius = np.hypot(x, y)[..., 0]
    assert image[radius < 24].mean() == pytest.approx(1.0, abs=0.03)
    assert abs(image[(radius > 36) & (radius < 40)].mean()) < 0.05


def test_a_single_energy_does_not_harden_and_a_spectrum_does() -> None:
    lengths = np.array([0.0, 10.0, 50.0])
    mono = polychromatic({"aluminium": lengths}, (0, 0, 1, 0, 0, 0))
    assert mono == pytest.approx(0.07501 * lengths, rel=1e-5)  # 0.2778 cm2/g x 2.70 g/cm3 at 60 keV
    # Two lines at 40 and 100 keV by hand: -ln((exp(-1.535) + exp(-0.4601)) / 2) behind 10 mm.
    poly = polychromatic({"aluminium": lengths}, (0.5, 0, 0, 0, 0.5, 0))
    assert poly[1] == pytest.approx(-np.log((np.exp(-1.535) + np.exp(-0.4601)) / 2), rel=1e-5)
    assert poly[2] / 50 < poly[1] / 10 < (0.15350 + 0.04601) / 2
    assert equivalent_mm(poly, "aluminium", (0.5, 0, 0, 0, 0.5, 0), 100.0) == pytest.approx(lengths, abs=0.01)


def test_noise_has_unit_deviation_and_a_soft_kernel_coarser_grain() -> None:
    white = numpy_generator(1, "noise").standard_normal((96, 80, 6), dtype=np.float32)
    flat = np.full(white.shape, 7.0, np.float32)
    neighbours = {}
    for cutoff, boost in ((0.5, 0.0), (1.1, 1.2)):
        image, noise = reconstruct_with_kernel(flat, white, cutoff, boost)
        assert image == pytest.approx(7.0, abs=1e-4)
        assert noise.std() == pytest.approx(1.0, abs=0.05)
        assert abs(noise.mean()) < 1e-3  # the ramp removes the mean
        neighbours[cutoff] = np.mean(noise[1:] * noise[:-1])
    assert neighbours[0.5] > 0.3 > 0.0 > neighbours[1.1]


def centre_and_rim(protocol: casting_scan.Protocol) -> float:
    grid = Grid(STILL, (72, 72, 2), (1.0, 1.0, 1.0))
    clean = replace(protocol, noise=0.0, ring=0.0)
    image = casting_scan.acquire([cylinder(grid, "metal", 28.0)], clean, grid, numpy_generator(1, "scan"))
    x, y, _ = grid.points
    radius = np.hypot(x, y)[..., 0]
    return float(image[radius < 6].mean() / image[(radius > 21) & (radius < 25)].mean())


def test_beam_hardening_cups_and_linearisation_flattens() -> None:
    ratio = {name: centre_and_rim(protocol) for name, protocol in casting_scan.PROTOCOLS.items()}
    assert ratio["kv120"] < ratio["kv225"] - 0.03 < 0.97
    assert ratio["kv225_linearised"] == pytest.approx(1.0, abs=0.005)


def test_a_water_bath_has_its_number_and_the_noise_of_its_dose() -> None:
    pose = replace(STILL, half_extent_mm=260.0)
    grid = Grid(pose, (128, 128, 6), (2.5, 2.5, 5.0))
    x, y, _ = grid.points
    is_central = np.broadcast_to(np.hypot(x, y) < 60, grid.shape)
    deviation = {}
    for name in ("native", "low_dose"):
        bath = cylinder(grid, "fluid", 140.0)
        image = abdomen_scan.acquire([bath], abdomen_scan.PROTOCOLS[name], 0.0, grid, numpy_generator(2, "scan"))
        assert np.array_equal(image, np.rint(image)) and image.min() >= -1024
        assert image[is_central].mean() == pytest.approx(abdomen_scan.ATTENUATION["fluid"].native, abs=12)  # jitter of 3
        deviation[name] = image[is_central].std()
    # 280 mm of water is the length at which the noise is stated; off the centre the paths are shorter.
    assert deviation["native"] == pytest.approx(11.0, rel=0.2)
    assert deviation["low_dose"] == pytest.approx(30.0, rel=0.2)


def test_bone_darkens_what_lies_between() -> None:
    length = np.array([[[200.0]]], np.float32)
    assert abdomen_scan._hardening(length, np.zeros_like(length)) == pytest.approx(0.0, abs=0.2)  # water alone is corrected
    assert abdomen_scan._hardening(length, np.full_like(length, 40.0)).item() < -1.0


# --- ultrasound ------------------------------------------------------------------------------------------------------------------


def test_speckle_is_rayleigh_and_keeps_the_power_of_its_scatterers() -> None:
    echo = np.full((128, 96, 24), 3.0, np.float32)
    zero = np.zeros_like(echo)
    looks = [envelope(echo, zero, zero, (0.3, 0.2, 0.6), (0.4, 0.3, 0.9), numpy_generator(n, "speckle")) for n in range(4)]
    # Rayleigh: mean / sd = sqrt(pi / (4 - pi)) = 1.913; the mean square is that of the scatterers.
    assert looks[0].mean() / looks[0].std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.02)
    assert np.mean(looks[0] ** 2) == pytest.approx(9.0, rel=0.03)
    compound = np.mean(looks, axis=0)
    assert compound.mean() / compound.std() == pytest.approx(2 * np.sqrt(np.pi / (4 - np.pi)), rel=0.03)


def test_speckle_is_as_wide_as_the_pulse() -> None:
    echo = np.ones((96, 48, 8), np.float32)
    speckle = envelope(echo, 0 * echo, 0 * echo, (1.2, 0.3, 0.3), (0.4, 0.4, 0.4), numpy_generator(3, "speckle"))
    intensity = speckle**2 - np.mean(speckle**2)
    lag = 3  # voxels: 1.2 mm. The amplitude's autocorrelation is exp(-lag^2 / 4 sd^2), the intensity's its square.
    expected = np.exp(-(lag**2) / (2 * 3.0**2))
    assert np.mean(intensity[lag:] * intensity[:-lag]) / intensity.var() == pytest.approx(expected, abs=0.08)


def test_attenuation_adds_up_along_the_beam() -> None:
    loss = np.full((2, 40, 2), 0.5, np.float32)  # dB/cm/MHz; 10 MHz and 0.5 mm: 0.25 dB a voxel
    passed = one_way_loss_db(loss, 10.0, 0.5)
    assert passed[0, :, 0] == pytest.approx(0.25 * (np.arange(40)[::-1] + 0.5))  # the probe lies beyond the last voxel


def test_borders_reflect_what_their_impedances_say() -> None:
    impedance = np.full((1, 4, 1), 1.6, np.float32)
    impedance[:, :2] = 0.0004
    assert reflectivity(impedance)[0, :, 0] == pytest.approx([0, 1.5996 / 1.6004, 0, 0], abs=1e-6)


def test_bone_throws_a_shadow_and_a_cyst_does_not() -> None:
    grid = Grid(replace(STILL, half_extent_mm=60.0), (60, 90, 12), (0.4, 0.3, 0.9))
    tissue = Part("thyroid", grid.whole(), np.ones(grid.shape, np.float32))
    means = []
    for material in ("thyroid", "calcification", "cyst"):
        box = (slice(20, 40), slice(50, 60), slice(0, 12))
        parts = [tissue, Part(material, box, np.ones((20, 10, 12), np.float32))]
        image, is_seen = ultrasound_scan.acquire(parts, ultrasound_scan.PROTOCOLS["linear_7mhz"], grid, numpy_generator(4, "scan"))
        assert is_seen.all() and image.min() >= 0 and image.max() <= 255
        means.append(float(image[24:36, 30:45].mean()))
    plain, shadow, enhanced = means
    assert shadow < 0.5 * plain
    # 3 mm of 0.49 dB/cm/MHz less at 7 MHz, both ways: 2.1 dB of 60 over 255 grey values.
    lost_db = 2 * (ACOUSTICS["thyroid"].attenuation - ACOUSTICS["cyst"].attenuation) * 7 * 0.3
    assert enhanced - plain == pytest.approx(255 * lost_db / 60, abs=2.0)


def test_the_fan_and_the_image_undo_each_other() -> None:
    shape, spacing_mm = (64, 80, 1), (0.5, 0.4, 1.0)
    to_fan, from_fan, is_seen = fan_coordinates(shape, spacing_mm)
    i, j = (np.rint(to_fan[axis]).astype(int) for axis in (0, 1))
    is_inside = (i >= 0) & (i < 64) & (j >= 0) & (j < 80)
    back = from_fan[:, i[is_inside], j[is_inside]]
    assert np.abs(back - np.indices(shape[:2])[:, is_inside]).max() < 1.0  # rounding to a voxel
    assert is_seen[32].mean() > 0.95 and not is_seen[0, -1] and not is_seen[-1, -1]
