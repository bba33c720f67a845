"""Work times prices: the wall time of stages, the memory that clients take, and what crosses their links."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raykd.federation.client import SERVER
from raykd.federation.protocols import Row
from raykd.planning.pricing import Prices
from raykd.planning.rehearsal import Rehearsal, Work
from raykd.scenario.sites import Client as Member


@dataclass(frozen=True)
class Priced:
    """A client with what its work and its cases cost.

    Attributes:
        member: the client.
        num_training, num_held_out: its cases.
        voxels: of one of them.
        prices: of its kind.
    """

    member: Member
    num_training: int
    num_held_out: int
    voxels: int
    prices: Prices

    @property
    def bytes_held(self) -> float:
        """Memory of its prepared cases in the worker that runs it."""
        return self.voxels * (self.num_training * self.prices.bytes_training + self.num_held_out * self.prices.bytes_held)


@dataclass
class Accounts:
    """The clients of a federation, and the machines' slots that share them.

    Attributes:
        clients: by id.
        num_slots: clients at once.
        server: prices of the server's own work on the repository's cases, where the method serves.
    """

    clients: list[Priced]
    num_slots: int
    server: Prices | None = None

    def seconds_of(self, work: Work) -> float:
        """Seconds of some work on this machine."""
        if work.client_id == SERVER:
            return 0.0 if self.server is None else work.amount * self.server.of(work.task, self.server.voxels)
        client = self.clients[max(work.client_id, 0)]
        return work.amount * client.prices.of(work.task, client.voxels)

    def wall_s(self, work: Iterable[Work], *, is_evaluation: bool) -> float:
        """Seconds of all rounds' training or evaluations: in each, the slot that ends last."""
        rounds: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for item in work:
            if item.is_evaluation == is_evaluation:
                rounds[item.round_index].append((item.client_id, self.seconds_of(item)))
        return sum(max(slot_loads(loads, self.num_slots)) for loads in rounds.values())

    def bytes_held(self) -> float:
        """Memory of prepared cases in the slot that holds most."""
        return max(slot_loads([(c.member.client_id, c.bytes_held) for c in self.clients], self.num_slots))

    def simulated_s(self, rehearsal: Rehearsal) -> float:
        """Seconds that the rounds would take at the sites: in each, the slowest site's link and machine, then the server."""
        busy: dict[tuple[int, int], float] = defaultdict(float)
        for item in rehearsal.work:
            if not item.is_evaluation and item.round_index >= 0:
                factor = self.clients[item.client_id].member.group.compute_factor if item.client_id >= 0 else 1.0
                busy[item.round_index, item.client_id] += self.seconds_of(item) / factor
        for row in rehearsal.transfers:
            if row["round"] >= 0:
                busy[row["round"], row["client_id"]] += row["simulated_s"]
        slowest: dict[int, float] = defaultdict(float)
        for (round_index, _), seconds in busy.items():
            slowest[round_index] = max(slowest[round_index], seconds)
        return sum(slowest.values()) + sum(row["server_s"] for row in rehearsal.rounds)


def slot_loads(amounts: Iterable[tuple[int, float]], num_slots: int) -> list[float]:
    """The sum in each slot of the amounts of its clients, which are dealt to the slots in turn."""
    loads = [0.0] * num_slots
    for client_id, amount in amounts:
        loads[client_id % num_slots] += amount
    return loads


def traffic_rows(transfers: Sequence[Row]) -> list[Row]:
    """A row by kind, direction and codec, before the first round and in the rounds, with the bytes of a message and of all."""
    messages: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
    for row in transfers:
        stage = "before the first round" if row["round"] < 0 else "in the rounds"
        messages[stage, row["direction"], row["kind"], row["codec"]].append(row["num_bytes"])
    return [
        {
            "stage": stage,
            "direction": direction,
            "kind": kind,
            "codec": codec,
            "bytes_min": min(sizes),
            "bytes_max": max(sizes),
            "num_messages": len(sizes),
            "bytes_total": sum(sizes),
        }
        for (stage, direction, kind, codec), sizes in sorted(messages.items())
    ]


def link_columns(transfers: Sequence[Row], client_id: int) -> Row:
    """Bytes of one client in the whole run and in a round (the mean of the rounds in which something crossed its link), and the
    seconds that they take there."""
    own = [row for row in transfers if row["client_id"] == client_id]
    in_rounds = [row for row in own if row["round"] >= 0]
    num_rounds = max(1, len({row["round"] for row in in_rounds}))

    def total(rows: Iterable[Row], column: str, direction: str | None = None) -> float:
        return sum(row[column] for row in rows if direction in (None, row["direction"]))

    return {
        "bytes_down": int(total(own, "num_bytes", "down")),
        "bytes_up": int(total(own, "num_bytes", "up")),
        "bytes_down_per_round": total(in_rounds, "num_bytes", "down") / num_rounds,
        "bytes_up_per_round": total(in_rounds, "num_bytes", "up") / num_rounds,
        "link_s_per_round": total(in_rounds, "simulated_s") / num_rounds,
        "link_s": total(own, "simulated_s"),
    }
