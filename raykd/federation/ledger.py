"""The rows of what is in hand, written once it has ended well: what is given up leaves none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raykd.federation.protocols import Backend, ResultSink, Row


class Ledger:
    """Holds rows until they are written, in the order in which they came.

    Args:
        sink: where they go.
        backend: whose incidents are rows, too.
    """

    def __init__(self, sink: ResultSink, backend: Backend):
        self._sink, self._backend = sink, backend
        self._held: list[tuple[str, Sequence[Row], str]] = []

    def add(self, table: str, rows: Sequence[Row], part: str) -> None:
        """Holds the rows of one part of a table; no rows make no part."""
        if rows:
            self._held.append((table, rows, part))

    def writing(self) -> Callable[[], None]:
        """Lets go of what is held for a call that writes it, in any thread."""
        held, self._held = self._held, []

        def write() -> None:
            for table, rows, part in held:
                self._sink.write(table, rows, part)

        return write

    def incidents(self, round_index: int) -> list[Row]:
        """What the backend has made good since it was asked last, as rows of `events`."""
        return [
            {"round": round_index, "client_id": client_id, "kind": "worker_lost", "detail": sentence}
            for client_id, sentence in self._backend.incidents()
        ]
