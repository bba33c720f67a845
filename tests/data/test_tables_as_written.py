"""Manifests as spreadsheets, programs and people write them: the right cases and patients, or a line that says what to change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from layout_files import image, label, problems, source, write, write_json

from raykd.data.sources._columns import COLUMNS, looks_like
from raykd.data.sources._persons import canonical
from raykd.scenario.errors import DataError

PLAIN = "image,label,patient,site\na.nii.gz,a_seg.nii.gz,p1,Ulm\nb.nii.gz,b_seg.nii.gz,p2,Bonn\n"
CASES = [("a", "p1", {"site": "Ulm"}), ("b", "p2", {"site": "Bonn"})]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    for name in ("a", "b", "c"):
        write(folder / f"{name}.nii.gz", image(name))
        write(folder / f"{name}_seg.nii.gz", label(1))
    return folder


def _source(root: Path, content: str | bytes | list[Any], **settings: Any) -> Any:
    if isinstance(content, list):
        name = write_json(root / "all.json", content).name
    else:
        name = "all.csv"
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return source(root, ("liver",), name="folder", manifest=name, **settings)


def _cases(made: Any) -> list[tuple[str, str, dict[str, Any]]]:
    return [(key.case_id, key.patient_id, made.traits(key)) for key in made.keys()]  # noqa: SIM118 (not a mapping)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace("image,label,patient", " Image ,LABEL,Patient"),
        PLAIN.replace("image,label", '"image","label"'),
        PLAIN.replace("patient", '"patient\n"'),
        PLAIN.replace("\n", ",,\n"),
        PLAIN.replace("Ulm", "Ulm,,").replace("Bonn", "Bonn,"),
        PLAIN + ",,,\n\n , , ,\n",
        PLAIN.replace("p1", " p1 ").replace("a.nii.gz,", "a.nii.gz ,").replace("Ulm", " Ulm"),
        PLAIN.replace("p1", "\u00a0p1"),
    ],
    ids=[
        "plain",
        "bom",
        "crlf",
        "cr",
        "case",
        "quotes",
        "newline-in-name",
        "empty-columns",
        "longer-rows",
        "empty-rows",
        "blanks",
        "nbsp",
    ],
)
def test_a_table_is_read_however_it_was_saved(root: Path, text: str) -> None:
    assert _cases(_source(root, text)) == CASES


def test_a_quoted_value_may_hold_a_newline_and_lines_are_counted_on(root: Path) -> None:
    text = 'image,label,remark\na.nii.gz,a_seg.nii.gz,"two\nlines"\nx.nii.gz,b_seg.nii.gz,\n'
    (line,) = problems(_source(root, text))
    assert "all.csv:4:1: a file must exist" in line and "x.nii.gz" in line
    assert _cases(_source(root, text.replace("x.nii", "b.nii")))[0] == ("a", "a", {"remark": "two\nlines"})


@pytest.mark.parametrize(
    ("ids", "want"),
    [
        (["1.0", "1", "2.0"], ["1", "1", "2"]),
        (["001", "001", "002"], ["001", "001", "002"]),
        (["p 1", "p  1 ", "p\u00a02"], ["p 1", "p 1", "p 2"]),
        (["Mu\u0308ller", "M\u00fcller", "x"], ["M\u00fcller", "M\u00fcller", "x"]),
        (["1.5", "1.50", "2"], ["1.5", "1.50", "2"]),
    ],
    ids=["floats", "zeros", "blanks", "accents", "decimals"],
)
def test_one_patient_written_two_ways_is_one_patient(root: Path, ids: list[str], want: list[str]) -> None:
    rows = "".join(f"{name}.nii.gz,{patient}\n" for name, patient in zip("abc", ids, strict=True))
    assert [patient for _, patient, _ in _cases(_source(root, f"image,patient\n{rows}"))] == want
    as_json = [{"image": f"{name}.nii.gz", "PATIENT ": patient} for name, patient in zip("abc", ids, strict=True)]
    assert [patient for _, patient, _ in _cases(_source(root, as_json))] == want


def test_numbers_of_json_are_ids_without_a_fraction_and_empty_values_no_traits(root: Path) -> None:
    rows = [
        {"image": "a.nii.gz", "patient": 1, "age": None, "sex": "f"},
        {"image": "b.nii.gz", "patient": 1.0, "age": float("nan"), "sex": "none"},
        {"image": "c.nii.gz", "patient": "1", "age": 3, "sex": ""},
    ]
    assert _cases(_source(root, rows)) == [("a", "1", {"sex": "f"}), ("b", "1", {"sex": "none"}), ("c", "1", {"age": 3.0})]


def test_words_for_no_value_are_no_traits_but_those_that_may_be_one_are_kept(root: Path) -> None:
    text = "image,grade\na.nii.gz,NaN\nb.nii.gz,none\nc.nii.gz,<NA>\n"
    assert [traits for *_, traits in _cases(_source(root, text))] == [{}, {"grade": "none"}, {}]


def _with(columns: str, *rows: str) -> str:
    return "\n".join([columns, *rows]) + "\n"


ROW = "a.nii.gz,a_seg.nii.gz"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (_with("image,label,Patiant", f"{ROW},p1"), ["1:1", "looks like 'patient'", "rename 'Patiant' to 'patient'"]),
        (
            _with("image,label,Subject ID", f"{ROW},p1"),
            ["1:1", "got 'Subject ID'", "to 'patient', or otherwise where it is a trait"],
        ),
        (_with("image,label,患者ID", f"{ROW},p1"), ["rename '患者ID' to 'patient'"]),
        (_with("image,mask", ROW), ["rename 'mask' to 'label'"]),
        (_with("image,lable", ROW), ["rename 'lable' to 'label'"]),
        (_with("img,label", ROW), ["rename 'img' to 'image'"]),
        (_with("image,label,image", f"{ROW},b.nii.gz"), ["1:1", "a column must be there once, got 'image', 'image'"]),
        (_with("image,label,Patient,patient", f"{ROW},1,2"), ["a column must be there once, got 'Patient', 'patient'"]),
        (_with("image,label,Site,site", f"{ROW},1,2"), ["a column must be there once, got 'Site', 'site'"]),
        (_with("image,label,mask", "a.nii.gz,,a_seg.nii.gz", "b.nii.gz,b_seg.nii.gz,"), ["2:1", "label", "from 'mask' to 'label'"]),
        (_with("image,label,patient,subject", f"{ROW},,p1"), ["rename 'subject' to 'patient'"]),
        (_with("image,patient,subject", "a.nii.gz,,p1", "b.nii.gz,p2,"), ["2:1", "from 'subject' to 'patient'"]),
        (_with("image,patient", "a.nii.gz,p1", "b.nii.gz,"), ["3:1", "must name a patient where others do", "in every row"]),
        (_with("image,patient", "a.nii.gz,nan", "b.nii.gz,p2"), ["2:1", "a patient must be an id, got 'nan'"]),
        (_with("image,patient", "a.nii.gz,P1", "b.nii.gz,p1"), ["3:1", "written one way, got 'p1' here and 'P1' in line 2"]),
        (_with("image,patient", "a.nii.gz,007", "b.nii.gz,7"), ["3:1", "got '7' here and '007' in line 2"]),
        (_with("image;label", "a.nii.gz;a_seg.nii.gz"), ["1:1", "separated by commas, got semicolons", "save it with commas"]),
        (_with("image\tlabel", "a.nii.gz\ta_seg.nii.gz"), ["separated by commas, got tabs"]),
        (_with("image,label,", f"{ROW},stray"), ["2:1", "a column with a name, got 'stray'"]),
        (_with('image,remark\na.nii.gz,"never closed'), ["2:1", "well-formed CSV", "quotation mark"]),
        (_with("image,label", ROW, "b.nii.gz,a_seg.nii.gz"), ["case 'b'", "a label must belong to one case, got that of case 'a'"]),
        (_with("image,case", "a.nii.gz,x", "a.nii.gz,y"), ["case 'y'", "an image must belong to one case, got that of case 'x'"]),
        (_with("image,label", "a.nii.gz,a.nii.gz"), ["2:1", "another file than its image"]),
        (_with("image", "A.nii.gz"), ["2:1", "did you mean 'a.nii.gz'?"]),
        (_with("image", "scans\\a.nii.gz"), ["write / between folders"]),
        ("image,patient\na.nii.gz,山田\n".encode("cp932"), ["all.csv:2:1", "text in UTF-8", "cp932 (Shift-JIS)", "CSV UTF-8"]),
        ("image,patient\na.nii.gz,Müller\n".encode("cp1252"), ["all.csv:2:1", "byte 0xfc", "cp1252 (Western European)"]),
        (PLAIN.encode("utf-16"), ["text in UTF-8, got UTF-16"]),
        ([{"image": "a.nii.gz", "Subject": "p1"}], ["rename 'Subject' to 'patient'"]),
        (
            [{"image": "a.nii.gz", "patient": "p1"}, {"image": "b.nii.gz", "Patiant": "p1"}],
            ["row 2", "from 'Patiant' to 'patient'"],
        ),
        ([{"image": "a.nii.gz", "patient": ["p1"]}], ["row 1", "text or a number, got ['p1'] in 'patient'"]),
        ([{"image": "a.nii.gz", "Image": "b.nii.gz"}], ["a column must be there once"]),
    ],
)
def test_what_would_be_misread_is_refused_with_its_line_and_what_to_do(
    root: Path, text: str | bytes | list[Any], parts: list[str]
) -> None:
    with pytest.raises(DataError) as refused:
        _source(root, text).keys()
    (line,) = str(refused.value).splitlines()
    assert [part for part in parts if part not in line] == [], line


def test_json_with_equal_keys_is_refused(root: Path) -> None:
    (root / "all.json").write_text('[{"image": "a.nii.gz", "patient": 1, "patient": 2}]')
    (line,) = problems(source(root, ("liver",), name="folder", manifest="all.json"))
    assert "a column must be there once, got 'patient', 'patient'" in line


def test_an_upper_case_ending_of_a_manifest_is_of_its_kind(root: Path) -> None:
    write_json(root / "UP.JSON", [{"image": "a.nii.gz"}])
    assert _cases(source(root, ("liver",), name="folder", manifest="UP.JSON")) == [("a", "a", {})]


def test_a_known_column_beside_a_synonym_leaves_that_a_trait(root: Path) -> None:
    text = _with(
        "image,label,patient,subject,id", f"{ROW},p1,s1,7", "b.nii.gz,b_seg.nii.gz,p2,s2,8", "c.nii.gz,c_seg.nii.gz,p3,s3,9"
    )
    with pytest.raises(AssertionError):  # `id` looks like the case, which is missing
        assert _cases(_source(root, text.replace(",id", ",rank"))) == []
    assert _cases(_source(root, text.replace(",id", ",rank")))[0] == ("a", "p1", {"subject": "s1", "rank": 7.0})


@pytest.mark.parametrize(
    "name",
    [
        *(
            "age",
            "sex",
            "site",
            "scanner",
            "patient_age",
            "inpatient",
            "outpatient",
            "image_quality",
            "label_type",
            "stage",
            "kl_grade",
        ),
        *("outlier", "outline_by", "present"),
    ],
)
def test_traits_are_not_taken_for_known_columns(name: str) -> None:
    assert not any(looks_like(name, column) for column in COLUMNS)
    assert looks_like("outlned", "outlined") and looks_like("absnt", "absent")


@pytest.mark.parametrize(
    ("one", "other", "is_one"),
    [
        ("sub-01", "1", True),
        ("P-007", "p_7", True),
        ("M\u00fcller", "MU\u0308LLER", True),
        ("p10", "p1", False),
        ("1-1", "11", False),
        ("1.05", "1.5", False),
        ("000", "0", True),
    ],
)
def test_ids_are_compared_without_what_people_write_differently(one: str, other: str, is_one: bool) -> None:
    assert (canonical(one) == canonical(other)) is is_one
    assert json.loads(json.dumps(canonical(one))) == canonical(canonical(one))
