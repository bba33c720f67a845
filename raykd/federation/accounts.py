"""The accounts of a round: what crossed which link, and how long it took here and would have taken there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raykd.federation.client import POOLED
from raykd.federation.cohort import Cohort
from raykd.federation.protocols import LocalReply, Row
from raykd.federation.transport import Envelope, seal, transfer_rows, unseal
from raykd.numerics.params import Payload
from raykd.scenario.sites import Client


def round_transfers(
    members: Sequence[Client],
    round_index: int,
    cohort: Cohort,
    download: Payload,
    sealed: Envelope,
    extras: Mapping[int, Payload],
    replies: Sequence[LocalReply],
) -> list[Row]:
    """Rows of `transfers`: a client that dropped out was sent the download and answered nothing.

    Args:
        download, sealed: what every selected client was sent, and as it was sent.
        extras: what a client alone was sent beside it, by client.
        replies: of the clients that answered.
    """
    rows = []
    uploads = {reply.client_id: reply.upload for reply in replies}
    for client_id in cohort.selected:
        link = members[client_id].group.link
        rows += transfer_rows(download, sealed, round_index=round_index, client_id=client_id, direction="down", link=link)
        if extra := extras.get(client_id):
            rows += transfer_rows(extra, seal(extra), round_index=round_index, client_id=client_id, direction="down", link=link)
        if client_id in uploads:
            up = uploads[client_id]
            rows += transfer_rows(unseal(up), up, round_index=round_index, client_id=client_id, direction="up", link=link)
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
    sites = []
    for client_id, train_s in train.items():
        factor = 1.0 if client_id == POOLED else members[client_id].group.compute_factor
        sites.append(train_s / factor + sum(row["simulated_s"] for row in transfers if row["client_id"] == client_id))
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
