"""Every network is trained, averaged, taught and asked in a whole run, at its smallest, beside a U-Net."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from raykd.models._base import build_network
from raykd.scenario.registry import NETWORKS

SMALLEST: dict[str, dict[str, Any]] = {
    "vnet": {"width": 2},
    "paper_vnet": {"width": 2},
    "segresnet": {"width": 4, "num_blocks": [1, 1, 1]},
    "dynunet": {"width": 4},
    "attention_unet": {"width": 4},
    "swin_unetr": {"width": 12, "window": [4, 4, 4]},
}
OTHERS = [name for name in NETWORKS.names() if name != "unet"]
"""The U-Net is in every other test of a run."""
every_network = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "swin_unetr" else ()) for name in OTHERS]
)
SMALL_RUN = ("clients[0].count=1", "federation.rounds=1", "evaluation.surface_metrics=never")


def overrides(name: str, role: str) -> list[str]:
    edge = 32 if name == "swin_unetr" else 16
    shape = f"[{edge}, {edge}, {edge}]"
    patches = [f"training.patch_shape={shape}", f"repository.teacher.patch_shape={shape}"]
    key = {"student": "student.network", "teacher": "repository.teacher.network"}[role]
    return [f"{key}={json.dumps({'name': name, **SMALLEST[name]})}", *patches, *SMALL_RUN]


def assert_finite(outcome: Any) -> None:
    assert outcome.run.manifest["status"] == "done"
    assert len(outcome.models)
    for model in outcome.models:
        assert all(np.isfinite(array).all() for array in outcome.tensors(model.removesuffix(".safetensors")).values())


@every_network
def test_students_are_averaged(name: str, run: Callable[..., Any]) -> None:
    outcome = run("method={name: fedavg}", *overrides(name, "student"))
    assert_finite(outcome)
    settings = NETWORKS.get(name).Settings.model_validate_json(json.dumps({"name": name, **SMALLEST[name]}))
    num_params = sum(parameter.numel() for parameter in build_network(settings, 3, 0).parameters())
    assert set(outcome.table("clients")["num_params"]) == {num_params}
    assert outcome.table("transfers").query("kind == 'params'")["num_values"].tolist() == [num_params] * 4


@every_network
@pytest.mark.parametrize("role", ["student", pytest.param("teacher", marks=pytest.mark.slow)])
def test_features_are_distilled_to_and_from_a_network_with_other_channels_and_grids(
    name: str, role: str, run: Callable[..., Any]
) -> None:
    layers = "feature: region_affinity, feature_layers: [bottleneck, decoder_1]"
    method = f"{{name: dual_kd, {layers}, num_passes: 0, start: cold, teacher: frozen, trust: false}}"
    outcome = run(f"method={method}", *overrides(name, role))
    assert_finite(outcome)
    loss = outcome.table("training")["loss_feature"]
    assert len(loss) == 2 and loss.notna().all() and (loss > 0).any()
