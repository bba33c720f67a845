"""The accounts of a round: what crossed which link, and how long it took here and would have taken there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raykd.federation.client import POOLED
from raykd.federation.cohort import Cohort
from raykd.federation.protocols import LocalReply, Row
from raykd.federation.transport import Direction, Sizes, transfer_rows
from raykd.scenario.sites import Client


def round_transfers(
    members: Sequence[Client],
    round_index: int,
    cohort: Cohort,
    download: Sizes,
    extras: Mapping[int, Sizes],
    uploads: Mapping[int, Sizes],
) -> list[Row]:
    """Rows of `transfers`: a client that dropped out was sent the download and answered nothing.

    Args:
        download: what every selected client was sent.
        extras: what a client alone was sent beside it, by client.
        uploads: of the clients that answered.
    """
    rows = []
    for client_id in cohort.selected:
        link = members[client_id].group.link
        crossed: tuple[tuple[Direction, Sizes], ...] = (
            ("down", download),
            ("down", extras.get(client_id, {})),
            ("up", uploads.get(client_id, {})),
        )
        for direction, sizes in crossed:
            rows += transfer_rows(sizes, round_index=round_index, client_id=client_id, direction=direction, link=link)
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
) -> Row:
    """The row of `rounds`.

    A site's simulated time is its download, its measured training divided by its machine's speed, and its upload; the round
    ends with the slowest site. The engine's time is what is left of the wall time when training, spread over the slots, and
    the server's work are taken off.
    """
    train = {reply.client_id: float(reply.training["train_s"]) for reply in replies}
    on_the_link = dict.fromkeys(train, 0.0)
    for row in transfers:
        if row["client_id"] in train:
            on_the_link[row["client_id"]] += row["simulated_s"]
    speed = {client_id: 1.0 if client_id == POOLED else members[client_id].group.compute_factor for client_id in train}
    sites = [train_s / speed[client_id] + on_the_link[client_id] for client_id, train_s in train.items()]
    busy = sum(train.values()) / max(1, min(num_slots, len(train)))
    return {
        "round": round_index,
        "num_selected": len(cohort.selected),
        "num_completed": sum(1 for reply in replies if not reply.events),
        "num_dropped": len(cohort.dropped),
        "wall_s": wall_s,
        "simulated_s": max(sites, default=0.0) + server_s,
        "engine_s": max(0.0, wall_s - server_s - busy),
        "server_s": server_s,
    }
