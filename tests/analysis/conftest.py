"""A small study that answers every question: four methods, two label budgets, three seeds, two sites alike but for their slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from raykd.results.writer import RunWriter, new_manifest

LEVELS = {"local": 0.50, "fedavg": 0.58, "finetune": 0.62, "dual_kd": 0.68}
BUDGETS, SEEDS = (1, 4), (0, 1, 2)
PATIENTS, CLASSES = 6, ("femoral_cartilage", "tibial_cartilage")


def write_cell(folder: Path, method: str, shots: int, seed: int) -> None:
    run_id = f"{method}-{shots}-{seed}"
    path = folder / run_id
    path.mkdir(parents=True)
    writer = RunWriter(path, {"run_id": run_id, "scenario": "small", "method": method, "seed": seed})
    writer.write_manifest({**new_manifest("0", run_id), "status": "done", "method": method, "deployed": "global"})
    scenario = {"name": "small", "seed": seed, "method": {"name": method}, "clients": [{"labels": {"num_shots": shots}}]}
    (path / "scenario.yaml").write_text(yaml.safe_dump(scenario))
    clients = [
        {"client_id": c, "group": "g", "client_name": ("university", "rural")[c], "num_labelled": shots, "scanner": "x",
         "spacing_i_mm": 1.5 + 3 * c, "spacing_j_mm": 1.0, "spacing_k_mm": 1.0} for c in range(2)
    ]  # fmt: skip
    writer.write("clients", clients, "all")
    rng, cases = np.random.default_rng([seed, shots, *method.encode()]), []
    for number, share in ((-1, 0.5), (0, 0.8), (1, 1.0)):
        for c, p, (index, name) in ((c, p, item) for c in range(2) for p in range(PATIENTS) for item in enumerate(CLASSES, 1)):
            row = {"round": number, "client_id": c, "split": "test", "case_id": f"p{p}", "class_index": index, "class_name": name,
                   "is_ref_empty": False, "is_pred_empty": False, "volume_ref_mm3": 100.0}  # fmt: skip
            level = (LEVELS[method] + 0.05 * np.log2(shots)) * share + (p - 2.5) / 100 - 0.1 * c + rng.normal(0, 0.01)
            cases.append({**row, "model": "global", "dsc": float(level), "volume_pred_mm3": 95.0})
            if number == -1 and method == "dual_kd":
                cases.append({**row, "model": "teacher", "dsc": 0.55 - 0.1 * c, "volume_pred_mm3": 120.0})
    writer.write("cases", cases, "all")
    for number in range(2):
        writer.write("rounds", [{"round": number, "wall_s": 10.0, "simulated_s": 60.0, "server_s": 0.1}], f"r{number}")
        trained = [{"round": number, "client_id": c, "loss_total": 1.0, "train_s": 4.0} for c in range(2)]
        writer.write("training", trained, f"r{number}")
        size = {"local": 0, "fedavg": 500_000}.get(method, 800_000)
        sent = [{"round": number, "client_id": c, "direction": way, "kind": "params", "num_bytes": size, "simulated_s": 5.0}
                for c in range(2) for way in ("down", "up") if size]  # fmt: skip
        writer.write("transfers", sent, f"r{number}")
    if method not in ("local", "fedavg"):
        writer.write("teachers", [{"role": "teacher", "step": 100, "loss": 0.3, "train_s": 30.0}], "t")


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    for method in LEVELS:
        for shots in BUDGETS:
            for seed in SEEDS:
                write_cell(folder, method, shots, seed)
    return folder
