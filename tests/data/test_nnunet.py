"""nnU-Net v2 data sets: channels, regions, the ignore label, names of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_files import classes_at, image, keys, label, problems, source, write, write_json

from raykd.scenario.errors import DataError

LABELS = {"background": 0, "Femoral Cartilage": 1, "tibial-cartilage": 2, "cartilage": [1, 2, 3], "ignore": 9}
CHANNELS = {"0": "T1", "1": "FLAIR"}
CLASSES = ("tibial_cartilage", "femoral_cartilage")


def _dataset(root: Path, *names: str, **changes: Any) -> None:
    folder = root / "Dataset007_Knee"
    content = {"channel_names": CHANNELS, "labels": LABELS, "numTraining": len(names), "file_ending": ".nii.gz", **changes}
    write_json(folder / "dataset.json", content)
    for name in names:
        for channel in (0, 1):
            write(folder / f"imagesTr/{name}_{channel:04d}.nii.gz", image(f"{name}{channel}"))
        write(folder / f"labelsTr/{name}.nii.gz", label(1, 2, 3, 9))


def _source(root: Path, classes: tuple[str, ...] = CLASSES, **settings: Any) -> Any:
    return source(root, classes, name="nnunet", folder="Dataset007_Knee", **settings)


def test_channels_are_chosen_by_number_or_name(tmp_path: Path) -> None:
    _dataset(tmp_path, "knee_001", "knee_002")
    for channel, index in ((0, 0), (1, 1), ("flair", 1)):
        made = _source(tmp_path, channel=channel)
        assert [key.case_id for key in keys(made)] == ["knee_001", "knee_002"]
        np.testing.assert_array_equal(made.load(made.keys()[1]).image_CIJK[0].numpy(), image(f"knee_002{index}"))
    for channel, hint in ((2, "named t1, flair"), ("flar", "did you mean 'flair'?")):
        with pytest.raises(DataError, match="channel must be") as caught:
            _source(tmp_path, channel=channel).keys()
        assert hint in str(caught.value)


def test_labels_are_matched_by_name_and_ignored_voxels_are_unknown(tmp_path: Path) -> None:
    _dataset(tmp_path, "a")
    places = (0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0)
    assert classes_at(_source(tmp_path), "a", *places) == [2, 1, 0, 255, 0]
    assert classes_at(_source(tmp_path, ("cartilage",)), "a", *places) == [1, 1, 1, 255, 0]
    by_value = _source(tmp_path, label_values={"tibial_cartilage": [3], "femoral_cartilage": []})
    assert classes_at(by_value, "a", *places) == [0, 0, 1, 255, 0]
    (line,) = problems(_source(tmp_path, other_values="refuse"))
    assert "got [3]" in line and "a.nii.gz" in line


def test_classes_without_a_namesake_and_overlapping_regions_are_refused_together(tmp_path: Path) -> None:
    _dataset(tmp_path, "a")
    lines = problems(_source(tmp_path, ("femoral_cartilag", "cartilage", "tibial_cartilage")))
    assert len(lines) == 2
    assert "'femoral_cartilag'; did you mean 'femoral_cartilage'? or map it in label_values" in lines[0]
    assert "got 2 in 'cartilage' and 'tibial_cartilage'" in lines[1]


def test_check_reports_every_broken_pair(tmp_path: Path) -> None:
    _dataset(tmp_path, "a", "b", "c", "d", "e")
    folder = tmp_path / "Dataset007_Knee"
    (folder / "labelsTr/a.nii.gz").unlink()
    (folder / "imagesTr/b_0000.nii.gz").unlink()
    for path in ("imagesTr/c_0000.nii.gz", "labelsTr/c.nii.gz"):
        (folder / path).write_bytes((folder / path).read_bytes()[:-5])
    write(folder / "labelsTr/d.nii.gz", label(1)[:, :, 1:])
    lines = "\n".join(problems(_source(tmp_path)))
    assert len(lines.splitlines()) == 5
    for part in ("'a': a case must have its label", "'b': a label must have an image", "c_0000.nii.gz", "c.nii.gz: case 'c'"):
        assert part in lines
    assert "'d': a label must have its image's shape" in lines and "'e'" not in lines
    assert len(_source(tmp_path, subset="test", allow_unlabelled=True)._listing[1]) == 1


def test_the_test_images_need_no_labels(tmp_path: Path) -> None:
    _dataset(tmp_path, "a")
    write(tmp_path / "Dataset007_Knee/imagesTs/z_0000.nii.gz", image("z"))
    made = _source(tmp_path, subset="test")
    assert [made.load(key).label_IJK for key in keys(made)] == [None]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"labels": {"femur": "one"}}, "'femur' for 'one'"),
        ({"labels": {"femur": 1.5, "x": [None]}}, "integer"),
        ({"labels": []}, "labels must be an object, got list"),
        ({"file_ending": ".png"}, "that of a volume, got .png"),
    ],
)
def test_a_dataset_json_that_makes_no_sense_is_named(tmp_path: Path, content: dict[str, Any], part: str) -> None:
    _dataset(tmp_path, "a", **content)
    with pytest.raises(DataError, match=r"dataset\.json") as caught:
        _source(tmp_path).keys()
    if part != "'femur' for 'one'":
        assert part in str(caught.value)


def test_a_missing_or_broken_dataset_json_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        _source(tmp_path).keys()
    _dataset(tmp_path, "a")
    (tmp_path / "Dataset007_Knee/dataset.json").write_text('{"labels":\n ]}')
    with pytest.raises(DataError, match="line 2"):
        _source(tmp_path).keys()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('"labels": {"background": 0, "liver": 1, "Liver": 2}', "a label's name must be its own, got 'Liver' for [1] and [2]"),
        ('"labels": {"background": 0, "liver": 1, "liver": 2}', "an object must name each key once, got 'liver'"),
        ('"labels": {"background": 0, "liver": 1.5}', "must be an integer or a list of integers, got 1.5 for 'liver'"),
        ('"labels": {"background": 0, "liver": true}', "got True for 'liver'"),
        ('"labels": {"background": 0, "liver": [1, 2.5]}', "got [1, 2.5] for 'liver'"),
    ],
)
def test_labels_that_json_or_python_would_drop_or_round_are_refused(tmp_path: Path, text: str, part: str) -> None:
    _dataset(tmp_path, "a")
    content = f'{{"channel_names": {{"0": "T1"}}, "numTraining": 1, "file_ending": ".nii.gz", {text}}}'
    (tmp_path / "Dataset007_Knee/dataset.json").write_text(content)
    with pytest.raises(DataError) as refused:
        _source(tmp_path, ("liver",)).keys()
    assert part in str(refused.value)


def test_whole_numbers_however_written_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    _dataset(tmp_path, "a")
    content = '{"channel_names": {"0": "T1"}, "labels": {"background": 0, "liver": 1.0, "spleen": 2}, "file_ending": ".nii.gz"}'
    (tmp_path / "Dataset007_Knee/dataset.json").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert classes_at(_source(tmp_path, ("spleen", "liver")), "a", (0, 0, 0), (1, 0, 0)) == [2, 1]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("b.nii.gz", ["case 'b.nii.gz'", "must end in the number of its channel", "rename it to CASE_0000.nii.gz"]),
        ("b_000.nii.gz", ["must end in the number of its channel"]),
        ("b_0000.NII.GZ", ["must end in the number of its channel, got b_0000.NII.GZ"]),
        ("b_0001.nii.gz", ["case 'b'", "must have the channel that is read, got no b_0000.nii.gz"]),
    ],
)
def test_a_volume_that_would_be_left_out_is_refused(tmp_path: Path, name: str, parts: list[str]) -> None:
    _dataset(tmp_path, "a")
    (tmp_path / "Dataset007_Knee/imagesTr" / name).touch()
    (tmp_path / "Dataset007_Knee/imagesTr/._a_0000.nii.gz").touch()
    with pytest.raises(DataError) as refused:
        _source(tmp_path).keys()
    (line,) = str(refused.value).splitlines()
    assert [part for part in parts if part not in line] == [], line


def test_a_missing_folder_of_labels_is_one_line(tmp_path: Path) -> None:
    _dataset(tmp_path, "a", "b")
    (tmp_path / "Dataset007_Knee/labelsTr").rename(tmp_path / "elsewhere")
    (line,) = problems(_source(tmp_path))
    assert "its folder must hold labelsTr, got none" in line
    bare = _source(tmp_path, allow_unlabelled=True)
    assert [bare.has_label(key) for key in keys(bare)] == [False, False]
