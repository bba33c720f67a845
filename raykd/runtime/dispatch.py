"""Which slot does which client's work next. Pure: it knows neither Ray nor a clock.

A client has a home, the slot that holds its prepared cases. Homes are balanced by what clients cost, longest first; a slot that
has run out takes over from the end of the fullest queue. Work is handed out in chunks, since a call a client costs more than the
work of a small one. No number depends on any of this: a client's update is the same wherever it is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from math import ceil

CHUNK_S = 1.0
"""A chunk holds about as many clients as this takes, so that slots report and can be balanced every so often."""
MAX_CHUNK = 32
"""Clients in a chunk at most, so that what they send fits into memory."""
CHUNKS_A_SLOT = 2
"""But no more than its slot's queue in so many parts, so that there is something left to take over."""
TOLERANCE = 1.05
"""A client keeps its home where that costs no more than this share of an even load."""


class Costs:
    """Seconds that each client's work takes, by kind of work."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[int, float]] = {}
        self._timed_once: set[tuple[str, int]] = set()

    def note(self, work: str, client_id: int, seconds: float) -> None:
        """Remembers what a client took, half of it from the time before. The first time, when its worker may have been warming up,
        counts only until there is another.
        """
        known = self._seconds.setdefault(work, {})
        if (work, client_id) in self._timed_once or client_id not in known:
            self._timed_once ^= {(work, client_id)}
            known[client_id] = seconds
        else:
            known[client_id] = (known[client_id] + seconds) / 2

    def of(self, work: str, client_id: int) -> float | None:
        """What a client takes; None: it has not been timed."""
        return self._seconds.get(work, {}).get(client_id)

    def expected(self, work: str, client_ids: Sequence[int]) -> dict[int, float]:
        """What each client is expected to take: as it did, else as the others do on average, else a tenth of a second."""
        known = [seconds for c in client_ids if (seconds := self.of(work, c)) is not None]
        mean = sum(known) / len(known) if known else 0.1
        return {c: mean if (seconds := self.of(work, c)) is None else seconds for c in client_ids}


class Queues:
    """The work of one round, in a queue a slot.

    Args:
        cost: expected seconds by client, > 0 or 0.
        homes: slot by client; clients without one are given one, and those whose home has too much of the load another. Changed
            in place.
        slots: numbers of the slots that there are.
        moving: seconds that a client costs besides anywhere but at home, where its cases are prepared; absent: nothing.
    """

    def __init__(
        self, cost: dict[int, float], homes: dict[int, int], slots: Iterable[int], moving: Mapping[int, float] | None = None
    ):
        self._cost, self._moving = cost, moving or {}
        self._queues: dict[int, deque[int]] = {slot: deque() for slot in slots}
        self._load = dict.fromkeys(self._queues, 0.0)
        self._alone: deque[int] = deque()
        even = max(sum(cost.values()) / len(self._queues), max(cost.values(), default=0.0))
        for client_id in sorted(cost, key=lambda c: (-cost[c], c)):
            home = homes.get(client_id)
            if home not in self._load or self._load[home] + cost[client_id] > TOLERANCE * even + self._moving.get(client_id, 0.0):
                home = homes[client_id] = min(self._load, key=lambda slot: (self._load[slot], slot))
            self._queues[home].append(client_id)
            self._load[home] += cost[client_id]

    def take(self, slot: int) -> list[int]:
        """The clients that a slot does next; empty: nothing is left to start."""
        if self._alone:
            return [self._alone.popleft()]
        queue = self._queues[slot]
        if queue:
            return self._chunk(queue, slot, from_end=False)
        fullest = max(self._queues, key=lambda s: (self._load[s] if self._queues[s] else -1.0, -s))
        last = self._queues[fullest][-1] if self._queues[fullest] else None
        if last is None or self._load[fullest] < self._moving.get(
            last, 0.0
        ):  # it will be done at home before it could be elsewhere
            return []
        return self._chunk(self._queues[fullest], fullest, from_end=True)

    def put_back(self, client_ids: Iterable[int]) -> None:
        """Work that was lost, to be done again one client at a time: so it shows whose work it is that takes workers down."""
        self._alone.extend(client_ids)

    def retire(self, slot: int) -> None:
        """Gives a slot's queue to the others; the last slot cannot be retired."""
        left = self._queues.pop(slot)
        del self._load[slot]
        self._alone.extend(left)

    def _chunk(self, queue: deque[int], slot: int, *, from_end: bool) -> list[int]:
        largest, seconds = min(MAX_CHUNK, ceil(len(queue) / CHUNKS_A_SLOT)), 0.0
        taken: list[int] = []
        while queue and (not taken or (len(taken) < largest and seconds < CHUNK_S)):
            client_id = queue.pop() if from_end else queue.popleft()
            taken.append(client_id)
            seconds += self._cost[client_id] + (self._moving.get(client_id, 0.0) if from_end else 0.0)
            self._load[slot] -= self._cost[client_id]
        return taken
