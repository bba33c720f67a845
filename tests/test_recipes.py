"""The recipes for clusters have the form that their readers ask for."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import ray
import yaml
from jsonschema import Draft7Validator

RECIPES = Path(__file__).parents[1] / "docs" / "clusters"
TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
GROUP = {"required": ["rayStartParams", "template"], "properties": {"rayStartParams": {"type": "object"}}}
RAY_JOB = {
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "spec": {
            "additionalProperties": False,
            "required": ["entrypoint", "rayClusterSpec"],
            "properties": {
                "entrypoint": TEXT,
                "backoffLimit": COUNT,
                "activeDeadlineSeconds": COUNT,
                "ttlSecondsAfterFinished": COUNT,
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "rayClusterSpec": {
                    "additionalProperties": False,
                    "properties": {
                        "rayVersion": TEXT,
                        "authOptions": {"properties": {"mode": {"enum": ["token", "disabled"]}}},
                        "headGroupSpec": GROUP,
                        "workerGroupSpecs": {"type": "array", "items": {**GROUP, "required": ["groupName", "template"]}},
                    },
                },
            },
        },
    },
}
"""The fields of KubeRay's RayJob that the recipe uses, as its documentation names them."""


def _read(name: str) -> Any:
    return yaml.safe_load((RECIPES / name).read_text(encoding="utf-8"))


def _options(command: str) -> set[str]:
    return {word for word in shlex.split(command) if word.startswith("--")}


def test_the_recipe_for_ray_up_is_what_rays_own_schema_asks_for() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    assert [error.message for error in Draft7Validator(schema).iter_errors(_read("ray-up.yaml"))] == []
    assert list(Draft7Validator(schema).iter_errors({**_read("ray-up.yaml"), "no_such_key": 1}))


def test_the_ray_job_can_be_tried_again_on_the_volume_it_mounts() -> None:
    job = _read("rayjob.yaml")
    assert [error.message for error in Draft7Validator(RAY_JOB).iter_errors(job)] == []
    spec = job["spec"]
    assert spec["backoffLimit"] > 0 and {"--out", "--continue"} <= _options(spec["entrypoint"])
    for group in (spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        names = {volume["name"] for volume in pod["volumes"]}
        assert all(mount["name"] in names for box in pod["containers"] for mount in box["volumeMounts"])
    assert spec["rayClusterSpec"]["rayVersion"] in (RECIPES.parents[1] / "constraints.txt").read_text(encoding="utf-8")


def test_the_slurm_script_can_be_read_and_goes_on_when_requeued() -> None:
    script = RECIPES / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    assert "#SBATCH --requeue" in text and "--continue" in text
