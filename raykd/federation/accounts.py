"""The accounts of a round: what crossed which link, and how long it took here and would have taken there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raykd.federation.clock import STRAGGLER, message_rows, seconds_by_client, work_seconds
from raykd.federation.cohort import Cohort
from raykd.federation.protocols import LocalReply, Row
from raykd.federation.transport import Sizes
from raykd.scenario.errors import RunFailed
from raykd.scenario.sites import Client
from raykd.scenario.timing import Clock


def round_transfers(
    members: Sequence[Client],
    round_index: int,
    cohort: Cohort,
    download: Sizes,
    extras: Mapping[int, Sizes],
    uploads: Mapping[int, Sizes],
    seed: int = 0,
) -> list[Row]:
    """Rows of `transfers`: a client that dropped out was sent the download and answered nothing.

    Args:
        download: what every selected client was sent.
        extras: what a client alone was sent beside it, by client.
        uploads: of the clients that answered, or began to.
        seed: of the scenario, for what a message waits on its line.
    """
    rows = []
    for client_id in cohort.selected:
        sent = {"download": download, "extra": extras.get(client_id, {}), "upload": uploads.get(client_id, {})}
        for message, sizes in sent.items():
            rows += message_rows(members, seed, message, sizes, round_index, client_id)
    return rows


def round_row(
    members: Sequence[Client],
    round_index: int,
    cohort: Cohort,
    replies: Sequence[LocalReply],
    transfers: Sequence[Row],
    num_slots: int,
    *,
    wall_s: float,
    server_s: float,
    clock: Clock = Clock(),  # noqa: B008 (frozen)
    limit_s: float | None = None,
) -> Row:
    """The row of `rounds`.

    A site's simulated time is its download, its training divided by its machine's speed, and its upload; the round ends with the
    slowest site, or at `limit_s` where one answers later or not at all. The engine's time is what is left of the wall time when
    training, spread over the slots, and the server's work are taken off.
    """
    train_s = [float(reply.training["train_s"]) for reply in replies]
    busy = sum(train_s) / max(1, min(num_slots, len(train_s)))
    late = sum(1 for reply in replies for event in reply.events if event["kind"] == STRAGGLER)
    on_the_line = seconds_by_client(transfers)
    sites = [work_seconds(members, clock, r.client_id, r.training) + on_the_line.get(r.client_id, 0.0) for r in replies]
    simulated_s = max(sites, default=0.0)
    if limit_s is not None:
        simulated_s = limit_s if late or cohort.dropped else min(simulated_s, limit_s)
    return {
        "round": round_index,
        "num_selected": len(cohort.selected),
        "num_completed": sum(1 for reply in replies if not reply.events),
        "num_dropped": len(cohort.dropped) + late,
        "wall_s": wall_s,
        "simulated_s": simulated_s + (server_s if clock.step_s is None else clock.server_s),
        "engine_s": max(0.0, wall_s - server_s - busy),
        "server_s": server_s,
    }


def training_rows(members: Sequence[Client], clock: Clock, replies: Sequence[LocalReply]) -> list[Row]:
    """Rows of `training`, with what each local update takes on its site's machine."""
    return [r.training | {"simulated_s": work_seconds(members, clock, r.client_id, r.training)} for r in replies]


def nothing_counts(round_index: int, events: Sequence[Row]) -> RunFailed:
    """What ends a run in which no client sends anything that could be averaged."""
    reasons = "; ".join(sorted({str(event["detail"]) for event in events}))
    return RunFailed(
        f"round {round_index}: no client's update counts ({reasons}); lower training.learning_rate, set "
        "training.clip_norm, or give sites labels"
    )
