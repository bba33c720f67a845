"""BIDS data sets: entities, derivatives, tables of names and of participants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_files import classes_at, image, keys, label, problems, source, write

from raykd.scenario.errors import DataError

ENTITIES = ("sub-01_ses-a", "sub-01_ses-b", "sub-02_ses-a")


def _folder_of(entities: str) -> str:
    return "/".join([*entities.split("_")[:2], "anat"])


def _dataset(root: Path) -> Path:
    folder = root / "study"
    for entities in ENTITIES:
        write(folder / _folder_of(entities) / f"{entities}_T1w.nii.gz", image(entities))
        write(folder / f"derivatives/manual/{_folder_of(entities)}/{entities}_space-orig_desc-one_dseg.nii.gz", label(1, 17))
    write(folder / "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz", image("t2"))
    (folder / "derivatives/manual/desc-one_dseg.tsv").write_text("index\tname\n0\tbackground\n1\tLeft Hippocampus\n17\tThalamus\n")
    (folder / "participants.tsv").write_text("participant_id\tage\tsite\tscore\nsub-01\t34\t02\tn/a\nsub-02\t51.5\t07\t3\n")
    return folder


def _source(root: Path, classes: tuple[str, ...] = ("thalamus", "left_hippocampus"), **settings: Any) -> Any:
    return source(root, classes, **{"name": "bids", "folder": "study", "derivative": "manual", **settings})


def test_images_are_paired_with_their_derivatives(tmp_path: Path) -> None:
    _dataset(tmp_path)
    made = _source(tmp_path)
    assert [(key.case_id, key.patient_id) for key in keys(made)] == [
        ("sub-01_ses-a", "01"),
        ("sub-01_ses-b", "01"),
        ("sub-02_ses-a", "02"),
    ]
    assert made.traits(made.keys()[1]) == {"age": 34.0, "site": "02", "session": "b"}
    assert made.traits(made.keys()[2]) == {"age": 51.5, "site": "07", "session": "a", "score": 3.0}
    for entities in ENTITIES:
        assert classes_at(made, entities, (0, 0, 0), (1, 0, 0), (2, 0, 0)) == [2, 1, 0]
    np.testing.assert_array_equal(made.load(made.keys()[2]).image_CIJK[0].numpy(), image(ENTITIES[2]))
    made.check()


def test_a_table_of_other_labels_names_none_of_those_that_are_read(tmp_path: Path) -> None:
    """fMRIPrep has desc-aseg_dseg.tsv and desc-aparcaseg_dseg.tsv beside one another."""
    folder = _dataset(tmp_path)
    (folder / "derivatives/manual/desc-two_dseg.tsv").write_text("index\tname\n5\tThalamus\n")
    assert classes_at(_source(tmp_path, label_entities={"desc": "one"}), ENTITIES[0], (0, 0, 0), (1, 0, 0)) == [2, 1]
    with pytest.raises(DataError, match="tables must agree"):
        _source(tmp_path).keys()


def test_a_table_beside_a_label_says_what_was_outlined_in_it(tmp_path: Path) -> None:
    folder = _dataset(tmp_path)
    stem = f"{ENTITIES[0]}_space-orig_desc-one_dseg"
    (folder / f"derivatives/manual/{_folder_of(ENTITIES[0])}/{stem}.tsv").write_text("index\tname\n17\tThalamus\n")
    made = _source(tmp_path)
    assert [made.outlined(key) for key in keys(made)] == [(1,), None, None]
    assert classes_at(made, ENTITIES[0], (0, 0, 0), (1, 0, 0)) == [0, 1], "the hippocampus was marked, and not looked for"


def test_suffix_and_entities_choose_images(tmp_path: Path) -> None:
    _dataset(tmp_path)
    alone = _source(tmp_path, suffix="T2w", derivative=None, label_values={"thalamus": [1], "left_hippocampus": []})
    assert [key.case_id for key in keys(alone)] == ["sub-01_ses-a"]
    assert [key.case_id for key in keys(_source(tmp_path, entities={"ses": "b"}))] == ["sub-01_ses-b"]
    with pytest.raises(DataError, match=r"\*_FLAIR"):
        _source(tmp_path, suffix="FLAIR").keys()


def test_two_labels_for_one_image_need_a_choice(tmp_path: Path) -> None:
    folder = _dataset(tmp_path)
    write(folder / f"derivatives/manual/{_folder_of(ENTITIES[0])}/{ENTITIES[0]}_desc-two_dseg.nii.gz", label(17))
    (line,) = problems(_source(tmp_path))
    assert "'sub-01_ses-a'" in line and "desc-one" in line and "desc-two" in line and "label_entities" in line
    made = _source(tmp_path, label_entities={"desc": "two"}, allow_unlabelled=True)
    assert classes_at(made, "sub-01_ses-a", (0, 0, 0)) == [1]


def test_another_run_is_no_label_of_an_image(tmp_path: Path) -> None:
    folder = _dataset(tmp_path)
    path = folder / f"derivatives/manual/{_folder_of(ENTITIES[0])}/{ENTITIES[0]}_space-orig_desc-one_dseg.nii.gz"
    path.rename(path.with_name(f"{ENTITIES[0]}_run-2_desc-one_dseg.nii.gz"))
    (line,) = problems(_source(tmp_path))
    assert "'sub-01_ses-a': a case must have its label file" in line and "sub-01_ses-a_*dseg.nii.gz" in line


def test_tables_of_names_that_contradict_or_break_are_refused_with_their_line(tmp_path: Path) -> None:
    folder = _dataset(tmp_path)
    own = folder / "derivatives/manual/sub-01/sub-01_dseg.tsv"
    own.write_text("index\tname\n3\tThalamus\n")
    (line,) = problems(_source(tmp_path))
    assert "_dseg.tsv:" in line and "'Thalamus'" in line
    own.write_text("index\tname\none\tThalamus\n")
    (line,) = problems(_source(tmp_path))
    assert "sub-01_dseg.tsv:2:1" in line and "integer index" in line


@pytest.mark.parametrize(
    ("table", "want"),
    [
        ("participant_id\tsite\nsub-01\t02\nsub-02\t07\n", ["02", "07"]),
        ("\ufeffParticipant_ID \tsite\r\nsub-01\t02\r\nsub-02\t07\r\n", ["02", "07"]),
        ("participant_id\tsite\n01\t02\n02\t07\n", ["02", "07"]),
        ('participant_id\tsite\nsub-01\t"02\nsub-02\t07"\n', ['"02', '07"']),
        ("participant_id\tsite\nsub-01\tn/a\nsub-02\t07\nsub-03\t09\n", [None, "07"]),
    ],
    ids=["plain", "bom-crlf-case", "no-prefix", "quotes-are-text", "no-value-and-a-stranger"],
)
def test_participants_are_told_apart_by_their_folders(tmp_path: Path, table: str, want: list[str | None]) -> None:
    folder = _dataset(tmp_path)
    (folder / "participants.tsv").write_bytes(table.encode())
    made = _source(tmp_path)
    traits = {key.patient_id: made.traits(key).get("site") for key in keys(made)}
    assert [traits["01"], traits["02"]] == want


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ("participant_id\tsite\nsub-1\t02\nsub-2\t07\n", ["tsv:2:1", "as the subject's folder, got 'sub-1'", "write sub-01"]),
        ("participant_id\tsite\nsub-01\t02\nsub-01\t07\n", ["tsv:3:1", "a subject must have one row, got 'sub-01'"]),
        ("subject\tsite\nsub-01\t02\n", ["tsv:2:1", "must name a subject in column 'participant_id'"]),
        ("participant_id,site\nsub-01,02\n", ["tsv:1:1", "fields must be separated by tabs, got commas"]),
        ("participant_id\tsite\nsub-01\n", ["tsv:2:1", "as many fields as the first line, got 1 instead of 2"]),
        ("participant_id\tsite\nsub-01\tM\udcfcnchen\n", ["tsv:2:1", "text in UTF-8", "cp1252"]),
    ],
)
def test_participants_that_would_lose_their_traits_are_refused(tmp_path: Path, table: str, parts: list[str]) -> None:
    folder = _dataset(tmp_path)
    (folder / "participants.tsv").write_bytes(table.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as refused:
        _source(tmp_path).keys()
    assert [part for part in parts if part not in str(refused.value)] == [], refused.value


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("sub-01/ses-a/anat/sub-02_ses-a_run-1_T1w.nii.gz", ["the folder of its sub, got sub-02 in folder sub-01"]),
        ("sub-02/ses-a/anat/sub-02_ses-b_T1w.nii.gz", ["the folder of its ses, got ses-b in folder ses-a"]),
        ("sub-03/anat/sub-03_T1W.nii.gz", ["counts upper and lower case, got sub-03_T1W.nii.gz"]),
        ("sub-03/anat/sub-03_T1w.NII.GZ", ["got sub-03_T1w.NII.GZ"]),
        ("Sub-03/anat/Sub-03_T1w.nii.gz", ["got Sub-03_T1w.nii.gz"]),
        ("sub-01/ses-a/anat/sub-01_ses-a_T1w.nii", ["case 'sub-01_ses-a'", "a case's name must be its own"]),
    ],
)
def test_an_image_that_would_be_left_out_or_be_another_subject_s_is_refused(tmp_path: Path, name: str, parts: list[str]) -> None:
    path = _dataset(tmp_path) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(DataError) as refused:
        _source(tmp_path, allow_unlabelled=True).keys()
    assert [part for part in parts if part not in str(refused.value)] == [], refused.value


def test_hidden_files_are_no_images_and_a_derivative_must_be_there(tmp_path: Path) -> None:
    (_dataset(tmp_path) / "sub-01/ses-a/anat/._sub-01_ses-a_T1w.nii.gz").touch()
    assert len(_source(tmp_path).keys()) == 3
    with pytest.raises(DataError, match="derivative must be a folder in derivatives/, got none"):
        _source(tmp_path, derivative="manul", allow_unlabelled=True).keys()


def test_names_of_values_that_differ_in_case_alone_must_agree(tmp_path: Path) -> None:
    folder = _dataset(tmp_path)
    (folder / "derivatives/manual/other_dseg.tsv").write_text("index\tname\n3\tthalamus\n")
    (line,) = problems(_source(tmp_path))
    assert "tables must agree in the index of 'thalamus', got 3, elsewhere 17" in line
