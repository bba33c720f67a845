"""Progress on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raykd.federation.protocols import Progress


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
        lines = Lines()

        def write(event: str, **values: Any) -> None:
            if (text := lines.permanent(event, values)) is not None:
                sys.stderr.write(text + "\n")
                sys.stderr.flush()

        yield write


class Lines:
    """Turns events into words, and the pace so far into the time that is left."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._pace: dict[str, tuple[float, int, int]] = {}
        self._has_warned = False

    def permanent(self, event: str, values: dict[str, Any]) -> str | None:
        """The line that stays for an event; None: not worth one."""
        match event:
            case "run":
                text = (
                    f"run {values['number'] + 1} of {values['total']}: {values['name']}, {values['method']}, seed {values['seed']}"
                )
            case "stage" if values["name"] != "evaluating":
                text = f"  {values['name']}" + (f" ({values['total']})" if values["total"] > 1 else "")
            case "teacher_step" if values["step"] % 200 == 0 or values["step"] == values["total"]:
                left = self._left(event, values["step"], values["total"])
                text = f"  {values['network']}: step {values['step']} of {values['total']}, loss {values['loss']:.3f}{left}"
            case "evaluated" if values["round"] >= 0:
                text = f"  round {values['round'] + 1}: mean DSC {values['dsc']:.3f} on held-out cases"
            case "evaluated":
                text = f"  before the first round: mean DSC {values['dsc']:.3f} on held-out cases"
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
        return f"[{time.monotonic() - self._start:6.1f} s] {text}"

    def passing(self, event: str, values: dict[str, Any]) -> str | None:
        """What the live line says after an event; None: what it said before."""
        match event:
            case "stage":
                return str(values["name"])
            case "teacher_step":
                left = self._left(event, values["step"], values["total"])
                return f"{values['network']}: step {values['step']} of {values['total']}{left}"
            case "round":
                left = self._left(event, values["round"], values["total"])
                return f"round {values['round'] + 1} of {values['total']}, {values['clients']} clients{left}"
            case "client":
                return f"round {values['round'] + 1}: client {values['client_id']} done, loss {values['loss']:.3f}"
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
        return f", {(now - since) / (done - first) * (total - done):.0f} s left"
