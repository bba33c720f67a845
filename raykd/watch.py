"""Progress on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from raykd.federation.protocols import Progress

SILENCE_S = 12.0
"""After so long without a line, a pipe is told what is still being done."""


@contextmanager
def watch(quiet: bool) -> Iterator[Progress]:
    """A progress that shows what it is told until the block ends."""
    if quiet:
        yield lambda event, **values: None
    elif sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        with console.status("starting Ray") as status:
            lines = Lines()

            def show(event: str, **values: Any) -> None:
                if (text := lines.permanent(event, values)) is not None:
                    console.print(text, markup=False)
                if (text := lines.passing(event, values)) is not None:
                    status.update(text)

            yield show
    else:
        with _plain_lines() as write:
            yield write


@contextmanager
def _plain_lines() -> Iterator[Progress]:
    """A progress that writes lines, and one about what is still being done wherever nothing was told for a while."""
    lines, writing, has_ended = Lines(), threading.Lock(), threading.Event()
    doing, written_s = "starting", time.monotonic()

    def put(text: str) -> None:
        nonlocal written_s
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
        written_s = time.monotonic()

    def write(event: str, **values: Any) -> None:
        nonlocal doing
        with writing:
            if (text := lines.permanent(event, values)) is not None:
                put(text)
            doing = lines.passing(event, values) or doing

    def break_silence() -> None:
        while not has_ended.wait(1.0):
            with writing:
                if time.monotonic() - written_s >= SILENCE_S:
                    put(lines.stamped(f"  at work: {doing}"))

    put(lines.stamped(f"  {doing}"))
    keeper = threading.Thread(target=break_silence, daemon=True)
    keeper.start()
    try:
        yield write
    finally:
        has_ended.set()
        keeper.join()


class Lines:
    """Turns events into words, and the pace so far into the time that is left."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._pace: dict[str, tuple[float, int, int]] = {}
        self._study = StudyPace()
        self._has_warned = False

    def stamped(self, text: str) -> str:
        """A line with the seconds since the start before it."""
        return f"[{time.monotonic() - self._start:6.1f} s] {text}"

    def permanent(self, event: str, values: dict[str, Any]) -> str | None:
        """The line that stays for an event; None: not worth one."""
        match event:
            case "run":
                self._pace.clear()
                text = self._run(values)
            case "round":
                self._study.begin_rounds()
                return None
            case "stage" if values["name"] != "evaluating":
                text = f"  {values['name']}" + (f" of {values['total']} sites" if values["total"] > 1 else "")
            case "teacher_step" if values["step"] % 200 == 0 or values["step"] == values["total"]:
                left = self._left(f"{event} {values['network']}", values["step"], values["total"])
                text = f"  {values['network']}: step {values['step']} of {values['total']}, loss {values['loss']:.3f}{left}"
            case "evaluated":
                when = f"round {values['round'] + 1}" if values["round"] >= 0 else "before the first round"
                text = f"  {when}: DSC {values['dsc']:.3f}, mean of sites, on their test cases"
            case "weak_start":
                text = f"  beware: {values['detail']}"
            case "stopped":
                text = f"  ended: {values['detail']}"
            case "worker_lost":
                text = f"  a worker was lost during {values['work']} (attempt {values['attempt']}): {values['reason']}"
            case "gpu_unseen" if not self._has_warned:
                self._has_warned = True
                text = "  clients hold a GPU that torch does not see where they run, and run on the CPU; `raykd doctor` says why"
            case "damaged_checkpoint":
                text = f"  {values['path']} is damaged and was passed over"
            case _:
                return None
        return self.stamped(text)

    def _run(self, values: dict[str, Any]) -> str:
        parts = [f"run {values['number']} of {values['total']}", values["method"], values["settings"], f"seed {values['seed']}"]
        if left_s := self._study.begin_run(values["method"], values["left"]):
            parts.append(f"about {_span(left_s)} left")
        return f"{values['name']}: " + " - ".join(part for part in parts if part)

    def passing(self, event: str, values: dict[str, Any]) -> str | None:
        """What the live line says after an event; None: what it said before."""
        match event:
            case "stage":
                return str(values["name"])
            case "teacher_step":
                left = self._left(f"{event} {values['network']}", values["step"], values["total"])
                return f"training {values['network']}: step {values['step']} of {values['total']}{left}"
            case "round":
                # The first round also starts what later rounds find ready, so the pace is that of the others.
                left = self._left(event, values["round"], values["total"]) if values["round"] else ""
                return f"round {values['round'] + 1} of {values['total']}, {values['clients']} clients{left}"
            case "client":
                return f"round {values['round'] + 1}: client {values['client_id']} is done, loss {values['loss']:.3f}"
            case _:
                return None

    def _left(self, event: str, done: int, total: int) -> str:
        """The time left at the pace since this count began; a count that falls has begun anew."""
        now = time.monotonic()
        since, first, last = self._pace.get(event, (now, done, done))
        if done < last:
            since, first = now, done
        self._pace[event] = (since, first, done)
        if done == first:
            return ""
        return f", about {_span((now - since) / (done - first) * (total - done))} left"


class StudyPace:
    """The time that is left of a study, from how long the rounds of its finished runs took.

    What comes before the first round of the first run (the start of Ray, the training of a teacher that later runs share) is left
    out of the pace.
    """

    def __init__(self) -> None:
        self._method: str | None = None
        self._began_s = self._rounds_s = 0.0
        self._took_s: dict[str, list[float]] = {}
        self._num_done = 0

    def begin_rounds(self) -> None:
        """A round begins."""
        self._rounds_s = self._rounds_s or time.monotonic()

    def begin_run(self, method: str, left: Sequence[str]) -> float:
        """A run begins; gives the seconds until the last has ended, 0 where that cannot be told yet.

        Args:
            method: of the run.
            left: the methods of this run and of those after it.
        """
        now = time.monotonic()
        if self._method is not None:
            since = (self._rounds_s or self._began_s) if not self._num_done else self._began_s
            self._took_s.setdefault(self._method, []).append(now - since)
            self._num_done += 1
        self._method, self._began_s, self._rounds_s = method, now, 0.0
        if not self._took_s:
            return 0.0
        every = fmean(took for times in self._took_s.values() for took in times)
        return sum(fmean(self._took_s.get(one, [every])) for one in left)


def _span(seconds: float) -> str:
    """Seconds, or minutes where there are more than two."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
