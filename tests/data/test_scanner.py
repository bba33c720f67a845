"""A site has a signature, a scan deviates from it, and both are addresses; the artefacts do what they say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torchio
from pydantic import ValidationError

from raykd.data.case import Case, affine_from_spacing
from raykd.data.heterogeneity.acquisition import BIAS_ORDER, BIAS_POWERS, Acquisition, Movement, acquire, bias_field, with_contrast
from raykd.data.heterogeneity.scanner import ScannerSettings, ScannerShift
from raykd.numerics.rng import generator
from raykd.scenario.errors import DataError
from raykd.scenario.registry import SHIFTS
from raykd.scenario.scanner_profiles import SCANNER_PROFILES, ScannerProfile
from raykd.scenario.sites import Scanner

ALL: dict[str, Any] = {
    "noise": 0.1,
    "bias_field": 0.4,
    "gamma": (0.7, 1.4),
    "blur_mm": 0.8,
    "motion": 2,
    "ghosting": 0.3,
    "contrast": 0.6,
    "spike": 0.2,
    "intensity_scale": (0.4, 0.7),
}
SHAPE = (12, 15, 14)


def make(case_id: str = "a", shape: tuple[int, int, int] = SHAPE) -> Case:
    image = torch.rand(1, *shape, generator=generator(0, "test", case_id)) + 0.5
    label = (image[0] > 1).to(torch.uint8)
    return Case(case_id, case_id, image, label, affine_from_spacing((3.0, 1.0, 1.2), shape))


def shift(site: str = "site", seed: int = 7, **settings: Any) -> ScannerShift:
    return ScannerShift(ScannerSettings(**settings), seed, site)


def through(case: Case, scan: Acquisition) -> torch.Tensor:
    return acquire(case, scan, generator(0, "noise"))


def test_all_zeros_return_the_case_itself() -> None:
    case = make()
    assert shift().apply(case) is case


@pytest.mark.parametrize("name", sorted(ALL))
def test_each_setting_changes_the_image_alone(name: str) -> None:
    case = make()
    before = case.image_CIJK.clone()
    after = shift(**{name: ALL[name]}).apply(case)
    assert not torch.allclose(after.image_CIJK, before, atol=1e-3)
    assert after.image_CIJK.shape == before.shape and after.image_CIJK.dtype == torch.float32
    assert bool((after.image_CIJK >= 0).all())
    assert after.label_IJK is case.label_IJK and after.affine is case.affine
    assert torch.equal(case.image_CIJK, before)
    assert any(key.startswith("scanner.") for key in after.record) and not case.record


def test_same_address_same_bits_and_no_global_generator() -> None:
    state = torch.random.get_rng_state()
    first, second = (shift(**ALL).apply(make()) for _ in range(2))
    assert torch.equal(first.image_CIJK, second.image_CIJK) and first.record == second.record
    assert torch.equal(torch.random.get_rng_state(), state)


def test_seed_site_and_case_are_the_address() -> None:
    base = shift(**ALL)
    others = [shift(seed=8, **ALL).acquisition("a"), shift("other", **ALL).acquisition("a"), base.acquisition("b")]
    assert len({base.acquisition("a"), *others}) == 4
    jittered = {shift(site, noise=0.1).acquisition(case).noise for site in ("site", "other") for case in ("a", "b")}
    assert len(jittered) == 4
    assert base.signature() == shift(**ALL).signature()
    assert base.signature() != shift("other", **ALL).signature()


def test_a_setting_does_not_move_the_draws_of_another() -> None:
    alone, together = shift(bias_field=0.4).acquisition("a"), shift(**ALL).acquisition("a")
    assert alone.bias_field == together.bias_field


def test_without_jitter_a_scan_is_the_signature() -> None:
    steady = shift(jitter=0.0, **{**ALL, "motion": 0, "spike": 0.0})
    assert steady.acquisition("a") == steady.acquisition("b") == steady.signature()


def test_scans_of_a_site_are_closer_than_sites() -> None:
    def vector(scan: Acquisition) -> np.ndarray:
        return np.array([math.log(scan.gamma), *scan.bias_field])

    sites = [shift(f"site-{i}", **ALL) for i in range(12)]
    scans = np.array([[vector(site.acquisition(case)) for case in "abcdef"] for site in sites])
    within, between = scans.std(axis=1).mean(axis=0), scans.mean(axis=1).std(axis=0)
    assert (within < 0.6 * between).all()


def test_jitter_is_the_relative_spread() -> None:
    site = shift(noise=0.1, jitter=0.2)
    logs = np.log([site.acquisition(str(i)).noise for i in range(400)])
    assert logs.mean() == pytest.approx(math.log(0.1), abs=0.03)
    assert logs.std() == pytest.approx(0.2, abs=0.03)


def test_gamma_stays_in_its_range_and_covers_it() -> None:
    drawn = [shift(f"site-{i}", gamma=(0.5, 2.0)).acquisition("a").gamma for i in range(200)]
    assert min(drawn) >= 0.5 and max(drawn) <= 2.0
    assert min(drawn) < 0.6 and max(drawn) > 1.7


def test_record_replays_the_bias_field() -> None:
    record = shift(**ALL).apply(make()).record
    coefficients = [record[f"scanner.bias_field.coefficients.{i}{j}{k}"] for i, j, k in BIAS_POWERS]
    assert tuple(coefficients) == shift(**ALL).acquisition("a").bias_field
    assert {"scanner.noise", "scanner.gamma", "scanner.ghosting", "scanner.motion.1.time", "scanner.motion.0.i_mm"} <= set(record)
    assert all(isinstance(value, float) for value in record.values())


@pytest.mark.parametrize("shape", [(12, 15, 14), (1, 8, 9), (2, 3, 20)])
def test_bias_field_equals_torchio(shape: tuple[int, int, int]) -> None:
    coefficients = torch.randn(len(BIAS_POWERS), generator=generator(1, "test")).tolist()
    expected = torchio.BiasField.generate_bias_field(torch.zeros(1, *shape), BIAS_ORDER, coefficients)
    np.testing.assert_allclose(bias_field(shape, coefficients).numpy(), expected, rtol=1e-5)


def test_gamma_on_a_unit_range() -> None:
    image = torch.tensor([2.0, 3.0, 6.0]).reshape(1, 1, 1, 3)
    case = Case("a", "a", image, None, np.eye(4))
    # (3 - 2) / 4 = 1/4, squared 1/16, times 4 plus 2.
    assert through(case, Acquisition(gamma=2.0)).flatten().tolist() == pytest.approx([2.0, 2.25, 6.0])
    constant = replace(case, image_CIJK=torch.full((1, 1, 1, 3), 5.0))
    assert through(constant, Acquisition(gamma=2.0)).flatten().tolist() == [5.0] * 3


def test_blur_is_in_millimetres() -> None:
    """A point becomes a Gaussian of 2 mm on a grid of 1 x 0.5 x 0.8 mm."""
    image = torch.zeros(1, 25, 45, 31)
    image[0, 12, 22, 15] = 1.0
    case = Case("a", "a", image, None, affine_from_spacing((1.0, 0.5, 0.8), (25, 45, 31)))
    blurred = through(case, Acquisition(blur_mm=2.0))[0].numpy()
    for axis, (spacing_mm, middle) in enumerate(zip((1.0, 0.5, 0.8), (12, 22, 15), strict=True)):
        profile = blurred.sum(axis=tuple({0, 1, 2} - {axis}))
        distance_mm = (np.arange(len(profile)) - middle) * spacing_mm
        assert math.sqrt(np.average(distance_mm**2, weights=profile)) == pytest.approx(2.0, rel=0.03)


def test_motion_is_a_movement_during_the_scan() -> None:
    """A movement by nothing leaves the image, one by millimetres does not."""
    case = make()
    nowhere = Movement(time=0.3, degrees=(0.0, 0.0, 0.0), translation_mm=(0.0, 0.0, 0.0))
    torch.testing.assert_close(through(case, Acquisition(movements=(nowhere,))), case.image_CIJK, atol=1e-4, rtol=0)
    for movement in (replace(nowhere, translation_mm=(6.0, 3.0, 3.0)), replace(nowhere, degrees=(0.0, 8.0, 0.0))):
        assert (through(case, Acquisition(movements=(movement,))) - case.image_CIJK).abs().mean() > 0.02


@pytest.mark.parametrize("phase", [0, 1])
def test_ghosts_run_along_a_fine_axis(phase: int) -> None:
    """A bright point gets copies along the phase axis alone: J or K here, never the thick I."""
    image = torch.zeros(1, *SHAPE)
    image[0, 6, 7, 7] = 1.0
    case = replace(make(), image_CIJK=image)
    ghosts = through(case, Acquisition(ghosting=0.5, num_ghosts=4, phase=phase))[0]
    line = (6, slice(None), 7) if phase == 0 else (6, 7, slice(None))
    on_line = ghosts[line].sum()
    assert on_line == pytest.approx(float(ghosts.sum()), rel=1e-3)
    assert (ghosts[line] > 0.02).sum() > 1


def test_noise_is_rician() -> None:
    """Rayleigh where there is no signal, normal about S + sigma^2 / 2S where there is much of it."""
    image = torch.zeros(1, 40, 50, 50)
    image[:, 20:] = 10.0
    case = Case("a", "a", image, None, np.eye(4))
    noisy = through(case, Acquisition(noise=0.1))
    sigma = 0.1 * 5.0  # half of the voxels at 0, half at 10: a standard deviation of 5
    empty, bright = noisy[:, :20], noisy[:, 20:]
    assert float(empty.mean()) == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.01)
    assert float(empty.std()) == pytest.approx(sigma * math.sqrt(2 - math.pi / 2), rel=0.02)
    assert float(bright.mean()) == pytest.approx(10 + sigma**2 / 20, abs=0.01)
    assert float(bright.std()) == pytest.approx(sigma, rel=0.02)


def test_noise_is_gaussian_where_values_may_be_negative() -> None:
    image = torch.full((1, 40, 50, 50), 3.0)
    image[:, 20:] = -3.0
    noisy = through(Case("a", "a", image, None, np.eye(4)), Acquisition(noise=0.5))
    assert float(noisy[:, 20:].mean()) == pytest.approx(-3.0, abs=0.03)
    assert float(noisy[:, 20:].std()) == pytest.approx(1.5, rel=0.02)


def test_registered() -> None:
    shift_class = SHIFTS.get("scanner")
    assert shift_class is ScannerShift
    settings = shift_class.Settings.model_validate_json('{"name": "scanner", "noise": 0.1, "gamma": [0.8, 1.25]}')
    assert settings.noise == 0.1 and settings.jitter == ScannerSettings().jitter


def with_profile(name: str, **given: Any) -> Scanner:
    return Scanner.model_validate_json(json.dumps({"profile": name, **given}))


def test_a_profile_gives_what_the_block_does_not() -> None:
    worn = with_profile("worn_1_5t", noise=0.2)
    assert (worn.noise, worn.field_strength_t, worn.ghosting, worn.gamma) == (0.2, 1.5, 0.15, (0.85, 1.2))
    assert with_profile("worn_1_5t", ghosting=0.0).ghosting == 0.0
    assert worn.blur_mm == Scanner().blur_mm
    # What a run writes down gives the same again.
    assert Scanner.model_validate_json(worn.model_dump_json()) == worn


@pytest.mark.parametrize("name", get_args(ScannerProfile))
def test_every_profile_is_valid_and_changes_images(name: ScannerProfile) -> None:
    assert set(SCANNER_PROFILES) == set(get_args(ScannerProfile))
    scanner = with_profile(name)
    given = {key: value for key, value in SCANNER_PROFILES[name].items() if key not in ("field_strength_t", "jitter")}
    as_written = Scanner.model_validate_json(json.dumps({**SCANNER_PROFILES[name]}))
    assert given and as_written == scanner.model_copy(update={"profile": None})
    case = make()
    if name.startswith("ct_"):
        case = replace(case, image_CIJK=1000 * (case.image_CIJK - 1))
    after = shift(**scanner.model_dump()).apply(case).image_CIJK
    assert bool(after.isfinite().all()) and not torch.allclose(after, case.image_CIJK, rtol=1e-3)


@pytest.mark.parametrize(("key", "bad"), [("gamma", [1.2, 0.8]), ("intensity_scale", [2.0, 1.0])])
def test_a_range_runs_upwards(key: str, bad: list[float]) -> None:
    with pytest.raises(ValidationError, match="smaller value first"):
        Scanner.model_validate_json(json.dumps({key: bad}))


def test_noise_grows_as_the_field_falls() -> None:
    at = {field: shift(noise=0.02, field_strength_t=field).acquisition("a").noise for field in (3.0, 1.5, 0.3)}
    assert at[1.5] == pytest.approx(2 * at[3.0]) and at[0.3] == pytest.approx(10 * at[3.0])
    assert at[3.0] == shift(noise=0.02).acquisition("a").noise


def test_gain_is_the_sites_within_its_range_and_scales_everything() -> None:
    bounds = (0.5, 2.0)
    signatures = [shift(f"site-{i}", intensity_scale=bounds).signature().gain for i in range(200)]
    # Log-uniform: a half lies under 1, a quarter under 2^-0.5.
    assert min(signatures) >= 0.5 and max(signatures) <= 2.0
    assert np.mean(np.array(signatures) < 1) == pytest.approx(0.5, abs=0.12)
    assert np.mean(np.array(signatures) < math.sqrt(0.5)) == pytest.approx(0.25, abs=0.1)
    scans = [shift(intensity_scale=bounds).acquisition(case).gain for case in "abcdefgh"]
    assert len(set(scans)) > 1 and np.std(np.log(scans)) < 0.5 * np.std(np.log(signatures))
    case = make()
    alone, gained = shift(noise=0.1).apply(case), shift(noise=0.1, intensity_scale=(3.0, 3.0)).apply(case)
    torch.testing.assert_close(gained.image_CIJK, 3 * alone.image_CIJK)
    assert gained.record["scanner.gain"] == 3.0 and "scanner.gain" not in alone.record


def test_contrast_follows_its_knots() -> None:
    """On intensities from 10 to 110 of which the 99.5th percentile is the top: knots at 0.3, 0.5, 0.75 and 1 of the range."""
    image = torch.tensor([10.0, 15.0, 20.0, 40.0, 60.0, 85.0] + [110.0] * 96).reshape(1, 1, 1, 102)
    found = with_contrast(image, 1.0, (0.8, 0.2, 1.0, 0.4)).flatten()
    assert found[:7].tolist() == pytest.approx([10, 15, 20, 90, 30, 110, 50])
    half = with_contrast(image, 0.5, (0.8, 0.2, 1.0, 0.4)).flatten()
    assert half[:7].tolist() == pytest.approx([10, 15, 20, 65, 45, 97.5, 80])
    # Between knots a curve stays between them.
    dense = with_contrast(torch.linspace(0, 1, 1001).reshape(1, 1, 1, -1), 1.0, (0.8, 0.2, 1.0, 0.4)).flatten().numpy()
    assert dense.max() <= 1.0 + 1e-3 and dense.min() >= 0.0


def test_what_is_brighter_than_the_contrast_map_reaches_keeps_its_distance() -> None:
    ramp = torch.cat([torch.full((400,), 50.0), torch.tensor([10.0, 57.0])]).reshape(1, 1, 1, -1)
    mapped = with_contrast(ramp, 1.0, (0.8, 0.2, 1.0, 0.4)).flatten()
    # The top, 50, becomes 10 + 0.4 * 40 = 26.
    assert (float(mapped[0]), float(mapped[-1])) == (pytest.approx(26.0), pytest.approx(33.0))


def test_the_contrast_of_a_sparse_image_changes_too() -> None:
    # Four voxels of 1000 are no padding: the 99.5th percentile of all of them is 0.
    sparse = torch.zeros((1, 10, 10, 10))
    sparse[0, 0, 0, :4] = torch.tensor([30.0, 50.0, 75.0, 100.0])
    mapped = with_contrast(sparse, 1.0, (0.8, 0.2, 1.0, 0.4))
    assert not torch.equal(mapped, sparse) and float(mapped.min()) == 0.0


def test_a_constant_image_has_no_contrast() -> None:
    constant = torch.full((1, 2, 2, 2), 3.0)
    assert torch.equal(with_contrast(constant, 1.0, (0.8, 0.2, 1.0, 0.4)), constant)


def test_contrast_is_one_map_a_site() -> None:
    maps = {site: shift(site, contrast=0.5).acquisition(case).contrast_map for site in "xyz" for case in "ab"}
    assert len(set(maps.values())) == 3
    for values in maps.values():
        assert max(values) == 1.0 and min(values) >= 0.0
    assert {shift("x", contrast=0.5).acquisition(case).contrast_map for case in "abc"} == {maps["x"]}
    assert len({shift("x", contrast=0.5).acquisition(case).contrast for case in "abc"}) == 3
    record = shift("x", contrast=0.5).apply(make()).record
    assert tuple(record[f"scanner.contrast_map.{at}"] for at in (0.3, 0.5, 0.75, 1.0)) == maps["x"]


def test_a_spike_is_one_sample_of_k_space() -> None:
    """Against NumPy's FFT: of (12, 15, 14) samples, position (0.75, 0.4, 0.25) is (9, 6, 3) of the centred spectrum."""
    case = make()
    spiked = through(case, Acquisition(spike=0.3, spike_position=(0.75, 0.4, 0.25)))[0].double().numpy()
    spectrum = np.fft.fftshift(np.fft.fftn(case.image_CIJK[0].double().numpy()))
    spectrum[9, 6, 3] += 0.3 * np.abs(spectrum).max()
    expected = np.fft.ifftn(np.fft.ifftshift(spectrum)).real
    np.testing.assert_allclose(spiked, np.abs(expected), atol=1e-4)


def test_spikes_strike_elsewhere_in_every_scan() -> None:
    scans = [shift(spike=0.2).acquisition(case) for case in "abcdef"]
    assert len({scan.spike_position for scan in scans}) == 6
    record = shift(spike=0.2).apply(make()).record
    assert (record["scanner.spike.i"], record["scanner.spike.j"], record["scanner.spike.k"]) == scans[0].spike_position


def test_later_settings_leave_earlier_draws_alone() -> None:
    """The numbers of seed 7, site `site`, scan `a`, from the address and the order in which they were always drawn."""
    rng = generator(7, "scanner", "site")
    coefficients = 0.4 * torch.randn(len(BIAS_POWERS), generator=rng, dtype=torch.float64)
    log_gamma = math.log(0.7) + (math.log(1.4) - math.log(0.7)) * float(torch.rand((), generator=rng))
    signature = shift(**ALL, field_strength_t=3.0).signature()
    assert signature.bias_field == tuple(coefficients.tolist()) and signature.gamma == pytest.approx(math.exp(log_gamma))
    jitter = torch.randn(4 + len(BIAS_POWERS), generator=generator(7, "scanner", "site", "a"), dtype=torch.float64)
    scan = shift(**ALL, field_strength_t=3.0).acquisition("a")
    assert scan.blur_mm == pytest.approx(0.8 * math.exp(0.2 * float(jitter[0])))
    assert scan.noise == pytest.approx(0.1 * math.exp(0.2 * float(jitter[2])))


@pytest.mark.parametrize("setting", [{"bias_field": 0.3}, {"contrast": 0.5}, {"intensity_scale": (2.0, 2.0)}])
def test_factors_and_maps_are_refused_for_ct(setting: dict[str, Any]) -> None:
    ct = replace(make(), image_CIJK=1000 * (make().image_CIJK - 1))
    with pytest.raises(DataError, match=rf"case a: scanner {next(iter(setting))} must be left out .* got values down to -"):
        shift(**setting).apply(ct)
    # What interpolation leaves under zero is no CT.
    overshoot = make().image_CIJK.clone()
    overshoot[0, 0, 0, 0] = -0.01
    shift(**setting).apply(replace(make(), image_CIJK=overshoot))
