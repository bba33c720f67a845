"""Going on with a run that ended early, and only if nothing that it depends on has changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raykd.launch import Plan
from raykd.results.writer import new_manifest
from raykd.scenario.errors import RaykdError
from raykd.scenario.load import load_scenario

VERSIONS = ("raykd", "torch", "monai", "torchio", "python")


def resume_plan(run_dir: Path) -> Plan:
    """The plan that goes on with the run in a directory.

    Raises:
        RaykdError: there is no run, it is done already, or its scenario, data or software have changed; with every difference.
    """
    try:
        manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
        status, root = manifest["status"], (run_dir / manifest["scenario_root"]).resolve()
    except (OSError, ValueError, KeyError, TypeError):
        raise RaykdError(f"{run_dir}: must be the directory of a run, got one without a manifest.json that can be read") from None
    if status == "done":
        raise RaykdError(f"{run_dir}: the run is done, there is nothing to go on with")
    scenario = load_scenario(run_dir / "scenario.yaml").scenario
    plan = Plan(run_dir, manifest["method"], scenario, root, is_resumed=True)
    if changes := list(_changes(plan, manifest)):
        raise RaykdError(f"{run_dir}: a run goes on only as it began, but " + "; ".join(changes))
    return plan


def _changes(plan: Plan, manifest: Mapping[str, Any]) -> Iterator[str]:
    from raykd.data.federation import data_fingerprints

    if plan.scenario.content_hash() != manifest["scenario_hash"]:
        yield "scenario.yaml is not the one that it began with"
    now = new_manifest("", "")
    for name in VERSIONS:
        if now[name] != manifest[name]:
            yield f"{name} was {manifest[name]} and is {now[name]}"
    data = data_fingerprints(plan.scenario, plan.root)
    for owner in sorted(data.keys() | manifest["data"].keys()):
        if data.get(owner) != manifest["data"].get(owner):
            yield f"the data of {owner} are others"
