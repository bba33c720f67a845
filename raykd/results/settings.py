"""What sets runs apart: the settings in which their scenarios differ, as words for labels and as columns for tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from raykd.results.reader import Run

NOT_A_DIFFERENCE = ("seed", "name", "description", "resources")


def label_runs(runs: Sequence[Run]) -> dict[str, str]:
    """run_id to the method as its tables call it, followed by the settings in which runs differ.

    Seeds, names, descriptions and resources are not differences; a method's own settings are, between runs that go by its name.
    """
    table = conditions_of(runs)
    return {
        str(run_id): ", ".join(part for part in (method, condition) if part)
        for run_id, method, condition in table[["method", "condition"]].itertuples()
    }


def conditions_of(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run, by run_id: `method` (with its own settings where runs of one name differ), `seed`, `condition` (the other
    settings in which runs differ, in words; "" where none do), and a column for each of these settings, by its key's last word."""
    flat = {run.run_id: dict(_flatten(run.scenario)) for run in runs}
    names = {run.run_id: _method_of(run) for run in runs}
    shared = _varying([{k: v for k, v in settings.items() if not k.startswith("method.")} for settings in flat.values()])
    rows = {}
    for run in runs:
        settings = flat[run.run_id]
        peers = [flat[other] for other in flat if names[other] == names[run.run_id]]
        own = _varying([{k: v for k, v in peer.items() if k.startswith("method.")} for peer in peers])
        varied = dict.fromkeys((_last(key), settings[key]) for key in shared if key in settings)
        rows[run.run_id] = {
            "method": ", ".join([names[run.run_id], *dict.fromkeys(f"{_last(k)} {settings[k]}" for k in own if k in settings)]),
            "seed": int(run.scenario.get("seed", 0)),
            "condition": ", ".join(f"{name} {value}" for name, value in varied),
            **dict(reversed(varied)),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis("run_id")


def _last(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def _method_of(run: Run) -> str:
    clients = run.clients
    return str(clients["method"].iloc[0]) if len(clients) else str((run.scenario.get("method") or {}).get("name", "unnamed method"))


def _varying(settings: Sequence[dict[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({one.get(key) for one in settings}) > 1]


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, child in value.items():
            if path or key not in NOT_A_DIFFERENCE:
                yield from _flatten(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(child, dict) for child in value):
        for index, child in enumerate(value):
            yield from _flatten(child, f"{path}[{index}]")
    else:
        yield path, str(value)
