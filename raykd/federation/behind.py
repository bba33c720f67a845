"""Writing behind the driver's back: what a round leaves reaches the disk while the clients are at the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor


class Behind:
    """Does one thing at a time, in the order in which things are given, in a thread of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="raykd-behind")
        self._last: Future[None] | None = None

    def do(self, *what: Callable[[], None]) -> None:
        """Begins some things, one after the other, once what was given before is done. Raises what that raised; then nothing is
        begun.
        """
        self.wait()
        self._last = self._pool.submit(_one_by_one, what)

    def wait(self) -> None:
        """Returns once what was given is done. Raises what it raised."""
        last, self._last = self._last, None
        if last:
            last.result()

    def close(self, then: Callable[[], None]) -> None:
        """Waits, ends the thread, and does a last thing here, whatever happened there. Raises what was raised there."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()
            then()


def _one_by_one(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()
