"""The phantoms beyond the knee: anatomy by published volumes, labels by geometry, populations by what they promise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from raykd.data.phantom.casting import Casting, Fault
from raykd.data.phantom.families import FAMILIES
from raykd.data.phantom.family import Profile
from raykd.data.phantom.knee import STRUCTURES, build_anatomy, draw_subject, render
from raykd.data.sources.phantom import PhantomSettings, PhantomSource
from raykd.numerics.rng import numpy_generator
from raykd.scenario.errors import DataError

COARSE: dict[str, tuple[tuple[int, int, int], tuple[float, float, float]]] = {
    "abdomen_ct": ((80, 58, 40), (5.0, 5.0, 7.0)),
    "cardiac_mr": ((84, 84, 19), (2.5, 2.5, 6.0)),
    "ultrasound": ((64, 64, 40), (0.8, 0.6, 1.44)),
    "casting_ct": ((62, 62, 38), (1.6, 1.6, 1.6)),
}
OTHERS = list(COARSE)
SOUND = Profile(severity=0.0)


def draw(anatomy: str, seed: int, profile: Profile = SOUND) -> Any:
    return FAMILIES[anatomy].draw(numpy_generator(seed, "subject"), profile)


def scan(anatomy: str, subject: Any, protocol: str | None = None, grid: Any = None, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    family = FAMILIES[anatomy]
    shape, spacing_mm = grid or COARSE[anatomy]
    return family.scan(subject, protocol or family.protocols[0], shape, spacing_mm, numpy_generator(seed, "scan"))


def volumes_ml(anatomy: str, label: np.ndarray, spacing_mm: Any = None) -> dict[str, float]:
    voxel_ml = np.prod(spacing_mm or COARSE[anatomy][1]) / 1000
    return {name: float(np.isin(label, labels).sum() * voxel_ml) for name, labels in FAMILIES[anatomy].structures.items()}


# --- all of them -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anatomy", OTHERS)
def test_a_severe_population_shows_every_structure_and_a_sound_one_no_disease(anatomy: str) -> None:
    shown = [volumes_ml(anatomy, scan(anatomy, draw(anatomy, seed, Profile(severity=1.0)))[1]) for seed in range(3)]
    assert all(max(volumes[name] for volumes in shown) > 0 for name in FAMILIES[anatomy].structures)
    image, label = scan(anatomy, draw(anatomy, 0))
    assert image.dtype == np.float32 and np.isfinite(image).all() and label.dtype == np.uint8
    sound = volumes_ml(anatomy, label)
    diseased = {"liver_tumour", "scar", "nodule", "gas_pore", "shrinkage", "inclusion", "void", "fault"}
    assert all((volume == 0) == (name in diseased) for name, volume in sound.items())


@pytest.mark.parametrize("anatomy", OTHERS)
def test_an_address_gives_the_same_bits_and_another_does_not(anatomy: str) -> None:
    subject = draw(anatomy, 3, Profile(severity=0.7))
    assert subject == draw(anatomy, 3, Profile(severity=0.7)) != draw(anatomy, 4, Profile(severity=0.7))
    first, again, other = (scan(anatomy, subject, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first[0], again[0]) and not np.array_equal(first[0], other[0])
    assert np.array_equal(first[1], other[1])  # another scan of the same subject


@pytest.mark.parametrize("anatomy", OTHERS)
def test_protocols_differ_in_the_image_alone(anatomy: str) -> None:
    subject = draw(anatomy, 5)
    scans = [scan(anatomy, subject, protocol) for protocol in FAMILIES[anatomy].protocols if protocol != "curved_5mhz"]
    assert all(np.array_equal(label, scans[0][1]) for _, label in scans)
    assert all(not np.allclose(image, scans[0][0], rtol=1e-3) for image, _ in scans[1:])


@pytest.mark.parametrize(
    ("anatomy", "structure"),
    [("abdomen_ct", "right_kidney"), ("cardiac_mr", "left_ventricle"), ("ultrasound", "thyroid"), ("casting_ct", "metal")],
)
def test_volume_grows_with_the_cube_of_the_size(anatomy: str, structure: str) -> None:
    small, large = (
        volumes_ml(anatomy, scan(anatomy, draw(anatomy, 2, Profile(size=size, severity=0.0)))[1])[structure] for size in (0.9, 1.1)
    )
    assert large / small == pytest.approx((1.1 / 0.9) ** 3, rel=0.08)


@pytest.mark.parametrize("anatomy", list(FAMILIES))
def test_what_is_missing_has_no_voxel_and_the_rest_stays(anatomy: str) -> None:
    family = FAMILIES[anatomy]
    grid = COARSE.get(anatomy, ((36, 40, 40), (3.0, 3.5, 3.5)))
    whole = scan(anatomy, draw(anatomy, 6, Profile(severity=1.0)), grid=grid)[1]
    for name in family.removable:
        lacking = scan(anatomy, draw(anatomy, 6, Profile(severity=1.0, missing=frozenset({name}))), grid=grid)[1]
        gone = np.isin(whole, family.structures[name])
        assert gone.any() and not np.isin(lacking, family.structures[name]).any(), name
        # What surrounds it may move into its place, and a nodule goes with its gland, cartilage with its patella.
        assert np.mean(lacking[~gone] != whole[~gone]) < 0.01, name


@pytest.mark.parametrize("anatomy", OTHERS)
def test_disease_grows_with_severity(anatomy: str) -> None:
    disease = {"abdomen_ct": "liver_tumour", "cardiac_mr": "scar", "ultrasound": "nodule", "casting_ct": "void"}[anatomy]
    mild, severe = (
        sum(volumes_ml(anatomy, scan(anatomy, draw(anatomy, seed, Profile(severity=s)))[1])[disease] for seed in range(3))
        for s in (0.2, 1.0)
    )
    assert severe > 3 * mild


# --- one by one ------------------------------------------------------------------------------------------------------------------


def test_abdominal_organs_have_the_volumes_of_adults() -> None:
    # Means of women and men: liver 1411 and 1710, spleen 180 and 238, one kidney 157 and 193, pancreas 64 and 87 ml (Geraghty,
    # Abdom Imaging 29:482, 2004, https://ucdavis.pure.elsevier.com/en/publications/normal-organ-volume-assessment-from-abdominal-ct);
    # single organs within about 40 %.
    expected = {
        "liver": (1411, 1710),
        "spleen": (180, 238),
        "left_kidney": (157, 193),
        "right_kidney": (157, 193),
        "pancreas": (64, 87),
    }
    subjects = [draw("abdomen_ct", seed) for seed in range(8)]
    drawn = [volumes_ml("abdomen_ct", scan("abdomen_ct", subject)[1]) for subject in subjects]
    for name, means in expected.items():
        ratio = [volumes[name] / means[subject.is_male] for volumes, subject in zip(drawn, subjects, strict=True)]
        assert np.mean(ratio) == pytest.approx(1.0, abs=0.2), name
        assert min(ratio) > 0.5 and max(ratio) < 1.6, name


def test_hearts_have_the_volumes_of_adults() -> None:
    # End-diastolic left ventricle 88 to 218 ml, myocardium 62 to 176 ml (mass over 1.05 g/ml), right ventricle 87 to 260 ml:
    # Petersen et al., J Cardiovasc Magn Reson 19:18, 2017, https://doi.org/10.1186/s12968-017-0327-9.
    ranges = {"left_ventricle": (88, 218), "myocardium": (50, 176), "right_ventricle": (87, 260)}
    drawn = [volumes_ml("cardiac_mr", scan("cardiac_mr", draw("cardiac_mr", seed))[1]) for seed in range(6)]
    for name, (low, high) in ranges.items():
        assert low * 1.1 < np.mean([volumes[name] for volumes in drawn]) < high * 0.9, name
        assert all(0.7 * low < volumes[name] < 1.3 * high for volumes in drawn), name


def test_the_left_ventricle_lies_in_its_wall() -> None:
    label = scan("cardiac_mr", draw("cardiac_mr", 1))[1]
    cavity, wall = label == 1, np.isin(label, (2, 3))
    middle = np.argwhere(cavity)[:, 2].mean().astype(int)
    beside = np.zeros_like(cavity[..., middle])
    for axis in (0, 1):
        for step in (-1, 1):
            beside |= np.roll(cavity[..., middle], step, axis)
    beside &= ~cavity[..., middle]
    assert wall[..., middle][beside].all()


def test_a_lobe_of_the_thyroid_has_the_volume_of_an_adult() -> None:
    # 7 to 10 ml a lobe on average; the isthmus counts here too.
    drawn = [volumes_ml("ultrasound", scan("ultrasound", draw("ultrasound", seed))[1])["thyroid"] for seed in range(6)]
    assert 6.5 < np.mean(drawn) < 11 and all(4 < volume < 16 for volume in drawn)


def test_the_windpipe_lies_on_the_other_side_of_a_left_lobe() -> None:
    for side, sign in (("right", 1), ("left", -1)):
        label = scan("ultrasound", draw("ultrasound", 7, Profile(severity=0.0, side=side)))[1]  # type: ignore[arg-type]
        lobe, windpipe, carotid = (np.argwhere(label == n)[:, 0].mean() for n in (1, 5, 3))
        assert sign * (carotid - lobe) > 0 > sign * (windpipe - lobe)


def test_organs_have_the_contrast_of_their_phase() -> None:
    subject = replace(draw("abdomen_ct", 1, Profile(severity=1.0)), steatosis=0.0)
    means = {}
    for protocol in ("native", "arterial", "portal_venous"):
        image, label = scan("abdomen_ct", subject, protocol)
        structures = FAMILIES["abdomen_ct"].structures
        means[protocol] = {name: np.median(image[np.isin(label, structures[name])]) for name in structures}
    native, arterial, portal = means.values()
    assert native["liver_parenchyma"] > native["spleen"] - 5 > native["left_kidney"]
    assert arterial["aorta"] > 150 > arterial["vena_cava"]
    assert portal["left_kidney"] > portal["liver_parenchyma"] > portal["liver_tumour"] + 15 > portal["gallbladder"] + 15
    assert portal["liver_parenchyma"] > native["liver_parenchyma"] + 30
    assert image[0, 0].max() < -900  # air beside the patient, in Hounsfield units


def test_blood_is_brighter_than_muscle_on_cine_and_scar_on_late_enhancement() -> None:
    subject = draw("cardiac_mr", 2, Profile(severity=1.0))
    cine, late = (scan("cardiac_mr", subject, protocol) for protocol in ("cine_ssfp", "lge"))
    blood, muscle, scar = (cine[1] == n for n in (1, 2, 3))
    assert np.median(cine[0][blood]) > 1.5 * np.median(cine[0][muscle])
    assert np.median(late[0][scar]) > 2 * np.median(late[0][muscle])


def sound_casting(*faults: Fault) -> Casting:
    straight = draw("casting_ct", 1)
    pose = replace(straight.pose, shift_mm=(0.0, 0.0, 0.0), rotation_deg=(0.0, 0.0, 0.0), scale=1.0)
    return replace(straight, pose=pose, hub_mm=20.0, bore_mm=11.0, faults=faults)


def test_a_round_pore_has_the_volume_of_its_sphere_and_is_dark() -> None:
    # In the middle of the wall of the hub, between 11 and 20 mm.
    subject = sound_casting(Fault("gas_pore", (15.5, 0.0, 5.0), (3.0, 3.0, 3.0)))
    grid = ((80, 40, 40), (0.6, 0.6, 0.6))
    image, label = scan("casting_ct", subject, grid=grid)
    assert (label == 2).sum() * 0.6**3 == pytest.approx(4 / 3 * np.pi * 27, rel=0.03)
    assert np.argwhere(label == 2).mean(axis=0) == pytest.approx([39.5 + 15.5 / 0.6, 19.5, 19.5 + 5 / 0.6], abs=0.1)
    assert np.median(image[label == 2]) < 0.3 * np.median(image[label == 1])


def test_faults_lie_inside_the_part() -> None:
    for seed in range(3):
        subject = draw("casting_ct", seed, Profile(severity=1.0))
        solid, faulty = (scan("casting_ct", part)[1] for part in (replace(subject, faults=()), subject))
        assert np.array_equal(faulty > 0, solid > 0) and (faulty > 1).any()


# --- source ----------------------------------------------------------------------------------------------------------------------


def source(anatomy: str, classes: tuple[str, ...], **settings: Any) -> PhantomSource:
    block: dict[str, Any] = {"name": "phantom", "anatomy": anatomy, "num_cases": 5}
    if anatomy in COARSE:
        block["spacing_mm"] = COARSE[anatomy][1]
    return PhantomSource(PhantomSettings.model_validate({**block, **settings}), classes, 3, "site", Path())


def test_defaults_are_those_of_the_anatomy_and_survive_a_resolved_scenario() -> None:
    for anatomy, family in FAMILIES.items():
        settings = PhantomSettings.model_validate({"name": "phantom", "anatomy": anatomy, "num_cases": 1})
        assert (settings.protocol, settings.spacing_mm) == (family.protocols[0], family.spacing_mm)
        assert settings.field_of_view_mm == family.field_of_view_mm
        assert PhantomSettings.model_validate_json(settings.model_dump_json()) == settings


def test_a_knee_of_default_population_is_the_knee_of_its_address() -> None:
    knees = source("knee", ("femur", "tibial_cartilage"), spacing_mm=(4.5, 4.0, 3.5), side="left", kl_grades=(2, 3))
    case = knees.load(knees.keys()[1])
    rng = numpy_generator(3, "phantom-subject", "site", 1)
    subject = draw_subject(rng, kl_grade=int(rng.choice((2, 3))), side="left")
    anatomy = build_anatomy(subject, (24, 35, 40), (4.5, 4.0, 3.5))
    image = render(anatomy, "dess_we", numpy_generator(3, "phantom-scan", "site", 1))
    assert torch.equal(case.image_CIJK[0], torch.from_numpy(image))
    assert case.label_IJK is not None
    assert np.array_equal(case.label_IJK.numpy() == 2, np.isin(anatomy.label_IJK, STRUCTURES["tibial_cartilage"]))


@pytest.mark.parametrize("anatomy", list(FAMILIES))
def test_traits_are_the_record_without_a_scan(anatomy: str) -> None:
    classes = (next(iter(FAMILIES[anatomy].structures)),)
    severity = {} if anatomy == "knee" else {"severity": (0.25, 0.5)}
    size = {"spacing_mm": (5.0, 5.0, 5.0)} if anatomy == "knee" else {}
    phantom = source(anatomy, classes, population={"size": (0.9, 1.1), **severity}, **size)
    keys = phantom.keys()
    traits = [phantom.traits(key) for key in keys]
    record = phantom.load(keys[2]).record
    assert {f"phantom.{name}": value for name, value in traits[2].items()}.items() <= record.items()
    assert len({trait["size"] for trait in traits}) == 5
    assert all(0.9 <= float(trait["size"]) <= 1.1 for trait in traits)
    assert anatomy == "knee" or all(0.25 <= float(trait["severity"]) <= 0.5 for trait in traits)


def test_structures_are_missing_as_often_as_the_population_says() -> None:
    population = {"missing": {"spleen": 1.0, "gallbladder": 0.5}}
    phantom = source("abdomen_ct", ("spleen", "gallbladder", "liver"), num_cases=200, population=population)
    keys = phantom.keys()
    lost = [str(phantom.traits(key)["missing"]).split() for key in keys]
    assert all("spleen" in names for names in lost)
    assert np.mean(["gallbladder" in names for names in lost]) == pytest.approx(0.5, abs=0.11)  # three standard deviations
    label = phantom.load(keys[0]).label_IJK
    assert label is not None and 1 not in label and 3 in label and (2 in label) == ("gallbladder" not in lost[0])


def test_another_population_setting_changes_no_other_draw() -> None:
    plain, other = (
        source("abdomen_ct", ("liver",), population=population)
        for population in ({"severity": (0.5, 0.5)}, {"severity": (0.5, 0.5), "missing": {"spleen": 1.0}})
    )
    first, second = (phantom.traits(phantom.keys()[1]) for phantom in (plain, other))
    assert {**first, "missing": "spleen"} == second


def test_classes_are_those_of_the_anatomy() -> None:
    with pytest.raises(DataError, match="got 'femur'"):
        source("abdomen_ct", ("femur",))
    with pytest.raises(DataError, match="'liver_tumour' and 'liver' share"):
        source("abdomen_ct", ("liver", "liver_tumour"))


@pytest.mark.parametrize(
    ("anatomy", "wrong", "message"),
    [
        ("cardiac_mr", {"protocol": "dess_we"}, "must be a protocol of cardiac_mr: 'cine_ssfp', 'cine_spgr'"),
        ("casting_ct", {"side": "left"}, "does not apply to casting_ct"),
        ("ultrasound", {"kl_grades": (1,)}, "does not apply to ultrasound"),
        ("abdomen_ct", {"field_of_view_mm": (100.0, 200.0, 200.0)}, "each edge must be 150 to 500 mm"),
        ("knee", {"population": {"severity": (0.0, 1.0)}}, "use 'kl_grades'"),
        (
            "abdomen_ct",
            {"population": {"missing": {"aorta": 0.5}}},
            "'aorta' cannot be absent from abdomen_ct; what can be: 'gallbladder'",
        ),
        ("abdomen_ct", {"population": {"size": (1.1, 0.9)}}, "lowest must not be above"),
    ],
)
def test_settings_are_checked_against_the_anatomy(anatomy: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        source(anatomy, (), **wrong)


def test_a_window_cuts_intensities_and_nothing_else(tmp_path: Path) -> None:
    settings = {"name": "phantom", "anatomy": "abdomen_ct", "num_cases": 1, "spacing_mm": [12.0, 12.0, 12.0]}
    case, cut = (
        PhantomSource(PhantomSettings.model_validate_json(json.dumps(settings | clip)), ("liver",), 0, "here", tmp_path)
        for clip in ({}, {"clip": [-160, 240]})
    )
    whole, window = case.load(case.keys()[0]), cut.load(cut.keys()[0])
    assert whole.image_CIJK.min() < -500
    assert window.image_CIJK.equal(whole.image_CIJK.clamp(-160, 240))
    assert window.label_IJK is not None and whole.label_IJK is not None and window.label_IJK.equal(whole.label_IJK)


def test_a_window_without_a_width_is_refused() -> None:
    with pytest.raises(ValueError, match="low < high"):
        PhantomSettings(name="phantom", num_cases=1, clip=(3.0, 3.0))
