"""Scores of a model on a case as rows of a table, and as the sums that trust is built from."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from raykd.data.case import Case, affine_from_spacing
from raykd.data.heterogeneity.resolution import resample_case
from raykd.data.native import native_reference, with_native_volumes
from raykd.federation.evaluation import (
    calibration_rows,
    case_rows,
    check_tolerance,
    native_scores,
    support_scores,
    tolerance_problems,
)
from raykd.federation.inference import Prediction
from raykd.scenario.errors import DataError
from raykd.scenario.load import scenario_from_dict
from raykd.scenario.schema import Scenario

SOURCE = {"name": "phantom", "num_cases": 2}
SCENARIO: dict[str, Any] = {
    "name": "scores",
    "classes": ["femoral_cartilage", "tibial_cartilage", "patellar_cartilage"],
    "repository": {"source": SOURCE, "num_validation": 0, "teacher": {"network": {"name": "unet"}}},
    "clients": [{"group": "a", "source": SOURCE}],
    "student": {"network": {"name": "unet"}},
    "method": {"name": "fedavg"},
}
SPACING_MM = (2.0, 1.0, 0.5)


def scenario(*overrides: str) -> Scenario:
    return scenario_from_dict(copy.deepcopy(SCENARIO), Path("/"), overrides).scenario


def line(*values: int) -> Tensor:
    """A row of voxels along I."""
    return torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1)


LABEL, PREDICTED = line(1, 1, 1, 2, 0, 0), line(1, 0, 0, 2, 2, 0)


def rows(
    label: Tensor = LABEL, predicted: Tensor = PREDICTED, *overrides: str, has_surface: bool = False, **looked_for: Any
) -> list[dict[str, Any]]:
    shape = tuple(label.shape)
    affine = affine_from_spacing(SPACING_MM, shape)  # type: ignore[arg-type]
    case = Case("c-1", "p-1", torch.zeros(1, *shape), label, affine, **looked_for)
    return case_rows(
        scenario(*overrides), case, predicted, split="test", model="global", round_index=4, client_id=2, has_surface=has_surface
    )


def test_there_is_a_row_a_foreground_class_with_its_place_in_the_table() -> None:
    found = rows()
    assert [(row["class_index"], row["class_name"]) for row in found] == list(enumerate(SCENARIO["classes"], start=1))
    common = {"round": 4, "client_id": 2, "split": "test", "case_id": "c-1", "model": "global"}
    assert all(common.items() <= row.items() for row in found)


def test_dice_volumes_and_empty_classes_by_hand() -> None:
    first, second, third = rows()
    # Class 1: 3 and 1 voxels, 1 in common; class 2: 1 and 2, 1 in common; a voxel has 2 * 1 * 0.5 = 1 mm3.
    assert first["dsc"] == pytest.approx(2 * 1 / 4) and second["dsc"] == pytest.approx(2 * 1 / 3) and third["dsc"] is None
    assert (first["volume_ref_mm3"], first["volume_pred_mm3"]) == pytest.approx((3.0, 1.0))
    assert [(row["is_ref_empty"], row["is_pred_empty"]) for row in (first, second, third)] == [
        (False, False),
        (False, False),
        (True, True),
    ]


def test_a_class_that_nobody_outlined_has_no_row_and_an_empty_reference_no_score() -> None:
    """Class 2 is predicted twice where its reference has nothing: 2 mm3 that are false; class 3 is known to be absent."""
    found = rows(line(1, 0, 0), line(1, 2, 2), has_surface=True, absent=(3,))
    assert [row["reference"] for row in found] == ["outlined", "empty", "absent"]
    assert [row["dsc"] for row in found] == [1.0, None, None]
    assert [found[1][name] for name in ("nsd", "hd95_mm", "assd_mm")] == [None] * 3
    assert (found[1]["volume_ref_mm3"], found[1]["volume_pred_mm3"], found[1]["is_ref_empty"]) == (0.0, 2.0, True)
    assert [row["class_index"] for row in rows(line(1, 0, 0), line(1, 2, 2), outlined=(1, 3))] == [1, 3]
    # A missed structure is no empty reference.
    assert rows(line(1, 0), line(0, 0))[0]["dsc"] == 0.0


def test_surface_distances_are_left_out_unless_asked_for() -> None:
    assert all(row["nsd"] is None and row["hd95_mm"] is None and row["assd_mm"] is None for row in rows())


def test_surface_distances_are_in_mm_of_the_case_s_own_spacing() -> None:
    first = rows(line(1, 0, 0, 0), line(0, 0, 1, 0), has_surface=True)[0]
    # One voxel each, two steps of 2 mm apart: of the corners of each, half are 2 mm from the other's, half 4 mm.
    assert (first["nsd"], first["hd95_mm"], first["assd_mm"]) == (0.0, pytest.approx(4.0), pytest.approx(3.0))


@pytest.mark.parametrize(("wanted", "used", "nsd"), [("auto", 0.5, 0.0), ("1.9", 1.9, 0.0), ("2.0", 2.0, 0.5), ("4.0", 4.0, 1.0)])
def test_the_tolerance_of_nsd_is_the_scenario_s_or_the_finest_edge(wanted: str, used: float, nsd: float) -> None:
    first = rows(line(1, 0, 0, 0), line(0, 0, 1, 0), f"evaluation.nsd_tolerance_mm={wanted}", has_surface=True)[0]
    assert (first["nsd_tolerance_mm"], first["nsd"]) == pytest.approx((used, nsd))
    assert rows()[0]["nsd_tolerance_mm"] is None


def test_a_tolerance_below_a_voxel_is_refused_with_the_site_and_the_case() -> None:
    shape = (4, 1, 1)
    case = Case("c-1", "p-1", torch.zeros(1, *shape), line(1, 0, 0, 0), affine_from_spacing((1.25, 3.0, 3.0), shape))
    for fine in ("auto", "1.25", "2.0"):
        check_tolerance(scenario(f"evaluation.nsd_tolerance_mm={fine}"), "a", [case])
    below = scenario("evaluation.nsd_tolerance_mm=1.0")
    with pytest.raises(DataError, match=r"a: evaluation.nsd_tolerance_mm must .* got 1 mm for case c-1 with 1.25 mm"):
        check_tolerance(below, "a", [case])
    check_tolerance(scenario("evaluation={nsd_tolerance_mm: 1.0, surface_metrics: never}"), "a", [case])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["clients[0].spacing_mm=3.5"], "at least 3.5, the finest voxel edge of a,"),
        (["clients[0].spacing_mm=[null, 2.0, 2.0]", "clients[0].source={name: folder, images: a*, labels: b*}"], None),
        (["clients[0].source.spacing_mm=[4.0, 1.25, 1.5]"], "at least 1.25"),
        (["clients[0].spacing_mm=3.5", "evaluation.nsd_tolerance_mm=3.5"], None),
        (["clients[0].spacing_mm=3.5", "evaluation.surface_metrics=never"], None),
    ],
)
def test_what_a_scenario_states_is_refused_before_any_case_is_read(words: list[str], told: str | None) -> None:
    found = list(tolerance_problems(scenario("evaluation.nsd_tolerance_mm=1.0", *words)))
    assert [path for path, _ in found] == ["evaluation.nsd_tolerance_mm"] * (told is not None)
    assert all(str(told) in rule and "got 1" in rule for _, rule in found)


def test_voxels_that_nobody_annotated_do_not_count() -> None:
    first = rows(line(1, 1, 255, 255), line(1, 1, 1, 1))[0]
    assert first["dsc"] == 1.0 and first["volume_pred_mm3"] == pytest.approx(2.0)


def test_support_sums_dice_over_the_labels_that_hold_a_class() -> None:
    pairs = [
        (PREDICTED, LABEL),  # 1: 1/2, 2: 2/3, 3: not in the label
        (line(1, 1, 1, 1, 3, 3), line(1, 1, 0, 0, 3, 3)),  # 1: 2 * 2 / 6, 2: neither, 3: 1
        (line(2, 2, 0, 0, 0, 0), line(0, 0, 1, 0, 0, 0)),  # 1: missed, 2: invented
    ]
    scores = support_scores(pairs, 3)
    assert [count for _, count in scores] == [3, 1, 1]
    assert [total for total, _ in scores] == pytest.approx([1 / 2 + 2 / 3 + 0, 2 / 3, 1.0])


def test_support_ignores_voxels_that_nobody_annotated() -> None:
    assert support_scores([(line(1, 1, 1), line(1, 255, 255))], 1) == [(1.0, 1)]
    assert support_scores([(line(0, 1, 1), line(0, 255, 255))], 1) == [(0.0, 0)]


def test_without_labels_there_is_no_support() -> None:
    assert support_scores([], 2) == [(0.0, 0), (0.0, 0)]


def prediction(*probs: tuple[float, ...], known: tuple[int, ...] | None = None) -> Prediction:
    """Of a row of voxels along I, each with its class probabilities."""
    return Prediction(torch.tensor(probs).T.log().reshape(len(probs[0]), -1, 1, 1), known)


def bins(label: Tensor, said: Prediction, outlined: tuple[int, ...] | None = None) -> list[dict[str, Any]]:
    shape = tuple(label.shape)
    affine = affine_from_spacing(SPACING_MM, shape)  # type: ignore[arg-type]
    case = Case("c-1", "p-1", torch.zeros(1, *shape), label, affine, outlined=outlined)
    return calibration_rows(case, said, split="test", model="global", round_index=4, client_id=2)


def test_voxels_within_five_millimetres_of_a_structure_are_sorted_by_confidence() -> None:
    """Voxels 2 mm apart: two beside the structure count, the third does not, nor does the one that nobody annotated."""
    sure, unsure = (0.02, 0.97, 0.005, 0.005), (0.55, 0.43, 0.01, 0.01)
    found = bins(line(255, 1, 0, 0, 0), prediction(sure, sure, sure, unsure, sure))
    assert [(row["bin_index"], row["num_voxels"], row["num_correct"]) for row in found] == [(8, 1, 1), (14, 2, 1)]
    assert found[1]["sum_confidence"] == pytest.approx(2 * 0.97)
    common = {"round": 4, "client_id": 2, "split": "test", "case_id": "c-1", "patient_id": "p-1", "model": "global"}
    assert all(common.items() <= row.items() for row in found)
    assert bins(line(0, 0), prediction(sure, sure)) == []


def test_a_model_that_was_never_taught_a_class_is_right_to_call_it_background() -> None:
    """0.12 for background and 0.3 for class 2, which is unknown to it: 0.42 for none of these."""
    said = prediction((0.12, 0.35, 0.3, 0.23), (0.1, 0.79, 0.06, 0.05), known=(1, 3))
    assert said.labels_IJK.flatten().tolist() == [0, 1]
    assert [(row["bin_index"], row["num_correct"]) for row in bins(line(2, 1), said)] == [(6, 1), (11, 1)]
    assert bins(line(2, 2), said) == [], "no structure that it knows is near"


def test_where_a_class_was_not_outlined_a_model_is_right_to_see_it_in_the_background() -> None:
    """0.1 for background and 0.62 for class 2, which nobody outlined: 0.72 for none of the outlined classes, bin 10."""
    said = prediction((0.1, 0.18, 0.62, 0.1), (0.1, 0.82, 0.04, 0.04))
    told = [[(row["bin_index"], row["num_correct"]) for row in bins(line(0, 1), said, own)] for own in (None, (1, 3))]
    assert told == [[(9, 0), (12, 1)], [(10, 1), (12, 1)]]
    # Of a model taught classes 1 and 2 and labels of 1 and 3 both know class 1 alone: 0.82 for none of it, 0.82 for it, bin 12.
    both = prediction((0.1, 0.18, 0.62, 0.1), (0.1, 0.82, 0.04, 0.04), known=(1, 2))
    (row,) = bins(line(3, 1), both, (1, 3))
    assert (row["num_voxels"], row["num_correct"], row["sum_confidence"]) == (2, 2, pytest.approx(1.64))


def test_thick_slices_are_scored_on_the_grid_of_the_source_too() -> None:
    """A structure that is one voxel of 1 mm thin, seen in slices of 2 mm: the site has none of it, the source half of the scan."""
    native_label, built = line(1, 0, 1, 0, 2, 2), scenario()
    shape = (6, 1, 1)
    native = Case("c-1", "p-1", torch.zeros(1, *shape), native_label, affine_from_spacing((1.0, 1.0, 1.0), shape))
    case = with_native_volumes(resample_case(native, (2.0, None, None)), native, built.classes)
    assert case.label_IJK is not None and case.label_IJK.flatten().tolist() == [0, 0, 2]
    # The model says what the site's reference says, and of the second class a little more.
    logits = torch.tensor([[9.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0]]).reshape(4, 3, 1, 1)
    said, reference = Prediction(logits, None), native_reference(native, case)
    scores = native_scores(built, said, reference, has_surface=True)
    assert native_scores(built, said, None, has_surface=True) is None
    of: dict[str, Any] = {"split": "test", "model": "global", "round_index": 4, "client_id": 2, "has_surface": False}
    first, second, third = case_rows(built, case, said.labels_IJK, native=scores, **of)
    # On the site's grid, of voxels of 2 mm3.
    assert (first["dsc"], first["volume_ref_mm3"], second["dsc"], second["volume_ref_mm3"]) == (None, 0.0, 1.0, 2.0)
    # On the source's: class 1 is missed, class 2 has the last two voxels, and the model's spreads to a third.
    assert (first["dsc_native"], first["volume_native_mm3"], first["volume_pred_native_mm3"]) == (0.0, 2.0, 0.0)
    assert second["dsc_native"] == pytest.approx(2 * 2 / (2 + 3)) and second["volume_native_mm3"] == 2.0
    assert second["volume_pred_native_mm3"] == 3.0 and second["nsd_native"] is not None and third["dsc_native"] is None
    # Without the setting, the table says how much the thicker reference lost, and nothing else.
    plain = case_rows(built, case, said.labels_IJK, **of)
    assert [row["volume_native_mm3"] for row in plain] == [2.0, 2.0, 0.0] and "dsc_native" not in plain[0]
