"""The simulated clock: what a site's work and messages take there, from the steps that were taken and the bytes as serialised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from raykd.federation.client import POOLED
from raykd.federation.lines import Direction, jitter_seconds, link_seconds
from raykd.federation.protocols import LocalReply, Row
from raykd.federation.transport import Sizes, share_of, transfer_rows
from raykd.scenario.sites import Client
from raykd.scenario.timing import Clock

STRAGGLER = "straggler"
"""Kind of the event of a client that answered too late."""
WAYS: dict[str, Direction] = {"hand-out": "down", "download": "down", "extra": "down", "upload": "up"}
"""The messages of a round, and which way each goes."""


def message_rows(members: Sequence[Client], seed: int, message: str, sizes: Sizes, round_index: int, client_id: int) -> list[Row]:
    """Rows of `transfers` of one message of a client, a key of `WAYS`; none where it holds nothing."""
    link = members[client_id].group.link
    wait_s = jitter_seconds(link, seed, message, round_index, client_id)
    way = WAYS[message]
    return transfer_rows(sizes, round_index=round_index, client_id=client_id, direction=way, link=link, jitter_s=wait_s)


def seconds_by_client(rows: Iterable[Row]) -> dict[int, float]:
    """What the messages of each client take one after the other."""
    seconds: dict[int, float] = {}
    for row in rows:
        seconds[row["client_id"]] = seconds.get(row["client_id"], 0.0) + row["simulated_s"]
    return seconds


def work_seconds(members: Sequence[Client], clock: Clock, client_id: int, training: Row) -> float:
    """What a local update takes on its site's machine: the steps that were taken where the clock knows what one takes, else what
    was measured here, messages read and written included, over the machine's speed.
    """
    speed = 1.0 if client_id == POOLED else members[client_id].group.compute_factor
    if clock.step_s is None:
        return float(training["train_s"] + training["coding_s"]) / speed
    return float(clock.step_s * training["num_steps_taken"]) / speed


@dataclass(frozen=True)
class Deadline:
    """A round that waits for nobody beyond a time.

    Attributes:
        members, seed, clock: of the scenario.
        limit_s: simulated seconds from the broadcast on; None: it waits for all.
        download_s: by client, what it takes to receive all that it is sent in the round.
    """

    members: Sequence[Client]
    seed: int
    clock: Clock
    limit_s: float | None
    download_s: dict[int, float]

    def judge(self, reply: LocalReply, upload: Sizes) -> tuple[LocalReply, Sizes]:
        """A reply as it is if it comes in time; else one with an event that says so, and of its upload what had crossed."""
        if self.limit_s is None or reply.events:
            return reply, upload
        round_index, client_id = int(reply.training["round"]), reply.client_id
        rows = message_rows(self.members, self.seed, "upload", upload, round_index, client_id)
        down_s, up_s = self.download_s.get(client_id, 0.0), seconds_by_client(rows).get(client_id, 0.0)
        work_s = work_seconds(self.members, self.clock, client_id, reply.training)
        if down_s + work_s + up_s <= self.limit_s:
            return reply, upload
        parts = f"download {down_s:.6g}, work {work_s:.6g}, upload {up_s:.6g}"
        detail = f"needs {down_s + work_s + up_s:.6g} s ({parts}), federation.schedule.deadline_s is {self.limit_s:g}"
        event = {"round": round_index, "client_id": client_id, "kind": STRAGGLER, "detail": detail}
        crossed = self._share(upload, rows, self.limit_s - down_s - work_s)
        return replace(reply, events=(event,)), crossed

    def _share(self, upload: Sizes, rows: Sequence[Row], left_s: float) -> Sizes:
        """What of an upload crosses in the time that is left of the round."""
        if not rows:
            return {}
        link, all_s = self.members[rows[0]["client_id"]].group.link, sum(row["simulated_s"] for row in rows)
        on_the_wire_s = link_seconds(sum(row["num_bytes"] for row in rows), "up", link, with_latency=False)
        share = max(0.0, (left_s - (all_s - on_the_wire_s)) / on_the_wire_s)
        return {kind: size for kind, size in share_of(upload, share).items() if size.num_bytes}
