"""Cases listed in a table: paths, patients, traits, and bad rows by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from layout_files import classes_at, image, keys, label, problems, source, write, write_json
from pydantic import ValidationError

from raykd.scenario.errors import DataError

CSV = """image,label,patient,site,age,code
scans/a.nii.gz,scans/a_seg.nii.gz,p1,Ulm,61,007
scans/b.nii.gz,scans/b_seg.nii.gz,p1,Bonn,61.5,
"scans/c, d.nii.gz",scans/c_seg.nii.gz,p2,Ulm,,1e3
"""


def _volumes(root: Path) -> None:
    for name in ("a", "b", "c, d"):
        write(root / f"lists/scans/{name}.nii.gz", image(name))
        write(root / f"lists/scans/{name[0]}_seg.nii.gz", label(1, 2))


def _source(root: Path, text: str | None = None, **settings: Any) -> Any:
    if text is not None:
        (root / "lists/all.csv").write_text(text, encoding="utf-8")
    return source(root, ("liver", "spleen"), **{"name": "folder", "manifest": "lists/all.csv", **settings})


def test_rows_are_cases_with_patients_and_traits(tmp_path: Path) -> None:
    _volumes(tmp_path)
    made = _source(tmp_path, "\ufeff" + CSV)
    assert [(key.case_id, key.patient_id) for key in keys(made)] == [("a", "p1"), ("b", "p1"), ("c, d", "p2")]
    assert [made.traits(key) for key in keys(made)] == [
        {"site": "Ulm", "age": 61.0, "code": "007"},
        {"site": "Bonn", "age": 61.5},
        {"site": "Ulm", "code": "1e3"},
    ]
    assert classes_at(made, "c, d", (0, 0, 0), (1, 0, 0)) == [1, 2]
    made.check()
    assert [path.name for path in made.files(made.keys()[0])] == ["a.nii.gz", "a_seg.nii.gz"]


def test_a_json_list_says_the_same(tmp_path: Path) -> None:
    _volumes(tmp_path)
    rows = [{"image": "scans/a.nii.gz", "case": "first", "age": 61, "site": "Ulm"}, {"image": "scans/b.nii.gz", "label": None}]
    write_json(tmp_path / "lists/all.json", rows)
    made = _source(tmp_path, manifest="lists/all.json")
    assert [(key.case_id, key.patient_id) for key in keys(made)] == [("b", "b"), ("first", "first")]
    assert made.traits(made.keys()[1]) == {"age": 61.0, "site": "Ulm"}
    assert made.load(made.keys()[0]).label_IJK is None


def test_every_bad_row_is_named_by_its_line(tmp_path: Path) -> None:
    _volumes(tmp_path)
    rows = "image,label,case\nscans/a.nii.gz,scans/a_seg.nii.gz,a\nscans/x.nii.gz,scans/y.nii.gz,x\n,scans/b_seg.nii.gz,b\n"
    rows += "scans/b.nii.gz,,b\nscans/b.nii.gz,scans/b_seg.nii.gz,a\nscans/b.nii.gz,scans/b_seg.nii.gz,b,more\n"
    lines = problems(_source(tmp_path, rows))
    want = ["all.csv:3:1: a file must exist", "all.csv:3:1: a file must exist", "all.csv:4:1: a row must name an image"]
    want += ["all.csv:5:1: a row must name a label", "all.csv:7:1: a row must have as many fields"]
    assert all(part in line for part, line in zip(want, lines, strict=False))
    assert "x.nii.gz" in lines[0] and "y.nii.gz" in lines[1]
    assert "case 'a': a case's name must be its own" in lines[5]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "must list a case"),
        (
            "images,label\na,b\n",
            "1:1: a column that looks like 'image' must be called so, got 'images'; rename 'images' to 'image'",
        ),
        ("scanner,label\na,b\n", "all.csv:1:1: a manifest must have a column 'image' with paths in it, got 'scanner', 'label'"),
        ("image\n", "must list a case"),
    ],
)
def test_a_table_without_images_is_refused(tmp_path: Path, text: str, part: str) -> None:
    _volumes(tmp_path)
    with pytest.raises(DataError, match=r"all\.csv") as caught:
        _source(tmp_path, text).keys()
    assert part in str(caught.value)


def test_a_broken_json_or_missing_file_is_refused_with_its_line(tmp_path: Path) -> None:
    _volumes(tmp_path)
    (tmp_path / "lists/all.json").write_text("[\n{]")
    with pytest.raises(DataError, match=r"all\.json:2"):
        _source(tmp_path, manifest="lists/all.json").keys()
    write_json(tmp_path / "lists/all.json", {"image": "a"})
    with pytest.raises(DataError, match="list of objects, got dict"):
        _source(tmp_path, manifest="lists/all.json").keys()
    write_json(tmp_path / "lists/all.json", [{"image": "scans/a.nii.gz"}, {"imge": "b"}])
    with pytest.raises(DataError, match="row 2: a row must name an image"):
        _source(tmp_path, manifest="lists/all.json").keys()
    (tmp_path / "lists/deep.json").write_text("[" * 5000)
    with pytest.raises(DataError, match="brackets in brackets"):
        _source(tmp_path, manifest="lists/deep.json").keys()
    with pytest.raises(DataError, match="readable CSV or JSON"):
        _source(tmp_path, manifest="lists/none.csv").keys()


def test_paths_that_leave_the_folder_of_the_scenario_need_leave(tmp_path: Path) -> None:
    _volumes(tmp_path)
    (tmp_path / "lists/all.csv").write_text(CSV)
    (tmp_path / "scenario").mkdir()
    with pytest.raises(DataError, match="allow_outside: true"):
        _source(tmp_path / "scenario", manifest="../lists/all.csv").keys()
    assert len(_source(tmp_path / "scenario", manifest="../lists/all.csv", allow_outside=True).keys()) == 3


@pytest.mark.parametrize("settings", [{"images": "*.nii"}, {"labels": "*.nii"}, {"patient_pattern": "(p)"}, {"manifest": None}])
def test_a_manifest_stands_alone(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="manifest"):
        _source(tmp_path, **settings)
