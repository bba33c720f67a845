"""Going on with a run that ended early, and only if nothing that it depends on has changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raykd.execution import refuse_written_now
from raykd.launch import Plan
from raykd.results.checksums import MANIFEST, refuse_damage
from raykd.results.writer import PACKAGES, is_vacant, new_manifest
from raykd.scenario.document import differences
from raykd.scenario.errors import RaykdError
from raykd.scenario.load import load_scenario
from raykd.staging import check_out
from raykd.storage import url_of

OWN_VERSIONS = ("raykd", "code")
VERSIONS = (*OWN_VERSIONS, *(name for name in PACKAGES if name != "ray"), "python")
"""Fields of a manifest that say with what a run computes; `code` is a hash of raykd's own files."""
MAX_TOLD = 8


def resume_plan(run_dir: Path) -> Plan:
    """The plan that goes on with the run in a directory, or at a URL.

    Raises:
        RaykdError: there is no run, it is done already, damaged, another process writes it, or its scenario, data or software
            have changed; with every difference.
    """
    if url := url_of(run_dir):
        return _resume_plan_of(url)
    if run_dir.is_dir() and any(run_dir.iterdir()) and is_vacant(run_dir):
        raise RaykdError(
            f"{run_dir}: the run ended before it had begun, so there is nothing to go on with and nothing is lost; "
            f"run it again into the same directory: raykd run SCENARIO --out {run_dir}"
        )
    try:
        manifest = json.loads((run_dir / MANIFEST).read_text(encoding="utf-8"))
        status, root = manifest["status"], (run_dir / manifest["scenario_root"]).resolve()
    except (OSError, ValueError, KeyError, TypeError):
        raise RaykdError(f"{run_dir}: must be the directory of a run, got one without a manifest.json that can be read") from None
    if status == "done":
        raise RaykdError(f"{run_dir}: the run is done, there is nothing to go on with")
    refuse_written_now(run_dir)
    refuse_other_raykd(run_dir, manifest)
    scenario = load_scenario(run_dir / "scenario.yaml").scenario
    plan = Plan(run_dir, manifest["method"], scenario, root, is_resumed=True)
    if changes := list(_changes(plan, manifest)):
        raise RaykdError(f"{run_dir}: a run goes on only as it began, but " + "; ".join(changes))
    refuse_damage(run_dir)
    return plan


def _resume_plan_of(url: str) -> Plan:
    folder = check_out(url)
    try:
        return replace(resume_plan(folder), url=url)
    except RaykdError as error:
        raise RaykdError(str(error).replace(str(folder), url)) from None


def refuse_other_raykd(run_dir: Path, manifest: Mapping[str, Any]) -> None:
    """Raises `RaykdError` for a run that another raykd began: its keys, defaults and fingerprints may be others, so that nothing
    else can be compared."""
    now = new_manifest("", "")
    if any(manifest.get(name) != now.get(name) for name in OWN_VERSIONS):
        raise RaykdError(
            f"{run_dir}: a run goes on only with the raykd that began it, but {'; '.join(changed_software(manifest, now))}; "
            "go on with that raykd, or begin anew in another directory with --out"
        )


def _changes(plan: Plan, manifest: Mapping[str, Any]) -> Iterator[str]:
    from raykd.data.federation import data_fingerprints

    if plan.scenario.content_hash() != manifest["scenario_hash"]:
        told = list(differences(manifest.get("scenario", {}), plan.scenario.model_dump(mode="json")))
        more = f", and {len(told) - MAX_TOLD} more" if len(told) > MAX_TOLD else ""
        yield f"scenario.yaml is not the one that it began with ({', '.join(told[:MAX_TOLD])}{more})"
    yield from changed_software(manifest, new_manifest("", ""))
    data = data_fingerprints(plan.scenario, plan.root)
    for owner in sorted(data.keys() | manifest["data"].keys()):
        if data.get(owner) != manifest["data"].get(owner):
            yield f"the data of {owner} are others"


def changed_software(there: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """With what two manifests say that was computed differs, each a clause."""
    for name in VERSIONS:
        if now.get(name) != there.get(name):
            what = "the code of raykd (a hash of its files)" if name == "code" else name
            yield f"{what} was {there.get(name)} and is {now.get(name)}"
