"""`raykd data check` tells the layout of a directory, what is in it and what is wrong, and how a scenario names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from raykd.cli import app
from raykd.data.layouts import guess_layout
from raykd.scenario.errors import DataError, RaykdError
from raykd.scenario.yaml_reader import parse_yaml

SHAPE = (4, 5, 6)


def write(path: Path, content: int | Any = None) -> None:
    """A volume: an image drawn from a seed, or the array given."""
    array = np.random.default_rng(content).normal(size=SHAPE).astype(np.float32) if isinstance(content, int) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 1.5, 1.0, 1.0])), path)


def label(*values: int) -> Any:
    """A label map whose first voxels have these values; the others are background."""
    array = np.zeros(SHAPE, np.uint8)
    array.flat[: len(values)] = values
    return array


def check(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["data", "check", *arguments])


def check_json(*arguments: str) -> Any:
    return json.loads(check(*arguments, "--json").stdout)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sound(num_cases: int = 3) -> None:
    for index in range(num_cases):
        write(Path(f"d/{index}_t1.nii.gz"), index)
        write(Path(f"d/{index}_seg.nii.gz"), label(1, 1, 4))


@pytest.mark.parametrize(
    ("image", "labelled", "images", "labels"),
    [
        ("d/{}_t1.nii.gz", "d/{}_seg.nii.gz", "d/*_t1.nii.gz", "d/*_seg.nii.gz"),
        ("d/{}.nii.gz", "d/{}_mask.nii.gz", "d/*.nii.gz", "d/*_mask.nii.gz"),
        ("d/images/{}.nii.gz", "d/labels/{}.nii.gz", "d/images/*.nii.gz", "d/labels/*.nii.gz"),
        ("d/imagesTr/{}.nrrd", "d/labelsTr/{}.nrrd", "d/imagesTr/*.nrrd", "d/labelsTr/*.nrrd"),
        ("d/{}/scan.nii", "d/{}/label.nii", "d/*/scan.nii", "d/*/label.nii"),
        ("d/case_{}.nii.gz", None, "d/*.nii.gz", None),
    ],
)
def test_images_and_labels_are_told_apart_by_their_names(image: str, labelled: str | None, images: str, labels: str | None) -> None:
    for name in ("a", "b", "c", "d"):
        for pattern in filter(None, (image, labelled)):
            path = Path(pattern.format(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert guess_layout(Path("d")).block == {"name": "folder", "images": images} | ({"labels": labels} if labels else {})


def test_layouts_with_marks_of_their_own_are_known_by_them() -> None:
    (Path("n") / "imagesTr").mkdir(parents=True)
    Path("n/dataset.json").write_text(json.dumps({"channel_names": {"0": "MR"}, "labels": {}}))
    assert guess_layout(Path("n")).block == {"name": "nnunet", "folder": "n"}
    Path("Task02_Heart").mkdir()
    Path("Task02_Heart/dataset.json").write_text(json.dumps({"modality": {"0": "MR"}, "training": []}))
    assert guess_layout(Path("Task02_Heart")).block["task"] == "Task02_Heart"
    for path in ("b/sub-1/anat/sub-1_T1w.nii.gz", "b/derivatives/manual/sub-1/anat/sub-1_dseg.nii.gz"):
        Path(path).parent.mkdir(parents=True)
        Path(path).touch()
    assert guess_layout(Path("b")).block == {
        "name": "bids",
        "folder": "b",
        "suffix": "T1w",
        "derivative": "manual",
        "label_suffix": "dseg",
    }
    Path("m").mkdir()
    Path("m/other.csv").write_text("name,age\n")
    Path("m/rows.csv").write_text("image,label,site\n")
    assert guess_layout(Path("m")).block == {"name": "folder", "manifest": "m/rows.csv"}


def test_what_looks_like_nothing_is_refused_with_what_was_looked_for() -> None:
    Path("empty").mkdir()
    with pytest.raises(DataError, match=r"nnunet: dataset\.json.*folder: a table"):
        guess_layout(Path("empty"))
    with pytest.raises(DataError, match="got nothing there"):
        guess_layout(Path("nowhere"))
    with pytest.raises(DataError, match="did you mean 'nnunet'"):
        guess_layout(Path("empty"), "nnUnet")


def test_a_sound_directory_is_listed_and_ends_with_0() -> None:
    sound()
    result = check("d")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    # 4 x 5 x 6 = 120 voxels: two of value 1, one of value 4, the rest 0.
    assert lines[0] == "# guessed: --images '*_t1.nii.gz' --labels '*_seg.nii.gz'"
    assert lines[3].split() == ["0", "0", "4", "x", "5", "x", "6", "2", "x", "1.5", "x", "1", "0:117", "1:2", "4:1"]
    assert "3 cases of 3 patients can be read; no problems" in lines


def test_the_suggested_block_is_one_that_a_scenario_takes(here: Path) -> None:
    from raykd.data.sources.folder import FolderSettings, FolderSource

    sound()
    text = check("d").stdout
    suggested = parse_yaml(text[text.index("classes:") :], "suggested").plain()
    assert suggested["classes"] == ["class_1", "class_4"]
    settings = FolderSettings.model_validate_json(json.dumps(suggested["source"]))
    source = FolderSource(settings, tuple(suggested["classes"]), 0, "site", here)
    (first, *_) = source.keys()
    loaded = source.load(first).label_IJK
    assert loaded is not None and loaded.unique(return_counts=True)[1].tolist() == [117, 2, 1]
    assert "allow_outside" not in suggested["source"]


def test_a_directory_elsewhere_needs_leave_to_be_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound()
    Path("scenarios").mkdir()
    monkeypatch.chdir("scenarios")
    assert check_json("../d")["source"]["allow_outside"] is True


def test_every_problem_is_told_with_its_case_and_ends_with_2() -> None:
    sound(7)
    Path("d/0_seg.nii.gz").unlink()
    write(Path("d/1_t1.nii.gz"), np.full(SHAPE, 3, np.float32))
    write(Path("d/2_t1.nii.gz"), np.full(SHAPE, np.nan, np.float32))
    write(Path("d/3_seg.nii.gz"), np.zeros((4, 5, 7), np.uint8))
    write(Path("d/4_seg.nii.gz"), np.full(SHAPE, 0.5, np.float32))
    damaged = bytearray(Path("d/5_t1.nii.gz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    Path("d/5_t1.nii.gz").write_bytes(damaged)
    result = check("d", "--json")
    assert result.exit_code == 2
    told = json.loads(result.stdout)
    assert [case["case_id"] for case in told["cases"]] == ["0", "6"]
    words = {"0": "must have its label", "1": "constant", "2": "finite", "3": "shape", "4": "integer", "5": "checksum"}
    assert len(told["problems"]) == len(words)
    for case_id, word in words.items():
        assert any(f"case '{case_id}'" in problem and word in problem for problem in told["problems"]), case_id


@pytest.mark.parametrize("as_double", [False, True])
def test_a_copy_under_another_name_is_told_once(as_double: bool) -> None:
    sound(3)
    image = nibabel.load("d/0_t1.nii.gz").get_fdata().astype(np.float64 if as_double else np.float32)
    write(Path("d/2_t1.nii.gz"), image)
    (problem,) = check_json("d")["problems"]
    assert "case '2'" in problem and "images must differ" in problem and "case '0'" in problem


def test_a_key_of_the_source_can_be_set_and_a_wrong_one_is_refused() -> None:
    for kind in ("T1w", "FLAIR"):
        for index in range(2):
            write(Path(f"b/sub-{index}/anat/sub-{index}_{kind}.nii.gz"), index + 10 * (kind == "T1w"))
    told = check_json("b")
    assert told["source"]["suffix"] == "T1w"
    assert (
        told["guess"]
        == "guessed: --layout bids --set suffix=T1w; not read: suffix=FLAIR (2 files), to be chosen with --set KEY=VALUE"
    )
    assert [case["case_id"] for case in check_json("b", "--set", "suffix=FLAIR")["cases"]] == ["sub-0", "sub-1"]
    with pytest.raises(RaykdError, match="sufix: unknown key; did you mean 'suffix'"):
        raise check("b", "--set", "sufix=FLAIR").exception
    with pytest.raises(RaykdError, match="unknown source 'None'"):
        raise check("b", "--set", "name=null").exception


def test_notes_are_no_problems_and_ct_becomes_part_of_the_block() -> None:
    for index in range(3):
        write(Path(f"d/{index}_ct.nii.gz"), np.random.default_rng(index).integers(-1024, 2000, SHAPE).astype(np.int16))
        write(Path(f"d/{index}_seg.nii.gz"), label(*[1] * (index > 0)))
    result = check("d", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["problems"] == [] and told["source"]["modality"] == "ct"
    assert len(told["notes"]) == 2 and "look like CT" in told["notes"][0] and "every class in 1 of 3 (0);" in told["notes"][1]
    shown = check("d")
    assert shown.exit_code == 0 and shown.stderr.count("note: d: ") == 2
    assert check_json("d", "--set", "modality=ct")["notes"] == told["notes"][1:]


def test_hidden_files_are_none_of_a_collection() -> None:
    sound()
    Path("d/._0_t1.nii.gz").write_bytes(b"\x00\x05\x16\x07 of macOS")
    assert check("d").exit_code == 0
    assert check("d", "--images", "*_t1.nii.gz", "--labels", "*_seg.nii.gz").exit_code == 0


def test_patterns_given_by_hand_are_taken() -> None:
    sound()
    for index in range(3):
        write(Path(f"d/{index}_t2.nii.gz"), 10 + index)
    told = check_json("d", "--images", "*_t2.nii.gz", "--labels", "*_seg.nii.gz")
    assert told["source"]["images"] == "d/*_t2.nii.gz" and len(told["cases"]) == 3 and told["problems"] == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"Image,Label,Patient\n0_t1.nii.gz,0_seg.nii.gz,p\n", ""),
        (b"image;patient\n0_t1.nii.gz;p\n", "separated by commas"),
        ("image,患者\n0_t1.nii.gz,山\n".encode("cp932"), "Shift-JIS"),
        ("image,patient\n0_t1.nii.gz,p\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_table_that_names_patients_is_never_passed_over(content: bytes, told: str) -> None:
    sound()
    Path("d/rows.csv").write_bytes(content)
    found = check_json("d")
    assert found["guess"] == "guessed: --manifest rows.csv" and all(told in problem for problem in found["problems"])
    assert len(found["problems"]) == bool(told)


def test_a_manifest_names_patients() -> None:
    sound()
    Path("d/rows.csv").write_text("image,label,patient\n0_t1.nii.gz,0_seg.nii.gz,p\n1_t1.nii.gz,1_seg.nii.gz,p\n")
    told = check_json("d", "--manifest", "rows.csv")
    assert [(case["case_id"], case["patient_id"]) for case in told["cases"]] == [("0_t1", "p"), ("1_t1", "p")]


def test_names_of_a_layout_become_the_classes() -> None:
    for index in range(2):
        write(Path(f"n/imagesTr/k{index}_0000.nii.gz"), index)
        write(Path(f"n/labelsTr/k{index}.nii.gz"), label(1, 2, 2))
    description = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "Femoral Cartilage": 1, "tibia": 2},
        "file_ending": ".nii.gz",
    }
    Path("n/dataset.json").write_text(json.dumps({**description, "numTraining": 2}))
    told = check_json("n")
    assert told["classes"] == ["femoral_cartilage", "tibia"] and told["problems"] == []
    assert told["cases"][0]["voxels"] == {"0": 117, "1": 1, "2": 2} and "label_values" not in told["source"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "*_seg.nii.gz"], "give either --images"),
        (["--images", "*.nii.gz", "--manifest", "rows.csv"], "give either --images"),
        (["--images", "all.nii.gz"], r"images: must hold exactly one '\*'"),
    ],
)
def test_options_that_contradict_are_refused(arguments: list[str], message: str) -> None:
    sound()
    with pytest.raises(RaykdError, match=message):
        raise check("d", *arguments).exception


def test_outlines_of_the_oai_are_known_by_their_names() -> None:
    Path("z/segmentation_masks").mkdir(parents=True)
    Path("z/segmentation_masks/9000099.segmentation_masks.mhd").touch()
    assert guess_layout(Path("z")).block == {"name": "oai", "collection": "zib", "images": "z", "masks": "z"}
    Path("i/9000099/V00").mkdir(parents=True)
    Path("i/9000099/V00/outlines.mat").touch()
    assert guess_layout(Path("i")).block["collection"] == "imorphics"


def test_a_series_folder_for_each_case_is_dicom_and_a_lone_archive_is_npz() -> None:
    for case in ("a", "b"):
        Path(f"s/{case}/t1").mkdir(parents=True)
        Path(f"s/{case}/t1/1.dcm").touch()
        Path(f"s/{case}_seg.nrrd").touch()
    assert guess_layout(Path("s")).block == {"name": "dicom", "images": "s/*/t1", "labels": "s/*_seg.nrrd"}
    Path("z").mkdir()
    Path("z/organs.npz").touch()
    assert guess_layout(Path("z")).block == {"name": "npz", "file": "z/organs.npz"}


def test_of_names_that_share_a_value_the_first_becomes_a_class() -> None:
    write(Path("n/imagesTr/k_0000.nii.gz"), 1)
    write(Path("n/labelsTr/k.nii.gz"), label(1, 2))
    labels = {"background": 0, "whole": [1, 2], "part": [1], "other": 3}
    Path("n/dataset.json").write_text(json.dumps({"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}))
    assert check_json("n")["classes"] == ["whole", "other"]
