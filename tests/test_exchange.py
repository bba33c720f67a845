"""What runs become for the tools of others, read back by those tools where they are installed."""

from __future__ import annotations

import fcntl
import json
import math
import shutil
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from raykd.cli import main
from raykd.exchange.curves import points_of, settings_of
from raykd.exchange.trackers import INSTALLS, TRACKERS
from raykd.results.reader import open_run
from raykd.results.writer import RunWriter, new_manifest

Export = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Two rounds of two sites with voxels of 2 mm³; site 1 has a case without class 2, where none is predicted either."""
    path = tmp_path / "run"
    path.mkdir()
    common = {"run_id": "r", "scenario": "s", "method": "fedavg", "seed": 0}
    writer = RunWriter(path, common)
    writer.write_manifest({**new_manifest("0", "r"), "method": "fedavg", "deployed": "global", "status": "done"})
    (path / "scenario.yaml").write_text("name: knees\nfederation: {rounds: 2}\nclients: [{group: g}]\n")
    edges = {"spacing_i_mm": 2.0, "spacing_j_mm": 1.0, "spacing_k_mm": 1.0}
    writer.write("clients", [{"client_id": c, "group": "g", "client_name": f"site-{c}", **edges} for c in range(2)], "all")
    for number in range(2):
        writer.write(
            "training", [{"round": number, "client_id": c, "loss_total": 1.0 + c - number} for c in range(2)], f"r{number}"
        )
        writer.write("rounds", [{"round": number, "num_completed": 2, "wall_s": 5.0}], f"r{number}")
    writer.write("teachers", [{"role": "teacher", "step": s, "loss": 1.0 / s, "train_s": 1.0} for s in (10, 20)], "t")
    row = {"round": 1, "split": "test", "case_id": "c", "model": "global"}
    full = {"volume_ref_mm3": 40.0, "volume_pred_mm3": 60.0, "is_ref_empty": False, "is_pred_empty": False}
    empty = {"volume_ref_mm3": 0.0, "volume_pred_mm3": 0.0, "is_ref_empty": True, "is_pred_empty": True}
    one, two = ({**row, "class_index": index, "class_name": name} for index, name in ((1, "a"), (2, "b")))
    rows = [{**one, "client_id": c, **full, "dsc": dsc} for c, dsc in ((0, 0.4), (1, 0.8))]
    rows += [{**two, "client_id": 0, **full, "dsc": 0.2}, {**two, "client_id": 1, **empty, "dsc": None}]
    writer.write("cases", rows, "r1")
    return path


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Export:
    def export(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raykd", "export", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return export


def test_tables_as_curves(run_dir: Path) -> None:
    points = {(point.tag, point.step): point.value for point in points_of(open_run(run_dir))}
    assert points["training/loss_total", 1] == 1.5 and points["training/loss_total", 2] == 0.5
    # Site 0: (0.4 + 0.2) / 2; site 1: 0.8, for its other class has an empty reference.
    assert points["dsc_by_site/site-1/global", 2] == pytest.approx(0.8) and points["dsc/global", 2] == pytest.approx(0.55)
    assert points["repository/loss_teacher", 20] == 0.05 and points["rounds/wall_s", 1] == 5
    assert settings_of(open_run(run_dir))["clients.0.group"] == "g"


def test_nnunet_s_summary(run_dir: Path, export: Export, tmp_path: Path) -> None:
    """Case 0 has 20 voxels in the reference, 30 in the prediction and a Dice of 0.4: 0.4 * 50 / 2 hits."""
    code, out, _ = export(run_dir, "--format", "nnunet", "--out", tmp_path / "out")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert code == 0 and out.strip() == str(tmp_path / "out")
    first = summary["metric_per_case"][0]["metrics"]["1"]
    counts = {name: first[name] for name in ("TP", "FP", "FN", "n_ref", "n_pred")}
    assert counts == {"TP": 10, "FP": 20, "FN": 10, "n_ref": 20, "n_pred": 30} and first["IoU"] == pytest.approx(10 / 40)
    assert math.isnan(summary["metric_per_case"][1]["metrics"]["2"]["Dice"]), "nnU-Net leaves out what both lack"
    assert summary["mean"]["2"]["Dice"] == pytest.approx(0.2) and summary["foreground_mean"]["Dice"] == pytest.approx(
        (0.6 + 0.2) / 2
    )
    shutil.rmtree(run_dir / "tables/cases")
    code, _, err = export(run_dir, "--format", "nnunet")
    assert code == 2 and "no test case was evaluated yet" in err


def test_tensorboard_reads_what_it_is_given_once(run_dir: Path, export: Export, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'raykd[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        code, _, err = export(run_dir, "--to", "tensorboard", "--out", tmp_path / "tb")
    assert code == 0 and f"tensorboard --logdir {tmp_path / 'tb'}" in err
    read = EventAccumulator(str(tmp_path / "tb/r"))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("training/loss_total")] == [(1, 1.5), (2, 0.5)]


def test_a_tracker_is_fed_while_the_run_goes_on(
    run_dir: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that is written while the export follows arrives, each point once."""
    from raykd.exchange import trackers

    told: list[Any] = []

    class Told:
        place = "here"

        def __init__(self, *_: Any) -> None: ...

        def add(self, points: Any) -> None:
            told.extend(points)

        def end(self, status: str) -> None:
            told.append(status)

    def go_on() -> None:
        time.sleep(0.3)
        writer = RunWriter(run_dir, {"run_id": "r", "scenario": "s", "method": "fedavg", "seed": 0})
        writer.write("rounds", [{"round": 2, "num_completed": 1}], "r2")
        held.close()

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Told)
    monkeypatch.setattr("raykd.commands.export.POLL_S", 0.1)
    held = (run_dir / "run.lock").open("wb")
    fcntl.flock(held, fcntl.LOCK_EX)
    thread = threading.Thread(target=go_on)
    thread.start()
    assert export(run_dir, "--to", "tensorboard", "--follow")[0] == 0
    thread.join()
    tags = [(point.tag, point.step) for point in told[:-1]]
    assert ("rounds/num_completed", 3) in tags[-3:] and len(tags) == len(set(tags)) and told[-1] == "done"


def test_mlflow_keeps_a_run_once(run_dir: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'raykd[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for _ in range(2):
        assert export(run_dir, "--to", "mlflow", "--out", tmp_path / "ml")[0] == 0
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "ml").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("raykd/knees").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["federation.rounds"] == "2"
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "training/loss_total")] == [(1, 1.5), (2, 0.5)]


def test_wandb_writes_an_offline_run(run_dir: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is not installed: pip install 'raykd[wandb]'")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert export(run_dir, "--to", "wandb", "--out", tmp_path / "wb")[0] == 0
    assert list((tmp_path / "wb/wandb").glob("offline-run-*/run-r.wandb"))


def test_what_a_tracker_is_installed_as_is_its_extra() -> None:
    extras = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name: [wanted] for name, wanted in INSTALLS.items()} == {name: extras[name] for name in TRACKERS}


def test_wrong_uses_are_sentences(run_dir: Path, export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    for words, said in (
        (("--to", "wandb"), "pip install 'wandb>=0.19', or raykd with its extra, pip install 'raykd[wandb]'"),
        (("--to", "tensorbord"), "did you mean 'tensorboard'?"),
        (("--format", "monai-bundel"), "did you mean 'monai-bundle'?"),
        (("--format", "monai-bundle"), "it holds no final model"),
        (("--follow",), "--follow goes with --to"),
        (("--model", "global"), "--model goes with --format monai-bundle"),
        (("--site", "a"), "--site goes with --format monai-bundle"),
    ):
        code, out, err = export(run_dir, *words)
        assert (code, out) == (2, "") and said in err and "Traceback" not in err


TENSOR = {"type": "object", "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"]}
TENSORS = {"type": "object", "additionalProperties": TENSOR, "minProperties": 1}
METADATA = {
    "type": "object",
    "required": [
        "schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version",
        "optional_packages_version", "task", "description", "authors", "copyright", "network_data_format",
    ],
    "properties": {
        **{name: {"type": "string"} for name in ("schema", "version", "task", "description", "authors", "copyright")},
        **{name: {"type": "object"} for name in ("changelog", "required_packages_version", "optional_packages_version")},
        "network_data_format": {
            "type": "object", "required": ["inputs", "outputs"], "properties": {"inputs": TENSORS, "outputs": TENSORS},
        },
    },
}  # fmt: skip
"""What MONAI's published schema of a bundle's metadata asks for (meta_schema_20220324)."""


PATCH = "training.patch_shape=[8, 16, 16]"
OWN_PATCH = "clients[1].training={patch_shape: [8, 24, 24]}"


@pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore:parsing config_file:UserWarning")
def test_a_bundle_predicts_what_was_scored(run: Any, load: Any, export: Export, tmp_path: Path) -> None:
    """The masks are those of the run's evaluation, voxel by voxel, in windows of the site's own patch, on the file's own axes."""
    import nibabel
    from monai.bundle import run as run_bundle
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff

    from raykd.data.federation import build_client_data
    from raykd.data.volume_io import to_ras
    from raykd.numerics.metrics import evaluate_case

    words = ("method={name: fedavg}", "federation.rounds=1", PATCH, OWN_PATCH)
    outcome, scenario = run(*words), load(*words)
    code, _, err = export(outcome.path, "--format", "monai-bundle")
    assert code == 2 and "[8, 16, 16] at community-0, [8, 24, 24] at university" in err and "--site" in err
    code, _, err = export(outcome.path, "--format", "monai-bundle", "--site", "university", "--out", tmp_path / "bundle")
    assert code == 0, err
    metadata = json.loads((tmp_path / "bundle/configs/metadata.json").read_text())
    assert [error.message for error in Draft202012Validator(METADATA).iter_errors(metadata)] == []
    case = build_client_data(scenario, scenario.members()[2], Path()).test[0]
    to_lps = axcodes2ornt("LPS", (("L", "R"), ("P", "A"), ("I", "S")))
    turned = apply_orientation(case.image_CIJK[0].numpy(), to_lps)
    affine = case.affine @ inv_ornt_aff(to_lps, case.shape)
    (tmp_path / "images").mkdir()
    nibabel.save(nibabel.Nifti1Image(turned, affine), tmp_path / "images/case.nii.gz")
    run_bundle(
        config_file=str(tmp_path / "bundle/configs/inference.json"), bundle_root=str(tmp_path / "bundle"),
        dataset_dir=str(tmp_path / "images"), output_dir=str(tmp_path / "predictions"), device="cpu",
    )  # fmt: skip
    written = nibabel.load(tmp_path / "predictions/case_seg.nii.gz")
    assert np.allclose(written.affine, affine, atol=1e-4)
    predicted, _ = to_ras(np.asarray(written.dataobj), affine)
    assert len(np.unique(predicted)) > 1
    found = evaluate_case(predicted, case.label_IJK.numpy(), 2, case.spacing_mm, surface=False)
    rows = outcome.table("cases").query("client_id == 2 and model == 'global' and split == 'test' and round == 0")
    rows = rows.sort_values("class_index")
    assert [one.dsc for one in found] == rows["dsc"].tolist()
    assert [one.volume_pred_mm3 for one in found] == rows["volume_pred_mm3"].tolist()
    assert np.array_equal(predicted, _evaluated(outcome, scenario, case)), "voxel by voxel"


@pytest.mark.parametrize(("model", "score"), [("global", 0.3), ("personal-north", 0.8), ("personal-south", 0.6), ("teacher", 0.1)])
def test_a_bundle_tells_the_scores_of_its_own_model(model: str, score: float) -> None:
    import pandas as pd

    from raykd.exchange.monai_bundle import _scores

    scores = {(0, "global"): 0.2, (1, "global"): 0.4, (0, "personal"): 0.8, (1, "personal"): 0.6, (1, "teacher"): 0.1}
    rows = [(1, *key, "test", "a", dsc) for key, dsc in scores.items()]
    rows += [(0, 0, "global", "test", "a", 0.9), (1, 0, "global", "validation", "a", 0.9), (1, -1, "teacher", "test", "a", 0.9)]
    cases = pd.DataFrame(rows, columns=["round", "client_id", "model", "split", "class_name", "dsc"])
    clients = pd.DataFrame({"client_id": [0, 1], "client_name": ["north", "south"]})
    run: Any = SimpleNamespace(cases=cases, clients=clients)
    assert _scores(run, model) == {"dsc_a": pytest.approx(score)}


def _evaluated(outcome: Any, scenario: Any, case: Any) -> np.ndarray:
    """The classes that a site of a run had when it evaluated the global model on a case, whole windows of its own patch."""
    from safetensors.torch import load_file

    from raykd.data.patches import normalise
    from raykd.federation.inference import predict_labels
    from raykd.models._base import build_network
    from raykd.numerics.params import load_state

    network = build_network(scenario.student.network, len(scenario.classes) + 1, 0)
    load_state(network, load_file(outcome.path / "models/global.safetensors"))
    at_once = predict_labels(network, normalise(case.image_CIJK)).numpy()
    in_windows = predict_labels(network, normalise(case.image_CIJK), (8, 24, 24)).numpy()
    assert not np.array_equal(at_once, in_windows), "a test that windows do not matter to would prove nothing"
    return in_windows
