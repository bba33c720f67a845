"""Tasks of the Medical Segmentation Decathlon: four axes, names of labels, download."""

from __future__ import annotations

import gc
import hashlib
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from layout_files import AFFINE, SHAPE, classes_at, image, keys, label, problems, source, write, write_json
from monai.apps import DecathlonDataset

from raykd.scenario.errors import DataError

TASK = "Task04_Hippocampus"


def _task(root: Path, *names: str, channels: tuple[str, ...] = ("MRI",)) -> Path:
    folder = root / TASK
    content = {
        "modality": {str(index): name for index, name in enumerate(channels)},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
        "test": [],
    }
    write_json(folder / "dataset.json", content)
    (folder / "imagesTr").mkdir(exist_ok=True)
    for name in names:
        array = np.stack([image(name + channel) for channel in channels], axis=-1)
        array = array if len(channels) > 1 else array[..., 0]
        nibabel.save(nibabel.Nifti1Image(array, AFFINE), folder / f"imagesTr/{name}.nii.gz")
        write(folder / f"labelsTr/{name}.nii.gz", label(1, 2))
    return folder


def _source(root: Path, **settings: Any) -> Any:
    return source(root, ("posterior", "anterior"), name="decathlon", task=TASK, **{"folder": "msd", **settings})


def test_cases_are_those_that_dataset_json_lists(tmp_path: Path) -> None:
    folder = _task(tmp_path / "msd", "hippocampus_001", "hippocampus_003")
    (folder / "imagesTr/._hippocampus_001.nii.gz").write_bytes(b"left by an archive of another system")
    made = _source(tmp_path, patient_pattern="_(.*)$")
    assert [(key.case_id, key.patient_id) for key in keys(made)] == [("hippocampus_001", "001"), ("hippocampus_003", "003")]
    assert classes_at(made, "hippocampus_001", (0, 0, 0), (1, 0, 0), (2, 0, 0)) == [2, 1, 0]
    np.testing.assert_array_equal(made.load(made.keys()[0]).image_CIJK[0].numpy(), image("hippocampus_001MRI"))
    made.check()


def test_a_channel_of_the_fourth_axis_is_chosen_by_number_or_name(tmp_path: Path) -> None:
    _task(tmp_path / "msd", "a", channels=("FLAIR", "T1w", "t1gd"))
    for channel, name in ((0, "FLAIR"), (2, "t1gd"), ("T1W", "T1w")):
        made = _source(tmp_path, channel=channel)
        case = made.load(made.keys()[0])
        assert case.image_CIJK.shape == (1, *SHAPE)
        np.testing.assert_array_equal(case.image_CIJK[0].numpy(), image("a" + name))
    with pytest.raises(DataError, match="channel must be 0 to 2"):
        _source(tmp_path, channel=3).keys()


def test_listed_files_that_are_not_there_or_outside_are_reported(tmp_path: Path) -> None:
    folder = _task(tmp_path / "msd", "a", "b", "c")
    (folder / "imagesTr/a.nii.gz").unlink()
    (folder / "labelsTr/b.nii.gz").unlink()
    report = "\n".join(problems(_source(tmp_path)))
    assert len(report.splitlines()) == 2
    assert "a.nii.gz: case 'a': the file must exist" in report and "'b': a case must have its label file" in report
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="allow_outside: true"):
        source(tmp_path / "other", ("anterior",), name="decathlon", task=TASK, folder="../msd", allow_unlabelled=True).keys()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where `tmp_path/served` is served."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=tmp_path / "served")) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
    # MONAI leaves its connections to the collector, which else would find them in another test.
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_download_fetches_unpacks_and_checks_the_archive(tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _task(tmp_path / "made", "a")
    archive = tmp_path / "served/archive.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "made" / TASK, arcname=TASK)
    monkeypatch.setitem(DecathlonDataset.resource, TASK, f"{served}/archive.tar")
    monkeypatch.setitem(DecathlonDataset.md5, TASK, "0" * 32)
    with pytest.raises(DataError, match="download: true"):
        _source(tmp_path, download=True).keys()
    monkeypatch.setitem(DecathlonDataset.md5, TASK, hashlib.md5(archive.read_bytes()).hexdigest())
    made = _source(tmp_path, download=True)
    assert [key.case_id for key in keys(made)] == ["a"]
    made.check()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_download_that_the_net_refuses_says_what_to_do(tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DecathlonDataset.resource, TASK, f"{served}/nowhere.tar")
    with pytest.raises(DataError, match="set download: false"):
        _source(tmp_path, download=True).keys()
    with pytest.raises(DataError, match="did you mean 'Task04_Hippocampus'"):
        source(tmp_path, ("a",), name="decathlon", task="Task04_Hipocampus", folder="msd", download=True).keys()
    with pytest.raises(DataError, match=r"dataset\.json"):
        _source(tmp_path).keys()


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        ({"0": "background", "1": "tumour", "2": "tumour"}, "a label's name must be its own, got 'tumour' for [1] and [2]"),
        ({"0": "background", "1": "Anterior", "2": "anterior "}, "got 'anterior ' for [1] and [2]"),
        ({"0": "background", "1.5": "anterior"}, "must be an integer or a list of integers, got '1.5'"),
    ],
)
def test_two_values_of_one_name_are_refused(tmp_path: Path, labels: dict[str, str], part: str) -> None:
    folder = _task(tmp_path / "msd", "a")
    cases = [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}]
    write_json(folder / "dataset.json", {"modality": {"0": "MRI"}, "labels": labels, "training": cases})
    with pytest.raises(DataError) as refused:
        _source(tmp_path).keys()
    assert part in str(refused.value)


def test_a_label_or_an_image_of_two_cases_is_refused(tmp_path: Path) -> None:
    folder = _task(tmp_path / "msd", "a", "b")
    twice = [{"image": f"imagesTr/{name}.nii.gz", "label": "labelsTr/a.nii.gz"} for name in ("a", "b", "a")]
    write_json(folder / "dataset.json", {"labels": {"1": "Anterior", "2": "Posterior"}, "training": twice})
    with pytest.raises(DataError) as refused:
        _source(tmp_path).keys()
    first, second = str(refused.value).splitlines()
    assert "case 'a': a case's name must be its own" in first
    assert "case 'b': a label must belong to one case, got that of case 'a' too" in second


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    folder = _task(tmp_path / "msd", "a")
    write_json(folder / "dataset.json", {"labels": {"1": "Anterior", "2": "Posterior"}, "training": [{"image": "imagesTr/a\0b"}]})
    with pytest.raises(DataError, match="must be text in UTF-8"):
        _source(tmp_path, allow_unlabelled=True).keys()
