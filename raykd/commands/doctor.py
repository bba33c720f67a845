"""The command that says what is wrong with this machine or with a cluster."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from raykd.commands.checkup import GIB, Check, judged, machine_checks
from raykd.commands.options import FAILED, AsJson
from raykd.scenario.errors import ResourceError

SIGNS = {"fine": "ok", "warning": "!", "wrong": "WRONG"}
MAX_SKEW_S = 5.0
"""Clocks further apart make the times in logs and manifests of several nodes hard to compare."""


def doctor(
    address: Annotated[str | None, typer.Option("--address", metavar="ADDR", help="A Ray cluster to look at, too.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="DIR", help="With a cluster: must be seen by every node, as that of data.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Starts Ray here and runs something on it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Says what is wrong with this machine, and with a cluster, and what to do; ends with 3 if runs would fail."""
    address = address or os.environ.get("RAY_ADDRESS")
    found = list(machine_checks())
    if address or full:
        found += cluster_checks(address or "local", folder)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(check) for check in found], indent=2))
    else:
        width = max(len(check.name) for check in found)
        for check in found:
            typer.echo(
                f"{SIGNS[check.level]:<5}  {check.name:<{width}}  {check.said}" + (f"; {check.advice}" if check.advice else "")
            )
        counts = Counter(check.level for check in found)
        typer.echo(f"{len(found)} checks: {counts['fine']} fine, {counts['warning']} to look at, {counts['wrong']} wrong")
    if any(check.level == "wrong" for check in found):
        raise typer.Exit(FAILED)


def cluster_checks(address: str, folder: Path | None) -> list[Check]:
    """What is wrong with a cluster: whether it answers, and every node by itself and against this machine."""
    from raykd.runtime import ray_nodes
    from raykd.runtime.ray_session import ray_session

    try:
        with ray_session(address):
            nodes, here = ray_nodes.alive_nodes(), ray_nodes.facts(None)
            answers = ray_nodes.ask_nodes(ray_nodes.facts, None if folder is None else str(folder.absolute()))
            skews = ray_nodes.clock_skews()
            checks = [Check(f"Ray at {address}", "fine", f"answers, {len(nodes)} node{'s' * (len(nodes) != 1)} alive")]
            for node, answer, skew in zip(nodes, answers, skews, strict=True):
                checks += _node_checks(ray_nodes.node_name(node), node["Resources"], answer, here, skew, folder)
            return checks
    except ResourceError as error:
        return [Check(f"Ray at {address}", "wrong", str(error))]


def _node_checks(
    name: str, has: Mapping[str, float], answer: Any, here: Mapping[str, Any], skew: float | None, folder: Path | None
) -> Iterator[Check]:
    from raykd.runtime import ray_nodes

    said = f"{has.get('CPU', 0):g} CPU, {has.get('GPU', 0):g} GPU, {has.get('memory', 0) / GIB:.1f} GiB"
    if isinstance(answer, Exception):
        advice = "see its logs under /tmp/ray/session_latest/logs, and whether it has room to start a process"
        yield Check(f"node {name}", "wrong", f"{said}; it runs nothing: {ray_nodes.first_line(answer)}", advice)
        return
    yield Check(f"node {name}", "fine", said)
    for package, ours in here.items():
        theirs = answer[package]
        if package in ("sees_folder", "raykd") or theirs == ours:
            continue
        level: Any = "wrong" if theirs is None else "warning"
        yield Check(f"{package} on {name}", level, f"{theirs or 'not installed'}, here {ours}", "install the same on every node")
    if skew is not None:
        advice = "synchronise the clocks (chrony, systemd-timesyncd)"
        yield judged(f"clock of {name}", abs(skew) < MAX_SKEW_S, f"{skew:+.2f} s from this machine's", advice)
    if folder is not None:
        said = f"{folder} is {'seen' if answer['sees_folder'] else 'not seen'}"
        yield judged(f"folder on {name}", answer["sees_folder"], said, "mount it there under the same path", "wrong")
