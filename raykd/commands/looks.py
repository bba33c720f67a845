"""What a run's directory says of it at one moment: the numbers behind `raykd watch`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from raykd.commands.run_state import state_of
from raykd.results.reader import Run, deployed_models, find_run_dirs, open_run
from raykd.results.sites import Sites
from raykd.results.statistics import site_scores_by_round
from raykd.scenario.errors import RaykdError

PACE_ROUNDS = 10
"""Of so many last rounds the median length is the pace."""
NUM_EVENTS, NUM_ROUNDS = 5, 8


@dataclass(frozen=True)
class Look:
    """What a run's directory says at one moment.

    Attributes:
        state: as `raykd status` tells it.
        method: of the run.
        last_word: the last line of its log.
        left_s: seconds left at the pace of the last rounds, or None.
        rounds: of the last rounds: round (from 1), num_completed, num_selected, loss, dsc, seconds, num_bytes.
        clients: of every client: client, round (its last), loss, dsc, num_bytes.
        events: of the last events: round, client, kind, detail.
        num_events: of each kind.
    """

    state: dict[str, Any]
    method: str
    last_word: str
    left_s: float | None
    rounds: list[dict[str, Any]]
    clients: list[dict[str, Any]]
    events: list[dict[str, Any]]
    num_events: dict[str, int]

    @property
    def is_over(self) -> bool:
        """Whether nobody writes the run any more."""
        return not self.state["is_written"]


def look(run_dir: Path) -> Look:
    """What there is to see now.

    Raises:
        RaykdError: the directory holds no run, or a file of it is damaged.
    """
    if run_dir.is_dir() and not (run_dir / "scenario.yaml").exists() and any(run_dir.rglob("manifest.json")):
        first = find_run_dirs([run_dir])[0]
        raise RaykdError(f"{run_dir}: holds several runs and no study; watch one of them, say {first}")
    state, run = state_of(run_dir), open_run(run_dir)
    log = run_dir / "run.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    events = run.events
    clients = _clients(run)
    names = {row["client_id"]: row["client"] for row in clients}
    return Look(
        state=state,
        method=str(run.manifest.get("method", run.scenario.get("method", {}).get("name", ""))),
        last_word=lines[-1].partition("]")[2].strip() if lines else "",
        left_s=_left_s(run_dir, state),
        rounds=_rounds(run),
        clients=clients,
        events=[
            {"round": int(e["round"]), "client": names.get(int(e["client_id"]), ""), "kind": str(e["kind"]), "detail": e["detail"]}
            for e in events.tail(NUM_EVENTS).to_dict("records")
        ],
        num_events={str(kind): int(count) for kind, count in events["kind"].value_counts().items() if count},
    )


def _left_s(run_dir: Path, state: dict[str, Any]) -> float | None:
    """The rounds left at the median distance between the last rounds' files, which is untouched by a pause before a resume."""
    if not state["is_written"] or not 2 <= state["rounds_done"] < (state["rounds"] or 0):
        return None
    written = sorted(path.stat().st_mtime for path in (run_dir / "tables" / "rounds").glob("[!.]*.parquet"))[-PACE_ROUNDS - 1 :]
    gaps = sorted(after - before for before, after in itertools.pairwise(written))
    return gaps[len(gaps) // 2] * (state["rounds"] - state["rounds_done"]) if gaps else None


def _test_scores(run: Run) -> pd.Series:
    """The DSC of every site on its test cases, by round and client."""
    return site_scores_by_round(run.cases, deployed_models([run]).get(run.run_id))


def _rounds(run: Run) -> list[dict[str, Any]]:
    losses = run.training.groupby("round")["loss_total"].mean()
    scores = _test_scores(run).groupby(level="round").mean()
    num_bytes = run.transfers.groupby("round")["num_bytes"].sum()
    rows = []
    for row in run.rounds.sort_values("round").tail(NUM_ROUNDS).to_dict("records"):
        number = int(row["round"])
        told = {"round": number + 1, "num_completed": _plain(row["num_completed"]), "num_selected": _plain(row["num_selected"])}
        of_tables = {
            "loss": losses.get(number),
            "dsc": scores.get(number),
            "seconds": row["wall_s"],
            "num_bytes": num_bytes.get(number),
        }
        rows.append(told | {name: _plain(value) for name, value in of_tables.items()})
    return rows


def _clients(run: Run) -> list[dict[str, Any]]:
    training, scores = run.training.sort_values("round"), _test_scores(run).reset_index()
    last = training.groupby("client_id").last()
    num_bytes = run.transfers.groupby("client_id")["num_bytes"].sum()
    judged = scores.sort_values("round").groupby("client_id")["dsc"].last()
    rows, names = [], Sites.of((run,), run.clients).names
    for number in run.clients["client_id"].astype(int).tolist():
        trained: Any = last.loc[number] if number in last.index else {}
        done = _plain(trained["round"]) if len(trained) else None
        told = {"client_id": number, "client": names[number], "round": None if done is None else done + 1}
        of_tables = {
            "loss": trained["loss_total"] if len(trained) else None,
            "dsc": judged.get(number),
            "num_bytes": num_bytes.get(number),
        }
        rows.append(told | {name: _plain(value) for name, value in of_tables.items()})
    return rows


def _plain(value: Any) -> Any:
    """A number as JSON has it; None where there is none."""
    if value is None or pd.isna(value):
        return None
    return int(value) if float(value).is_integer() and not isinstance(value, float) else float(value)
