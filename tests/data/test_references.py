"""Classes that nobody outlined, that are outlined as empty, or known to be absent; labels in which no class occurs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_files import classes_at, image, keys, label, problems, source, write, write_json
from typer.testing import CliRunner

from raykd.cli import app
from raykd.data.case import Case
from raykd.data.checks import inspect_cases
from raykd.data.federation import build_client_data, build_repository_data, client_site, list_cases
from raykd.data.heterogeneity.label_budget import limit_classes
from raykd.data.patches import training_case
from raykd.data.references import outlined_nowhere, refuse_empty, refuse_useless, union
from raykd.data.sources._files import FileSource
from raykd.data.sources._labels import as_label_values
from raykd.federation.description import label_classes
from raykd.federation.teacher import taught_classes, with_taught_classes
from raykd.scenario.errors import DataError
from raykd.scenario.load import dump_scenario, scenario_from_dict
from raykd.scenario.schema import Scenario

CLASSES = ("liver", "spleen", "larynx")
PATTERNS = {"name": "folder", "images": "d/*_im.nii.gz", "labels": "d/*_seg.nii.gz"}


def cases(root: Path, folder: str = "d", **labels: np.ndarray) -> None:
    for name, values in labels.items():
        write(root / f"{folder}/{name}_im.nii.gz", image(f"{folder}{name}"))
        write(root / f"{folder}/{name}_seg.nii.gz", values)


def manifest(root: Path, *rows: str, columns: str = "outlined,absent") -> dict[str, Any]:
    """A source whose manifest has the given fields after image and label, for the cases a, b, ..."""
    names = "abcdefgh"[: len(rows)]
    lines = [f"{name}_im.nii.gz,{name}_seg.nii.gz,{row}" for name, row in zip(names, rows, strict=True)]
    (root / "d/all.csv").write_text("\n".join([f"image,label,{columns}", *lines]) + "\n")
    return {"name": "folder", "manifest": "d/all.csv"}


def loaded(made: FileSource, case_id: str) -> Case:
    return made.load(next(key for key in keys(made) if key.case_id == case_id))


# Who says what was outlined


@pytest.mark.parametrize("separator", [" ", ";", "|", " | "])
def test_a_manifest_tells_the_three_words_apart_case_by_case(tmp_path: Path, separator: str) -> None:
    cases(tmp_path, a=label(1, 2, 3), b=label(1, 2), c=label(1))
    rows = f"liver{separator}Spleen,", ",larynx", f"liver{separator}spleen,larynx"
    made = source(tmp_path, CLASSES, **manifest(tmp_path, *rows))
    found = {name: loaded(made, f"{name}_im") for name in "abc"}
    # Nobody looked for the larynx in a, whose third voxel is therefore no voxel of it.
    assert found["a"].outlined == (1, 2) and classes_at(made, "a_im", (0, 0, 0), (1, 0, 0), (2, 0, 0)) == [1, 2, 0]
    assert found["b"].outlined is None and found["b"].absent == (3,)
    assert found["c"].outlined is None, "what is absent was looked for"
    assert [found["c"].reference(i, is_empty) for i, is_empty in ((1, False), (2, True), (3, True))] == [
        "outlined",
        "empty",
        "absent",
    ]
    assert all(made.traits(key) == {} for key in keys(made))


def test_a_json_manifest_may_list_names(tmp_path: Path) -> None:
    cases(tmp_path, a=label(1))
    row = {"image": "a_im.nii.gz", "label": "a_seg.nii.gz", "outlined": ["liver", "larynx"], "absent": ["larynx"]}
    write_json(tmp_path / "d/all.json", [row])
    (case,) = (loaded(source(tmp_path, CLASSES, name="folder", manifest="d/all.json"), name) for name in ("a_im",))
    assert (case.outlined, case.absent) == ((1, 3), (3,))


def test_words_that_are_no_class_and_absent_classes_with_voxels_are_refused(tmp_path: Path) -> None:
    cases(tmp_path, a=label(1), b=label(1, 3))
    lines = problems(source(tmp_path, CLASSES, **manifest(tmp_path, "livr|spleen,", ",larynx")))
    assert "all.csv:2:1" in lines[0] and "'outlined' must name classes" in lines[0] and "did you mean 'liver'?" in lines[0]
    (line,) = problems(source(tmp_path, CLASSES, **manifest(tmp_path, "liver,", ",larynx")))
    assert "case 'b_im'" in line and "'larynx' is listed as absent, got 1 voxels of it" in line


def test_an_empty_list_of_values_says_that_a_source_does_not_outline_a_class(tmp_path: Path) -> None:
    cases(tmp_path, a=label(1, 2))
    values = {"liver": [1], "spleen": [2], "larynx": []}
    made = source(tmp_path, CLASSES, **PATTERNS, label_values=values)
    assert loaded(made, "a").outlined == (1, 2) == made.outlined(keys(made)[0])
    both = source(tmp_path, CLASSES, **manifest(tmp_path, "larynx liver,"), label_values=values)
    assert loaded(both, "a_im").outlined == (1,)
    assert both.fingerprint() != source(tmp_path, CLASSES, **manifest(tmp_path, ","), label_values=values).fingerprint()


def test_what_a_layout_does_not_name_was_not_outlined(tmp_path: Path) -> None:
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "right_kidney": 2}, "file_ending": ".nii.gz"}
    write_json(tmp_path / "n/dataset.json", content)
    write(tmp_path / "n/imagesTr/a_0000.nii.gz", image("a"))
    write(tmp_path / "n/labelsTr/a.nii.gz", label(1, 2))
    block = {"name": "nnunet", "folder": "n"}
    assert loaded(source(tmp_path, CLASSES, **block), "a").outlined == (1,)
    assert loaded(source(tmp_path, ("right_kidney", "left_kidney"), **block), "a").outlined == (1,), "no misspelt right kidney"
    with pytest.raises(DataError, match=r"got 'right_kidny'; did you mean 'right_kidney'\?"):
        source(tmp_path, ("liver", "right_kidny"), **block).keys()
    with pytest.raises(DataError, match="every class must be a label of"):
        source(tmp_path, ("femur", "tibia"), **block).keys()


def test_training_classes_are_those_that_both_label_and_site_outline(tmp_path: Path) -> None:
    cases(tmp_path, a=label(1, 2, 3))
    case = loaded(source(tmp_path, CLASSES, **manifest(tmp_path, "liver spleen,")), "a_im")
    limited = limit_classes(case, CLASSES, ("larynx", "spleen"))
    assert limited.outlined == (2,) and limited.label_IJK is not None and set(limited.label_IJK.unique().tolist()) == {0, 2}
    assert training_case(limited).annotated == (2,) and training_case(case).annotated == (1, 2)
    assert limit_classes(case, CLASSES, CLASSES).outlined == (1, 2)


def test_classes_of_several_cases() -> None:
    assert union([None, None], 3) is None
    assert union([(1,), None], 3) == (1, 2, 3), "known, but not in every case"
    assert union([(3,), (1,)], 3) == (1, 3) and union([(), ()], 3) == ()


# Labels in which no class occurs


@pytest.mark.parametrize(
    ("values", "classes", "told", "line"),
    [
        ((255, 255), ("liver",), "255 in 2 voxels", "label_values: {liver: [255]}"),
        ((10, 20), ("liver", "spleen"), "10 in 1 voxels, 20 in 1 voxels", "label_values: {liver: [10], spleen: [20]}"),
        ((-1, -1, -2), ("liver", "spleen"), "-2 in 1 voxels, -1 in 2 voxels", "label_values: {liver: [-2], spleen: [-1]}"),
        ((7,), ("liver", "spleen"), "7 in 1 voxels", "label_values: {liver: [7], spleen: []}"),
    ],
)
def test_values_that_nobody_named_are_refused_with_the_line_that_maps_them(
    tmp_path: Path, values: tuple[int, ...], classes: tuple[str, ...], told: str, line: str
) -> None:
    cases(tmp_path, a=label(*values), b=label(*range(1, len(classes) + 1)))
    (problem,) = problems(source(tmp_path, classes, **PATTERNS))
    assert "case 'a'" in problem and "a_seg.nii.gz" in problem and f"got {told};" in problem and problem.endswith(line)
    made = source(tmp_path, classes, **PATTERNS)
    with pytest.raises(DataError, match="a label must hold a value of a class"):  # and so is a run without a check
        loaded(made, "a")


def test_values_beside_those_of_a_class_are_background_and_empty_labels_are_labels(tmp_path: Path) -> None:
    cases(tmp_path, a=label(1, 9), b=label())
    made = source(tmp_path, ("liver",), **PATTERNS)
    made.check()
    assert classes_at(made, "a", (0, 0, 0), (1, 0, 0)) == [1, 0] and classes_at(made, "b", (0, 0, 0)) == [0]


def test_more_values_than_classes_are_not_guessed_at() -> None:
    assert as_label_values(("liver",), [3, 5]) == "label_values: {liver: [3, 5]}"
    assert as_label_values(("liver", "spleen"), [3, 5, 8]) == "label_values: {liver: [3], spleen: [5]}"


def scenario(root: Path, repository: dict[str, Any], site: dict[str, Any], **values: Any) -> Scenario:
    data = {
        "name": "outlines",
        "classes": list(CLASSES),
        "repository": {"source": repository, "num_validation": 0, "teacher": {"network": {"name": "unet", "width": 4}}},
        "clients": [{"group": "site", "source": site, "labels": {"num_shots": 1}, "num_test": 1}],
        "student": {"network": {"name": "unet", "width": 4}},
        "method": {"name": "fedavg"},
    }
    return scenario_from_dict(data | values, root).scenario


def listed(*names: str) -> dict[str, list[int]]:
    return {name: [CLASSES.index(name) + 1] if name in names else [] for name in CLASSES}


def folder(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": "folder", "images": f"{name}/*_im.nii.gz", "labels": f"{name}/*_seg.nii.gz", **settings}


def two_owners(root: Path, *, empty: np.ndarray | None = None) -> None:
    cases(root, "r", a=label(1, 2, 3), b=label(1, 2))
    site = label(1, 3) if empty is None else empty
    cases(root, "s", a=site, b=site, c=site)


def test_notes_say_what_only_the_annotator_can_know(tmp_path: Path) -> None:
    two_owners(tmp_path)
    values = listed("liver", "larynx")
    remarks = inspect_cases(scenario(tmp_path, folder("r"), folder("s", label_values=values)), tmp_path).notes
    assert [remark.split(";")[0] for remark in remarks] == [
        "site: nobody outlined spleen in any case",
        "repository: some labels have no voxel of a class: larynx in 1 of 2 (b)",
    ]
    assert "column 'outlined'" in remarks[1] and "label_values" not in remarks[1]
    cases(tmp_path, "r", a=label(1, 2))
    (remark,) = inspect_cases(scenario(tmp_path, folder("r"), folder("s", label_values=values)), tmp_path).notes[1:]
    assert "larynx in 2 of 2" in remark and remark.endswith("for what no case has, write [] in label_values (larynx)")


def test_values_that_nobody_named_are_told_where_the_order_of_classes_maps_them(tmp_path: Path) -> None:
    """As 4 in BraTS, whose classes are 1, 2 and 4."""
    cases(tmp_path, "r", a=label(1, 2, 4), b=label(1, 2, 3))
    cases(tmp_path, "s", a=label(1, 2, 3, 4), b=label(1, 2, 3), c=label(1, 2, 3))
    values = {"liver": [1], "spleen": [2], "larynx": [3]}
    notes = inspect_cases(scenario(tmp_path, folder("r"), folder("s", label_values=values)), tmp_path).notes
    (told,) = [note for note in notes if "values of no class" in note]
    assert told.startswith("repository: labels have values of no class, which count as background: 4 in cases a;")


@pytest.mark.parametrize(
    ("empty", "values", "told"),
    [
        (label(), None, "got 0 everywhere in 3 labelled cases"),
        (label(8, 9), {"liver": [1], "spleen": [2], "larynx": [3]}, "got 8 in 3 cases, 9 in 3 cases in 3 labelled cases; map them"),
    ],
)
def test_a_site_whose_labels_hold_no_class_is_refused(
    tmp_path: Path, empty: np.ndarray, values: dict[str, list[int]] | None, told: str
) -> None:
    two_owners(tmp_path, empty=empty)
    built = scenario(tmp_path, folder("r"), folder("s", label_values=values))
    (problem,) = inspect_cases(built, tmp_path).problems[:1]
    assert problem.startswith("site: a label must hold a voxel of one of liver, spleen, larynx") and told in problem
    with pytest.raises(
        DataError, match="site: a label must hold a voxel of a class, got none of liver, spleen, larynx in any of its 2"
    ):
        build_client_data(built, built.members()[0], tmp_path)


def test_a_site_of_people_who_lack_a_class_need_not_hold_it(tmp_path: Path) -> None:
    cases(tmp_path, a=label(), b=label())
    made = source(tmp_path, CLASSES, **manifest(tmp_path, "larynx,larynx", "larynx,larynx"))
    refuse_empty("site", CLASSES, [made.load(key) for key in keys(made)])
    with pytest.raises(DataError, match="got none of larynx in any of its 1"):
        refuse_empty("site", CLASSES, [loaded(source(tmp_path, CLASSES, **manifest(tmp_path, "larynx,", "larynx,")), "a_im")])


def test_a_class_that_nobody_outlined_and_a_shot_that_teaches_nothing_are_refused(tmp_path: Path) -> None:
    two_owners(tmp_path)
    values = listed("liver", "spleen")
    built = scenario(tmp_path, folder("r", label_values=values), folder("s", label_values=listed("liver")))
    with pytest.raises(DataError, match="class 'larynx' must be outlined by somebody, got no case of site, repository"):
        list_cases(built, tmp_path)
    made = source(tmp_path, CLASSES, **folder("s", label_values=listed("liver")))
    refuse_useless(made, keys(made), ("liver", "larynx"))
    with pytest.raises(DataError, match=r"outlined for one of labels.classes \(larynx\), got liver"):
        refuse_useless(made, keys(made), ("larynx",))
    assert outlined_nowhere(("liver",), [source(tmp_path, ("liver",), **folder("s"))]) == []


# From the source to what is trained


def test_prepared_cases_remember_what_was_outlined_and_the_teacher_what_it_was_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "cache"))
    two_owners(tmp_path)
    cases(tmp_path, a=label(1), b=label(1, 3), c=label(3))
    block = manifest(tmp_path, "liver,", "larynx,liver", ",spleen")
    built = scenario(tmp_path, folder("r", label_values=listed("liver", "larynx")), block)
    site = client_site(built, built.members()[0], tmp_path)
    for _ in range(2):  # computed, then read
        found = {key.case_id: site.prepare(key) for key in site.source.keys()[:1] + site.source.keys()[2:]}  # type: ignore[attr-defined]
        assert (found["a_im"].outlined, found["c_im"].outlined, found["c_im"].absent) == ((1,), None, (2,))
    narrowed = with_taught_classes(built, tmp_path)
    assert taught_classes(narrowed) == (1, 3) and taught_classes(built) is None
    assert with_taught_classes(narrowed, tmp_path) is narrowed
    assert {case.outlined for case in build_repository_data(narrowed, tmp_path).train} == {(1, 3)}
    only = scenario(
        tmp_path,
        folder("r", label_values=listed("liver")),
        block,
    )
    only = only.model_copy(update={"repository": only.repository.model_copy(update={"classes": ("spleen",)})})
    with pytest.raises(DataError, match="must be outlined for one of spleen, got none"):
        with_taught_classes(only, tmp_path)


def test_a_site_knows_what_one_of_its_labelled_cases_or_more_was_outlined_for(tmp_path: Path) -> None:
    cases(tmp_path, a=label(1), b=label(1, 2), c=label(1, 2, 3))
    made = source(tmp_path, CLASSES, **manifest(tmp_path, "liver,", "liver spleen,", ","))
    built = scenario(tmp_path, folder("d"), folder("d"))
    a, b, c = (loaded(made, f"{name}_im") for name in "abc")
    (member,) = built.members()
    assert label_classes(built, member, [a, b]) == (1, 2)
    assert label_classes(built, member, [a, c]) == (1, 2, 3), "all, but not in every case"
    assert label_classes(built, member, [c]) is None is label_classes(built, member, [])


def test_a_check_prints_notes_and_ends_well(tmp_path: Path) -> None:
    two_owners(tmp_path)
    built = scenario(tmp_path, folder("r"), folder("s"))
    (tmp_path / "outlines.yaml").write_text(dump_scenario(built))
    told = CliRunner().invoke(app, ["check", str(tmp_path / "outlines.yaml")])
    assert told.exit_code == 0 and "fine, 1 run of 1 client" in told.stdout
    assert "note: repository: some labels have no voxel of a class: larynx in 1 of 2 " in told.stderr
