"""The procedural knee: physics by hand and by Bloch simulation, anatomy by what anatomists insist on, source by its promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from raykd.data.phantom.grid import centred_axes, smooth_field
from raykd.data.phantom.knee import LABELS, PROTOCOLS, STRUCTURES, Anatomy, build_anatomy, draw_subject, render
from raykd.data.phantom.knee.population import Lesion
from raykd.data.phantom.signal_equations import dess_echoes, spin_echo, spoiled_gradient_echo
from raykd.data.sources._base import CaseKey
from raykd.data.sources.phantom import PhantomSettings, PhantomSource, PopulationSettings
from raykd.numerics.rng import numpy_generator
from raykd.scenario.errors import DataError
from raykd.scenario.registry import SOURCES

SHAPE, SPACING_MM = (54, 78, 78), (2.0, 1.8, 1.8)
VOXEL_ML = np.prod(SPACING_MM) / 1000


@pytest.fixture(scope="module")
def anatomies() -> list[Anatomy]:
    """Twelve subjects of the population; the first four left, right, left, right."""
    sides: list[Any] = ["left", "right"] * 2 + [None] * 8
    subjects = [draw_subject(numpy_generator(5, "test", n), side=side) for n, side in enumerate(sides)]
    return [build_anatomy(subject, SHAPE, SPACING_MM) for subject in subjects]


def centroid(anatomy: Anatomy, name: str) -> np.ndarray:
    return np.argwhere(np.isin(anatomy.label_IJK, STRUCTURES[name])).mean(axis=0)


def tissue_map(anatomy: Anatomy) -> np.ndarray:
    """The tissue that makes up nearly all of a voxel, "" where several do."""
    owner = np.full(anatomy.label_IJK.shape, "", dtype="U24")
    for layer in anatomy.layers:
        part = owner[layer.box]
        part[layer.opacity > 13] = ""
        part[layer.opacity > 200] = layer.tissue
    return owner


# --- physics ---------------------------------------------------------------------------------------------------------------------


def test_spin_echo_halves_per_ln2() -> None:
    # TR = T1 ln 2 recovers one half, TE = T2 ln 4 leaves one quarter.
    assert spin_echo(2.0, 800, 40, 800 * np.log(2), 40 * np.log(4)) == pytest.approx(2 * 0.5 * 0.25, rel=1e-12)


def test_spoiled_gradient_echo_at_90_and_60_degrees() -> None:
    tr, te = 600 * np.log(2), 20 * np.log(2)  # E1 = 1/2, exp(-TE/T2*) = 1/2
    assert spoiled_gradient_echo(1.0, 600, 20, tr, te, 90) == pytest.approx(0.25, rel=1e-12)
    # sin 60 (1 - 1/2) / (1 - 1/2 * 1/2) * 1/2 = sqrt(3)/2 * 2/3 * 1/2
    assert spoiled_gradient_echo(1.0, 600, 20, tr, te, 60) == pytest.approx(np.sqrt(3) / 6, rel=1e-12)


def test_spoiled_gradient_echo_peaks_at_the_ernst_angle() -> None:
    angles = np.linspace(1, 89, 8801)
    signal = [float(spoiled_gradient_echo(1.0, 1000, 30, 20, 5, angle)) for angle in angles]
    assert angles[int(np.argmax(signal))] == pytest.approx(np.rad2deg(np.arccos(np.exp(-20 / 1000))), abs=0.02)


def bloch_dess(t1: float, t2: float, tr: float, te: float, flip_deg: float) -> tuple[float, float]:
    """Steady state of isochromats that a gradient dephases by 0 to 2 pi in every repetition."""
    num = 400
    twist = np.exp(2j * np.pi * np.arange(num) / num)
    c, s = np.cos(np.deg2rad(flip_deg)), np.sin(np.deg2rad(flip_deg))
    across, along = np.zeros(num, complex), np.ones(num)
    for _ in range(int(10 * t1 / tr)):
        before = across
        tilted_y, along = c * across.imag - s * along, s * across.imag + c * along  # rotation about x
        after = across.real + 1j * tilted_y
        across = after * twist * np.exp(-tr / t2)
        along = 1 + (along - 1) * np.exp(-tr / t1)
    return float(abs(after.mean()) * np.exp(-te / t2)), float(abs(before.mean()) * np.exp(te / t2))


@pytest.mark.parametrize(("t1", "t2", "flip_deg"), [(1240, 37, 25), (370, 133, 25), (850, 13, 90)])
def test_dess_agrees_with_a_bloch_simulation(t1: float, t2: float, flip_deg: float) -> None:
    simulated = bloch_dess(t1, t2, 16.3, 4.7, flip_deg)
    assert dess_echoes(1.0, t1, t2, t2, 16.3, 4.7, flip_deg) == pytest.approx(simulated, rel=1e-3)


def test_dess_dephasing_in_the_voxel_weakens_both_echoes_alike() -> None:
    plain = dess_echoes(1.0, 1240, 37, 37, 16.3, 4.7, 25)
    dephased = dess_echoes(1.0, 1240, 37, 20, 16.3, 4.7, 25)
    factor = np.exp(-4.7 * (1 / 20 - 1 / 37))
    assert [d / p for d, p in zip(dephased, plain, strict=True)] == pytest.approx([factor, factor], rel=1e-12)


def test_contrast_of_the_protocols() -> None:
    for name, protocol in PROTOCOLS.items():
        signals = protocol.signals()
        is_suppressed = name.endswith(("_fs", "_we"))
        assert (signals["fat"] < 0.5 * signals["superficial_cartilage"]) == is_suppressed, name
        assert signals["cortical_bone"] < 0.3 * signals["superficial_cartilage"], name
        assert signals["deep_cartilage"] < signals["superficial_cartilage"], name
    t2_weighted = PROTOCOLS["t2_fse_fs"].signals()
    assert max(t2_weighted, key=lambda tissue: t2_weighted[tissue]) == "fluid"


# --- population ------------------------------------------------------------------------------------------------------------------


def test_population_has_the_stated_statistics() -> None:
    rng = numpy_generator(1, "population")
    subjects = [draw_subject(rng) for _ in range(3000)]
    grades = np.bincount([subject.kl_grade for subject in subjects], minlength=5) / len(subjects)
    assert grades == pytest.approx([0.35, 0.20, 0.20, 0.17, 0.08], abs=0.035)
    assert np.mean([subject.side == "left" for subject in subjects]) == pytest.approx(0.5, abs=0.04)
    thickness = np.log([[subject.femoral_mm, subject.patellar_mm] for subject in subjects])
    # shared sd .15 with own sd .06 and .12
    assert thickness.std(axis=0) == pytest.approx([np.hypot(0.15, 0.06), np.hypot(0.15, 0.12)], rel=0.06)
    assert np.cov(thickness.T)[0, 1] == pytest.approx(0.15**2, rel=0.12)
    assert all(not subject.lesions and not subject.osteophytes for subject in subjects if subject.kl_grade == 0)
    assert np.mean([len(subject.lesions) for subject in subjects if subject.kl_grade == 4]) == pytest.approx(4.8, abs=0.6)


def test_a_given_grade_or_side_changes_nothing_else_of_a_healthy_knee() -> None:
    drawn = [draw_subject(numpy_generator(2, "s"), kl_grade=grade, side=side) for grade, side in ((0, "left"), (1, "right"))]  # type: ignore[arg-type]
    assert replace(drawn[0], side="right", kl_grade=1, lesions=drawn[1].lesions) == drawn[1]


# --- anatomy ---------------------------------------------------------------------------------------------------------------------


def test_smooth_field_has_unit_deviation_and_does_not_depend_on_the_grid() -> None:
    fine, coarse = (
        smooth_field(numpy_generator(3, "f"), centred_axes((n, n, n), (s, s, s)), 12.0) for n, s in ((75, 3.0), (25, 9.0))
    )
    assert fine.dtype == np.float32
    assert fine.std() == pytest.approx(1, abs=0.05)
    assert np.allclose(fine[1::3, 1::3, 1::3], coarse, atol=1e-5)


def test_every_structure_is_present_and_bones_are_whole(anatomies: list[Anatomy]) -> None:
    for anatomy in anatomies:
        assert set(np.unique(anatomy.label_IJK)) == {0, *LABELS.values()}
        for bone in ("femur", "tibia", "patella"):
            assert ndimage.label(anatomy.label_IJK == LABELS[bone])[1] == 1


def test_bone_is_free_of_cartilage_and_encloses_none(anatomies: list[Anatomy]) -> None:
    for anatomy in anatomies:
        for bone in ("femur", "tibia", "patella"):
            is_bone = anatomy.label_IJK == LABELS[bone]
            assert np.array_equal(ndimage.binary_fill_holes(is_bone), is_bone)


def test_cartilage_lies_on_its_own_bone(anatomies: list[Anatomy]) -> None:
    pairs = {"femoral_cartilage": "femur", "tibial_cartilage": "tibia", "patellar_cartilage": "patella"}
    for anatomy in anatomies:
        for cartilage, bone in pairs.items():
            distance_mm = ndimage.distance_transform_edt(anatomy.label_IJK != LABELS[bone], sampling=SPACING_MM)
            assert distance_mm[np.isin(anatomy.label_IJK, STRUCTURES[cartilage])].max() < 8


def test_orientation_is_right_anterior_superior(anatomies: list[Anatomy]) -> None:
    for anatomy in anatomies:
        towards_medial = -1 if anatomy.subject.side == "right" else 1
        for part in ("tibial_cartilage", "meniscus"):
            medial, lateral = (centroid(anatomy, f"{side}_{part}") for side in ("medial", "lateral"))
            assert (medial - lateral)[0] * towards_medial * SPACING_MM[0] > 25
        femur, tibia, patella = (centroid(anatomy, bone) for bone in ("femur", "tibia", "patella"))
        assert (femur - tibia)[2] * SPACING_MM[2] > 40
        assert (patella - femur)[1] * SPACING_MM[1] > 25
    assert {anatomy.subject.side for anatomy in anatomies} == {"left", "right"}


def test_left_knee_is_the_mirror_image_of_the_right() -> None:
    right = draw_subject(numpy_generator(8, "mirror"), kl_grade=3, side="right")
    labels = [build_anatomy(s, (36, 56, 56), (3.0, 2.5, 2.5)).label_IJK for s in (right, replace(right, side="left"))]
    assert np.mean(labels[0] != labels[1][::-1]) < 1e-4
    assert np.mean(labels[0] != labels[1]) > 1e-2


def test_volumes_lie_in_the_calibrated_range(anatomies: list[Anatomy]) -> None:
    # Mean and sd over 68 real label maps; single knees within 3.5 sd.
    real = {"femoral_cartilage": (11.9, 3.3), "tibial_cartilage": (4.4, 1.0), "patellar_cartilage": (2.8, 1.0)}
    for name, (mean_ml, sd_ml) in real.items():
        volumes_ml = [np.isin(anatomy.label_IJK, STRUCTURES[name]).sum() * VOXEL_ML for anatomy in anatomies]
        assert np.mean(volumes_ml) == pytest.approx(mean_ml, abs=0.6 * sd_ml), name
        assert np.all(np.abs(np.array(volumes_ml) - mean_ml) < 3.5 * sd_ml), name


def test_two_grids_of_a_subject_agree_in_volume() -> None:
    subject = draw_subject(numpy_generator(6, "grids"), kl_grade=1)
    grids: list[tuple[Any, Any]] = [((54, 96, 128), (2.0, 1.45, 1.1)), ((72, 88, 112), (1.5, 1.6, 1.25))]
    volumes = [np.bincount(build_anatomy(subject, *grid).label_IJK.ravel(), minlength=10)[1:] * np.prod(grid[1]) for grid in grids]
    is_bone = np.isin(np.arange(1, 10), [LABELS[bone] for bone in ("femur", "tibia", "patella")])
    ratio = volumes[0] / volumes[1]
    assert ratio[is_bone] == pytest.approx(np.ones(3), abs=0.015)
    assert ratio[~is_bone] == pytest.approx(np.ones(6), abs=0.08)


def test_plates_touch_but_bones_do_not(anatomies: list[Anatomy]) -> None:
    for anatomy in anatomies:
        label = anatomy.label_IJK
        if anatomy.subject.kl_grade < 2:
            assert not (ndimage.binary_dilation(label == LABELS["femur"]) & (label == LABELS["tibia"])).any()
            near = ndimage.binary_dilation(label == LABELS["femoral_cartilage"], iterations=2)
            assert (near & np.isin(label, STRUCTURES["tibial_cartilage"])).any()


def test_a_full_defect_bares_the_bone_where_it_lies() -> None:
    healthy = draw_subject(numpy_generator(9, "worn"), kl_grade=0)
    defect = Lesion(x_mm=21, y_mm=0, radius_mm=9, depth=1.0, is_femoral=False, is_tibial=True)
    whole, worn = (
        (build_anatomy(subject, SHAPE, SPACING_MM).label_IJK == LABELS["medial_tibial_cartilage"]).any(axis=2)
        for subject in (healthy, replace(healthy, lesions=(defect,)))
    )
    # Cartilage of 2.8 mm falls under .35 mm where exp(-(r/9)^4) > .87: r < 5.5 mm, 95 mm2. Half-covered voxels and the narrowed
    # joint space widen it, but not beyond the radius of the lesion: 254 mm2.
    bared_mm2 = (whole & ~worn).sum() * SPACING_MM[0] * SPACING_MM[1]
    assert 95 < bared_mm2 < 254


def test_a_grid_that_misses_a_bone_is_refused() -> None:
    with pytest.raises(DataError, match="must reach every bone"):
        build_anatomy(draw_subject(numpy_generator(0, "s")), (10, 10, 10), (2.0, 2.0, 2.0))


# --- images ----------------------------------------------------------------------------------------------------------------------


def test_image_contrast(anatomies: list[Anatomy]) -> None:
    anatomy = anatomies[0]
    tissues = tissue_map(anatomy)
    means = {}
    for protocol in ("t2_fse_fs", "pd_fse_fs", "iw_fse"):
        image = render(anatomy, protocol, numpy_generator(1, "scan"))
        assert image.dtype == np.float32 and image.shape == SHAPE and np.isfinite(image).all() and image.min() >= 0
        means[protocol] = {tissue: image[tissues == tissue].mean() for tissue in ("fluid", "muscle", "fat_pad", "fatty_marrow")}
        outside = image[:2, :2].mean()  # the corner along the leg is air
        assert outside < 0.3 * means[protocol]["muscle"]
    assert max(means["t2_fse_fs"], key=lambda tissue: means["t2_fse_fs"][tissue]) == "fluid"
    assert means["t2_fse_fs"]["fluid"] > 3 * means["t2_fse_fs"]["muscle"]
    for fat in ("fat_pad", "fatty_marrow"):
        assert means["pd_fse_fs"][fat] < 0.8 * means["pd_fse_fs"]["muscle"]
        assert means["iw_fse"][fat] > 1.8 * means["iw_fse"]["muscle"]


def test_noise_has_the_stated_snr(anatomies: list[Anatomy]) -> None:
    image = render(anatomies[0], "spgr_we", numpy_generator(4, "scan"))
    # Rayleigh noise in air: the mean square is twice the variance of each channel.
    noise_sd = np.sqrt(np.mean(image[:2, :2].astype(np.float64) ** 2) / 2)
    protocol = PROTOCOLS["spgr_we"]
    assert noise_sd == pytest.approx(100 * protocol.signals()["superficial_cartilage"] / protocol.snr, rel=0.25)


def test_same_address_same_bits_other_address_other_image(anatomies: list[Anatomy]) -> None:
    first, again, other = (render(anatomies[0], "dess_we", numpy_generator(seed, "scan")) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, rtol=0.01)
    rebuilt = build_anatomy(draw_subject(numpy_generator(5, "test", 0), side="left"), SHAPE, SPACING_MM)
    assert np.array_equal(rebuilt.label_IJK, anatomies[0].label_IJK)
    assert np.array_equal(render(rebuilt, "dess_we", numpy_generator(1, "scan")), first)


def test_unknown_protocol_is_refused_with_the_nearest(anatomies: list[Anatomy]) -> None:
    with pytest.raises(DataError, match="did you mean 'dess_we'"):
        render(anatomies[0], "dess", numpy_generator(1, "scan"))


# --- source ----------------------------------------------------------------------------------------------------------------------

CLASSES = ("tibial_cartilage", "femur", "lateral_meniscus")


def source(classes: tuple[str, ...] = CLASSES, owner: str = "knee", seed: int = 3, **settings: Any) -> PhantomSource:
    block = {"name": "phantom", "num_cases": 3, "spacing_mm": (4.5, 4.0, 3.5), **settings}
    return PhantomSource(PhantomSettings.model_validate(block), classes, seed, owner, Path())


def test_source_is_registered_and_knows_the_protocols() -> None:
    assert SOURCES.get("phantom") is PhantomSource
    assert [source(protocol=name).settings.protocol for name in PROTOCOLS] == list(PROTOCOLS)


def test_source_numbers_classes_in_the_order_of_the_scenario() -> None:
    phantom = source()
    keys = phantom.keys()
    assert keys == [CaseKey(f"knee-00{n}", f"knee-00{n}@seed3") for n in range(3)]  # another seed draws other patients
    case = phantom.load(keys[2])
    assert case.shape == (24, 35, 40) and case.label_IJK is not None and case.label_IJK.shape == (24, 35, 40)
    assert case.spacing_mm == pytest.approx((4.5, 4.0, 3.5))
    # The middle of the grid is the origin of the affine.
    assert case.affine @ [11.5, 17, 19.5, 1] == pytest.approx([0, 0, 0, 1])
    counts = case.label_IJK.unique(return_counts=True)
    assert counts[0].tolist() == [0, 1, 2, 3]
    assert counts[1].tolist()[2] > counts[1].tolist()[1] > counts[1].tolist()[3]  # femur > tibial cartilage > a meniscus


def test_union_is_the_sum_of_its_parts() -> None:
    key = source().keys()[0]
    parts = source(("medial_tibial_cartilage", "lateral_tibial_cartilage")).load(key).label_IJK
    whole = source(("tibial_cartilage",)).load(key).label_IJK
    assert parts is not None and whole is not None
    assert (parts > 0).equal(whole > 0) and len(parts.unique()) == 3


def test_cases_depend_on_owner_and_seed_and_nothing_else() -> None:
    key = source().keys()[1]
    reference = source().load(key)
    more = source(num_cases=9)
    more.load(more.keys()[0])
    assert more.load(key).image_CIJK.equal(reference.image_CIJK)
    for other in (source(owner="other"), source(seed=4)):
        case = other.load(other.keys()[1])
        assert not case.image_CIJK.equal(reference.image_CIJK)
        assert case.label_IJK is not None and reference.label_IJK is not None and not case.label_IJK.equal(reference.label_IJK)
        assert other.fingerprint() != source().fingerprint()
    assert source(protocol="iw_fse").fingerprint() != source().fingerprint() == source().fingerprint()


def test_grades_and_sides_can_be_restricted() -> None:
    phantom = source(kl_grades=(1, 3), side="left", num_cases=6)
    source_keys = phantom.keys()
    records = [phantom.load(key).record for key in source_keys]
    assert {record["phantom.side"] for record in records} == {"left"}
    assert {record["phantom.kl_grade"] for record in records} == {1.0, 3.0}


def test_protocols_share_the_anatomy_of_an_address() -> None:
    key = source().keys()[0]
    first, second = (source(protocol=protocol).load(key) for protocol in ("dess_we", "t1_fse"))
    assert first.label_IJK is not None and second.label_IJK is not None and first.label_IJK.equal(second.label_IJK)
    assert not first.image_CIJK.equal(second.image_CIJK)


def test_unknown_and_overlapping_classes_are_refused() -> None:
    with pytest.raises(DataError, match="got 'femoral_cartilege'; did you mean 'femoral_cartilage'"):
        source(("femoral_cartilege",))
    with pytest.raises(DataError, match="'medial_meniscus' and 'meniscus' share"):
        source(("femur", "meniscus", "medial_meniscus"))


def test_a_foreign_case_is_refused() -> None:
    with pytest.raises(DataError, match="knee-000 to knee-002 only"):
        source().load(CaseKey("knee-003", "knee-003@seed3"))


@pytest.mark.parametrize(
    "wrong",
    [{"protocol": "flair"}, {"num_cases": 0}, {"kl_grades": ()}, {"kl_grades": (5,)}, {"field_of_view_mm": (50.0, 140.0, 140.0)}],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        source(**wrong)


def test_a_phantom_knows_which_classes_are_absent() -> None:
    whole = PhantomSettings(name="phantom", num_cases=1, spacing_mm=(6.0, 6.0, 6.0))
    without = whole.model_copy(update={"population": PopulationSettings(missing={"patella": 1.0})})
    for settings, absent in ((whole, ()), (without, (2,))):
        made = PhantomSource(settings, ("femur", "patella"), 0, "site", Path())
        case = made.load(made.keys()[0])
        assert case.absent == absent and case.outlined is None
