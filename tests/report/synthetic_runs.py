"""A federation that never ran: run directories written with RunWriter, with numbers drawn and slices drawn by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raykd.results.writer import RunWriter, new_manifest

CLASSES = ("femoral_cartilage", "tibial_cartilage", "patellar_cartilage")
METHODS = {"local": 0.60, "fedavg": 0.70, "fedprox": 0.71, "dual_kd": 0.80}
CLIENTS = (
    ("community-0", "community", (3.5, 1.25, 1.25), 2, 10.0),
    ("community-1", "community", (3.5, 1.25, 1.25), 2, 10.0),
    ("university", "university", (1.5, 0.75, 0.75), 5, 200.0),
    ("rural", "rural", (4.5, 1.5, 1.5), 1, 2.0),
)
ROUNDS = 20
DRAWN = {"spacing_mm[0]": 4.51234, "scanner": {"noise": 0.081234}, "scanner.noise": 0.081234}
EVALUATED = (-1, 4, 9, 14, 19)
SECONDS = {"local": 210.0, "fedavg": 260.0, "fedprox": 290.0, "dual_kd": 410.0}
KINDS = {"local": (), "fedavg": ("params",), "fedprox": ("params",), "dual_kd": ("params", "logits", "features")}


def scenario(method: str, seed: int, shots: int | None = None, **changes: Any) -> dict[str, Any]:
    """One of the study; with `shots`, one of a study of label budgets, where every site has so many."""
    groups = [
        {"group": group, "count": count, "source": {"name": "phantom"}, "labels": {"num_shots": shots or own}}
        for group, count, own in (("community", 2, 2), ("university", 1, 5), ("rural", 1, 1))
    ]
    repository = {
        "source": {"name": "phantom", "anatomy": "knee", "num_cases": 24},
        "spacing_mm": [1.5, 1.0, 1.0],
        "num_validation": 4,
        "teacher": {"network": {"name": "unet", "width": 16}, "num_steps": 600},
    }
    return {
        "name": "two-shot-knees",
        "description": "Four hospitals, few labels, one well-annotated repository.",
        "seed": seed,
        "classes": list(CLASSES),
        "repository": repository,
        "clients": groups,
        "method": {"name": method},
        "federation": {"rounds": ROUNDS, "participation": 1.0, "client_dropout": 0.1},
        "evaluation": {"every": 5, "surface_metrics": "final", "nsd_tolerance_mm": 1.0},
        **changes,
    }


def client_rows(names: Sequence[str], budget: int | None = None) -> Iterator[dict[str, Any]]:
    for index, (_, group, spacing, own, mbps) in enumerate(CLIENTS):
        shots = budget or own
        yield {
            "client_id": index, "group": group, "client_name": names[index],
            "spacing_i_mm": spacing[0], "spacing_j_mm": spacing[1], "spacing_k_mm": spacing[2],
            "source": "phantom, knee", "slice_gap_mm": 0.5 if index == 3 else 0.0, "joins": 0, "leaves": 12 if index == 3 else None,
            "label_slices": 0.4 if index == 3 else 1.0, "label_noise": "boundaries off by 1 mm" if index == 3 else None,
            "drawn": json.dumps(DRAWN) if index == 3 else None,
            "scanner": "noise 0.08, bias field 0.4", "label_classes": ", ".join(CLASSES if index != 2 else CLASSES[:2]),
            "num_labelled": shots, "num_unlabelled": 8 - shots, "num_test": 6, "network": "unet", "num_params": 351_204,
            "link_up_mbps": mbps, "link_down_mbps": 5 * mbps, "link_latency_ms": 30.0, "compute_factor": 0.5,
        }  # fmt: skip


def case_rows(level: float, rng: np.random.Generator, model: str) -> Iterator[dict[str, Any]]:
    difficulty = rng.normal(0, 0.04, size=(len(CLIENTS), 6))
    for round_index in EVALUATED:
        progress = 1 - 0.8 * 0.85 ** (round_index + 1)
        for client_id in range(len(CLIENTS)):
            for case in range(6):
                for class_index, name in enumerate(CLASSES, start=1):
                    site = (0.0, -0.01, 0.06, -0.09)[client_id]
                    mean = level * progress + site + difficulty[client_id, case] - 0.03 * (class_index - 1)
                    dsc = float(np.clip(mean + rng.normal(0, 0.02), 0, 1))
                    row: dict[str, Any] = {
                        "round": round_index, "client_id": client_id, "split": "test", "case_id": f"case-{case}", "model": model,
                        "class_index": class_index, "class_name": name, "dsc": dsc, "is_ref_empty": False, "is_pred_empty": False,
                    }  # fmt: skip
                    if round_index == EVALUATED[-1]:
                        row |= {"nsd": min(1.0, dsc + 0.08), "hd95_mm": 12 * (1 - dsc), "assd_mm": 3 * (1 - dsc)}
                        if CLIENTS[client_id][0] == "rural":
                            row |= {"volume_ref_mm3": 148.0, "volume_native_mm3": 200.0, "dsc_native": dsc - 0.1}
                    yield row
    for case in range(4):
        for class_index, name in enumerate(CLASSES, start=1):
            yield {"round": -1, "client_id": -1, "split": "test", "case_id": f"held-out-{case}", "model": "teacher",
                   "class_index": class_index, "class_name": name, "dsc": 0.9 - 0.02 * class_index}  # fmt: skip


def calibration_rows(rng: np.random.Generator, models: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """Four bins of each test case; a model is surer than right by its number in each, give or take 0.01."""
    for model, surer in models.items():
        for client_id in range(len(CLIENTS)):
            for case in range(6):
                for bin_index, num in ((7, 100), (10, 200), (13, 300), (14, 1000)):
                    sure = (bin_index + 0.5) / 15
                    right = float(np.clip(sure - surer + rng.normal(0, 0.01), 0, 1))
                    yield {"round": ROUNDS - 1, "client_id": client_id, "split": "test", "case_id": f"case-{case}", "model": model,
                           "bin_index": bin_index, "num_voxels": num, "num_correct": round(num * right),
                           "sum_confidence": num * sure, "sum_brier": num * 0.2, "sum_nll": num * 0.3}  # fmt: skip


SURER = {"local": 0.15, "fedavg": 0.05, "fedprox": 0.0, "dual_kd": -0.05}


def transfer_rows(method: str) -> Iterator[dict[str, Any]]:
    for client_id, (*_, mbps) in enumerate(CLIENTS):
        for round_index in range(ROUNDS):
            for kind in KINDS[method]:
                size = {"params": 1_404_816, "logits": 500_000, "features": 200_000}[kind]
                for direction in ("down", "up"):
                    rate = mbps * (5 if direction == "down" else 1)
                    yield {"round": round_index, "client_id": client_id, "direction": direction, "kind": kind, "codec": "none",
                           "num_values": size // 4, "num_bytes": size, "simulated_s": size * 8e-6 / rate + 0.03}  # fmt: skip
        if method == "dual_kd":
            yield {"round": -1, "client_id": client_id, "direction": "down", "kind": "teacher", "codec": "none",
                   "num_values": 1_400_000, "num_bytes": 5_600_000, "simulated_s": 5.6 * 8 / (5 * mbps)}  # fmt: skip


def preview_rows(method: str, model: str, error: float, num_slices: int = 2) -> Iterator[dict[str, Any]]:
    """A case of each site, its first slice with the most of the reference and the source beside it, and one of the repository."""
    for client_id, (_, _, spacing, *_) in enumerate(CLIENTS):
        for at in range(num_slices):
            truth, image = knee(spacing, seed=client_id + 10 * at)
            truth[: 2 * at] = 0
            truth[len(truth) - 12 * at :] = 0
            layers = {
                "image": (spacing, image),
                "reference": (spacing, truth),
                model: (spacing, knee(spacing, seed=client_id, shift=error)[0]),
                "teacher": (spacing, knee(spacing, seed=client_id, shift=-error / 3)[0]),
            }
            if at == 0:
                layers = {"source": (SOURCE_MM, knee(SOURCE_MM, seed=client_id)[1]), **layers}
            yield from pictures(layers, client_id=client_id, case_id="case-0", round=ROUNDS - 1, slice_index=40 + at)
    truth, image = knee(SOURCE_MM, seed=len(CLIENTS))
    held_out = {"image": (SOURCE_MM, image), "reference": (SOURCE_MM, truth), "teacher": (SOURCE_MM, truth)}
    yield from pictures(held_out, client_id=-1, case_id="repository-3", round=-1, slice_index=40)


SOURCE_MM = (0.75, 0.5, 0.5)


def pictures(layers: Mapping[str, tuple[Sequence[float], np.ndarray]], **where: Any) -> Iterator[dict[str, Any]]:
    """Coronal slices, K downwards and I rightwards."""
    for layer, (spacing, pixels) in layers.items():
        yield {**where, "axis": 1, "slice_mm": spacing[1], "row_mm": spacing[2], "col_mm": spacing[0],
               "rows": pixels.shape[0], "cols": pixels.shape[1], "layer": layer, "pixels": pixels.tobytes()}  # fmt: skip


def knee(spacing: Sequence[float], seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Label and image of a slice of 110 by 100 mm."""
    rows, cols = round(110 / spacing[2]), round(100 / spacing[0])
    y, x = np.meshgrid((np.arange(rows) + 0.5) * spacing[2], (np.arange(cols) + 0.5) * spacing[0], indexing="ij")
    femur = np.hypot((x - 52) / 30, (y - 34 - shift) / 26)
    tibia = np.hypot((x - 50) / 34, (y - 96) / 28)
    label = np.zeros(y.shape, np.uint8)
    label[(femur > 1) & (femur < 1.18 + shift / 60) & (y > 34)] = 1
    label[(tibia > 1) & (tibia < 1.12) & (y < 86) & (label == 0)] = 2
    label[(np.hypot((x - 14) / 5, (y - 34 - shift) / 14) < 1)] = 3
    bones = 110 * (np.hypot((x - 52) / 30, (y - 34) / 26) < 1) + 95 * (np.hypot((x - 50) / 34, (y - 96) / 28) < 1)
    image = 40 + bones + 170 * (label > 0) + np.random.default_rng(seed).normal(0, 10, label.shape)
    return label, np.clip(image, 0, 255).astype(np.uint8)


def write_run(
    path: Path,
    method: str,
    seed: int,
    *,
    names: Sequence[str],
    skip: Sequence[str] = (),
    status: str = "done",
    shots: int | None = None,
    num_slices: int = 2,
) -> Path:
    """One run directory; the tables named in `skip` are not written. With `shots`, each doubling of them adds 0.05 of Dice."""
    path.mkdir(parents=True)
    run_id = f"{method}-{seed}" if shots is None else f"{method}-{shots}-{seed}"
    writer = RunWriter(path, {"run_id": run_id, "scenario": "two-shot-knees", "method": method, "seed": seed})
    manifest = {**new_manifest("5f2c9a1be07d4c31", run_id), "git_commit": "0123456789abcdef0123456789abcdef01234567"}
    manifest |= {"started_at": "2026-01-05T10:00:00+00:00", "ended_at": "2026-01-05T11:12:00+00:00", "status": status}
    writer.write_manifest(manifest)
    (path / "scenario.yaml").write_text(yaml.safe_dump(scenario(method, seed, shots)), encoding="utf-8")
    rng = np.random.default_rng([seed, *method.encode()])
    model = "personal" if method == "local" else "global"
    wall = SECONDS[method] / ROUNDS
    bonus = 0.05 * np.log2(shots / 2) if shots else 0.0
    tables: dict[str, list[dict[str, Any]]] = {
        "clients": list(client_rows(names, shots)),
        "cases": list(case_rows(METHODS[method] + bonus + rng.normal(0, 0.005), rng, model)),
        "calibration": list(calibration_rows(rng, {model: SURER[method], "teacher": 0.1})),
        "rounds": [
            {"round": r, "num_selected": 4, "num_completed": 4 - (r == 7), "num_dropped": int(r == 7), "wall_s": wall,
             "simulated_s": 6 * wall, "engine_s": 0.1 * wall, "server_s": 0.05 * wall} for r in range(ROUNDS)
        ],
        "training": [
            {"round": r, "client_id": c, "num_steps": 16, "loss_total": 1.0 / (r + 1), "train_s": 0.2 * wall,
             "simulated_s": (c + 1) * wall, "peak_rss_mb": 900.0}
            for r in range(ROUNDS) for c in range(4)
        ],
        "transfers": list(transfer_rows(method)),
        "events": [
            {"round": 7, "client_id": 3, "kind": "dropout", "detail": "did not answer, as the scenario let it"},
            {"round": 12, "client_id": 1, "kind": "retry", "detail": "a worker was lost; the update was repeated as it was"},
        ],
        "previews": list(preview_rows(method, model, 14 * (0.95 - METHODS[method]), num_slices)),
        "teachers": [{"step": s, "loss": 1.2 * 0.995**s, "train_s": 0.1 * s} for s in range(0, 601, 50)],
    }  # fmt: skip
    for table, rows in tables.items():
        if table not in skip:
            writer.write(table, rows, "all")
    return path


def write_study(
    path: Path,
    methods: Sequence[str] = tuple(METHODS),
    seeds: Sequence[int] = (0, 1, 2),
    budgets: Sequence[int | None] = (None,),
    **options: Any,
) -> Path:
    """Runs of every method, label budget and seed."""
    options = {"names": [name for name, *_ in CLIENTS], **options}
    for method in methods:
        for shots in budgets:
            for seed in seeds:
                place = f"{method}-seed{seed}" if shots is None else f"{method}-{shots}-seed{seed}"
                write_run(path / place, method, seed, shots=shots, **options)
    return path
