"""What content should make a user look twice is told, and sound content is not."""

from __future__ import annotations

from typing import Any

import pytest

from raykd.data.content import CaseFacts, content_notes

CORD = {"spinal_cord": (2,)}


def case(name: str, *, voxels: dict[int, int] | None = None, **values: Any) -> CaseFacts:
    """A case of voxels of 10 x 10 x 10 mm, a millilitre each."""
    given: dict[str, Any] = {"shape": (10, 10, 10), "spacing_mm": (10.0, 10.0, 10.0), "contents": (), **values}
    return CaseFacts("basel", name, name, voxels=voxels, **given)


def cords(*volumes_ml: int) -> list[CaseFacts]:
    return [case(str(index), voxels={0: 900, 2: volume}) for index, volume in enumerate(volumes_ml)]


def test_a_cord_of_a_litre_beside_others_of_millilitres_is_told() -> None:
    (note,) = content_notes(cords(31, 38, 35, 1049, 33, 40), CORD)
    # The median of 31, 33, 35, 38, 40, 1049 is the geometric mean of 35 and 38, as logarithms are averaged: 36.5.
    assert note == (
        "basel: spinal_cord should be about as large as in other cases (median 36.5 mL of 6), got 1,049 mL in 3; look at it"
    )


def test_several_volumes_of_a_class_are_one_note() -> None:
    (note,) = content_notes(cords(30, 30, 30, 30, 30, 1000, 5), CORD)
    assert note.endswith("got 1,000 mL in 5, 5 mL in 6; look at them")


@pytest.mark.parametrize(
    ("volumes", "told"),
    [
        ((100, 100, 100, 100, 301), ["4"]),  # no spread: the factor of 3 decides
        ((100, 100, 100, 100, 299), []),
        ((300, 300, 300, 300, 99), ["4"]),  # a third counts as three times
        ((40, 80, 160, 320, 640, 2000), []),  # structures that differ as tumours do have a spread of their own
        ((100, 100, 100, 5000), []),  # too few cases to say who is wrong
        ((100, 100, 100, 100, 0), []),  # absent is no volume
        ((3, 3, 3, 3, 29), []),  # a few voxels
    ],
)
def test_a_volume_is_unlike_the_others_by_factor_and_by_spread(volumes: tuple[int, ...], told: list[str]) -> None:
    notes = content_notes(cords(*volumes), CORD)
    told_of = [note for note in notes if "about as large" in note]
    assert [note.rpartition(" mL in ")[2].removesuffix("; look at it") for note in told_of] == told


def test_volumes_are_of_all_values_of_a_class_and_of_every_value_where_classes_are_not_known() -> None:
    cases = [case(str(index), voxels={1: 50, 2: 50}) for index in range(4)] + [case("4", voxels={1: 2000, 2: 50})]
    assert ["whole" in note and "2,050 mL" in note for note in content_notes(cases, {"whole": (1, 2)})] == [True]
    assert ["value 1" in note and "2,000 mL" in note for note in content_notes(cases)] == [True]


def test_classes_that_labels_lack_are_one_note_whoever_knows_the_classes() -> None:
    cases = [case("a", voxels={0: 900, 1: 50}), case("b", voxels={0: 1000}), case("c")]
    (known,) = content_notes(cases, {"tibia": (1,), "femur": (2, 3)})
    assert "basel: some labels have no voxel of a class: tibia in 1 of 2 (b), femur in 2 of 2 (a, b);" in known
    assert known.endswith("for what no case has, write [] in label_values (femur)")
    (unknown,) = content_notes(cases)
    assert "no voxel of a class: every class in 1 of 2 (b);" in unknown
    assert content_notes(cases[:1] + cases[2:], {"tibia": (1,)}) == []


def test_a_class_that_nobody_looked_for_or_that_is_absent_is_not_empty() -> None:
    cases = [case("a", voxels={1: 50}, outlined=(1,)), case("b", voxels={1: 50}, absent=(2,)), case("c", voxels={2: 50})]
    (note,) = content_notes(cases, {"tibia": (1,), "femur": (2,)})
    assert "no voxel of a class: tibia in 1 of 3 (c);" in note


def test_ct_read_as_mr_is_told() -> None:
    cases = [case(str(index), darkest=-1024.0) for index in range(2)] + [case("2", darkest=0.0)]
    (note,) = content_notes(cases, modality="mr")
    assert "look like CT (voxels down to -1024)" in note and "modality: ct" in note
    assert content_notes(cases, modality="ct") == []
    assert content_notes([case("0", darkest=-4.0)], modality="mr") == []  # MR with its mean taken away
