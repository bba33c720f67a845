"""Running a run again and comparing what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raykd.launch import Plan
from raykd.results.checksums import refuse_damage
from raykd.results.comparison import WEIGHTS_TOLERANCE, Difference, table_differences
from raykd.results.reader import Run, open_run
from raykd.resume import changed_software
from raykd.scenario.errors import RaykdError
from raykd.scenario.load import load_scenario


def reproduction_plan(run_dir: Path, out: Path) -> Plan:
    """The plan that runs a finished run's scenario again.

    Raises:
        RaykdError: there is no run, it is not done, or it is damaged.
    """
    run = open_run(run_dir)
    if run.manifest["status"] != "done":
        raise RaykdError(
            f"{run_dir}: only a run that is done can be compared, got one that is {run.manifest['status']}; "
            f"finish it first: raykd resume {run_dir}"
        )
    refuse_damage(run_dir)
    root = (run_dir / run.manifest.get("scenario_root", ".")).resolve()
    return Plan(out, run.manifest["method"], load_scenario(run_dir / "scenario.yaml").scenario, root)


def differences(one: Run, other: Run) -> list[Difference]:
    """All in which two finished runs differ, tables and models."""
    return [*table_differences(one, other), *_model_differences(one.path / "models", other.path / "models")]


def circumstances(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What was different about the second run: software, machine, data."""
    told = list(changed_software(there, now))
    for key in ("cpu", "num_cpus", "platform"):
        was, is_ = (manifest.get("machine", {}).get(key) for manifest in (there, now))
        if was != is_:
            told.append(f"the machine's {key} was {was} and is {is_}")
    return told + (["the data are others"] if there.get("data") != now.get("data") else [])


def _model_differences(one: Path, other: Path) -> Iterator[Difference]:
    names = [{file.name for file in folder.glob("*.safetensors")} for folder in (one, other)]
    for name in sorted(names[0] | names[1]):
        if name not in names[0] & names[1]:
            yield Difference(f"models/{name}", 1, 1, float("nan"), "there in both", False)
        elif (one / name).read_bytes() != (other / name).read_bytes():
            yield _weights_difference(name, one / name, other / name)


def _weights_difference(name: str, one: Path, other: Path) -> Difference:
    from safetensors.torch import load_file

    left, right = load_file(one), load_file(other)
    where, words = f"models/{name}", f"within {WEIGHTS_TOLERANCE:g} of a tensor's largest value"
    if {key: value.shape for key, value in left.items()} != {key: value.shape for key, value in right.items()}:
        return Difference(where, 1, 1, float("nan"), "of the same tensors", False)
    gaps = {key: (left[key].double() - right[key].double()).abs() for key in left}
    relative = max(float(gap.max() / left[key].double().abs().max().clamp(min=1e-12)) for key, gap in gaps.items() if gap.numel())
    num_differing = sum(int((gap != 0).sum()) for gap in gaps.values())
    num_values = sum(gap.numel() for gap in gaps.values())
    largest = max(float(gap.max()) for gap in gaps.values() if gap.numel())
    return Difference(where, num_differing, num_values, largest, words, relative <= WEIGHTS_TOLERANCE)
