"""What runs on a real GPU: every method, network and setting of training, twice to the last bit. Skipped where torch sees none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raykd.scenario.registry import METHODS, NETWORKS

if not torch.cuda.is_available():
    pytest.skip("torch sees no GPU", allow_module_level=True)
ROOT = Path(__file__).parent.parent
ON_GPU = "resources.gpus_per_client=0.2"
TOLERANCE = 0.02
"""Of the first loss beside the CPU's: convolutions on a GPU run in TF32, with ten bits of mantissa."""
SETTINGS = (
    "training.precision=bf16",
    "training.memory_format=channels_last_3d",
    "training.optimiser=sgd",
    "training.clip_norm=0.1",
    "training.augmentation={noise: 0.2, blur: 0.5, spacing_factor: [2, 1, 1], bias_field: 0.1}",
    "traffic={up: {params: [{name: power_sgd}]}, down: {params: [{name: fp16}]}}",
    "privacy={records: {noise_multiplier: 0.8, max_grad_norm: 1.0}}",
    "privacy={client: {noise_multiplier: 0.8, clip_norm: 1.0}}",
)


def _assert_twice_the_same(record: Callable[..., Any], assert_same_tables: Callable[..., None], *overrides: str) -> None:
    torch.cuda.reset_peak_memory_stats()
    one, again = (record(*overrides, ON_GPU, again=again).outcome for again in (False, True))
    assert torch.cuda.max_memory_allocated() > 2**20, "nothing ran on the GPU"
    assert one.models
    assert one.models == again.models
    assert_same_tables(one, again)


@pytest.mark.parametrize("name", METHODS.names())
def test_the_same_seed_gives_every_method_the_same_numbers_on_a_gpu(
    name: str, record: Callable[..., Any], assert_same_tables: Callable[..., None]
) -> None:
    _assert_twice_the_same(record, assert_same_tables, f"method={{name: {name}}}")


@pytest.mark.parametrize("name", [name for name in METHODS.names() if METHODS.get(name).is_trained])
def test_a_gpu_starts_from_the_loss_of_the_cpu(name: str, record: Callable[..., Any]) -> None:
    overrides = (f"method={{name: {name}}}",)
    there, here = (record(*overrides, *more).outcome.table("training") for more in ((), (ON_GPU,)))
    there, here = (table[table["round"] == 0].set_index("client_id")["loss_supervised"].dropna() for table in (there, here))
    if there.empty:
        pytest.skip("its sites learn from no label in the first round")
    np.testing.assert_allclose(here, there, rtol=TOLERANCE)


@pytest.mark.parametrize("name", NETWORKS.names())
def test_the_same_seed_gives_every_network_the_same_numbers_on_a_gpu(
    name: str, record: Callable[..., Any], assert_same_tables: Callable[..., None]
) -> None:
    wide = [32, 32, 32] if name == "swin_unetr" else [16, 32, 32]
    network, shape = f"student.network={{name: {name}}}", f"training.patch_shape={wide}"
    _assert_twice_the_same(record, assert_same_tables, "method={name: fedavg}", network, shape)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_same_seed_gives_every_setting_the_same_numbers_on_a_gpu(
    setting: str, record: Callable[..., Any], assert_same_tables: Callable[..., None]
) -> None:
    _assert_twice_the_same(record, assert_same_tables, "method={name: fedavg}", setting)


@pytest.mark.filterwarnings("default")  # torch's own, of what its compiler imports
def test_a_compiled_network_learns_on_a_gpu(record: Callable[..., Any]) -> None:
    plain, compiled = (
        record("method={name: fedavg}", f"training.compile={word}", ON_GPU).outcome.table("training") for word in ("false", "true")
    )
    np.testing.assert_allclose(compiled["loss_supervised"], plain["loss_supervised"], rtol=TOLERANCE)


def _run(folder: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    """The smoke scenario as a user runs it, so that Ray finds the GPU by itself."""
    command = [sys.executable, "-m", "raykd.cli", "run", "scenarios/smoke.yaml", "--out", str(folder)]
    for setting in settings:
        command += ["--set", setting]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("workers", ["processes", "threads"])
def test_shares_of_a_gpu_on_ray_give_the_numbers_of_one_process(
    workers: str, tmp_path: Path, outcome_at: Callable[[Path], Any], assert_same_tables: Callable[..., None]
) -> None:
    """Three slots of a fifth of a GPU each against one that does all."""
    runs = []
    for slots in (3, 1):
        settings = ("resources.cpus_per_client=0.2", ON_GPU, f"resources.workers={workers}", f"resources.slots={slots}")
        done = _run(tmp_path / str(slots), *settings)
        assert done.returncode == 0, done.stderr
        runs.append(outcome_at(tmp_path / str(slots)))
    assert [run.run.manifest["num_slots"] for run in runs] == [3, 1]
    assert_same_tables(*runs)
    assert runs[0].models == runs[1].models


def test_a_client_that_needs_more_than_its_share_of_a_gpu_is_told_so(tmp_path: Path) -> None:
    done = _run(tmp_path / "run", "resources.gpus_per_client=0.005", "training.patch_shape=[64, 128, 128]", "training.batch_size=8")
    assert done.returncode == 3
    assert "Give a client a larger share of a GPU" in done.stderr, done.stderr
