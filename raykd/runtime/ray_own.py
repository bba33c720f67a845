"""A Ray cluster of this process's own, started by a child while this process does something else.

The child (`python -m raykd.runtime.ray_own`) prints the address of what it has started, and ends it when its input closes; which it
does when this process ends, however it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from raykd.runtime.address import AUTH_MODE
from raykd.runtime.descendants import end_descendants
from raykd.scenario.errors import ResourceError

TOKEN_MODE = {AUTH_MODE: "token"}
"""What Ray has for a cluster that it starts, whose token it makes, where the environment says nothing else."""


class _Child(NamedTuple):
    process: subprocess.Popen[str]
    said: IO[str]


_begun: list[_Child] = []


def begin() -> None:
    """Begins to start the cluster of the next `own_cluster`, and returns at once. Ray that runs in this process already is used."""
    if _begun or ("ray" in sys.modules and sys.modules["ray"].is_initialized()):
        return
    said, pipe = tempfile.TemporaryFile("w+"), subprocess.PIPE  # noqa: SIM115 (closed with the block of `own_cluster`)
    command, env = [sys.executable, "-m", __name__], TOKEN_MODE | os.environ
    # In a session of its own: a Ctrl-C at the terminal is for this process, which decides what becomes of the cluster.
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said, text=True, start_new_session=True, env=env)
    _begun.append(_Child(process, said))


@contextmanager
def own_cluster() -> Iterator[str]:
    """The address of a cluster that is ended with the block, for which the environment lets Ray show its token.

    Raises:
        ResourceError: none can be started.
    """
    begin()
    process, said = _begun.pop()
    with said, process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            process.wait()
            said.seek(0)
            lines = said.read().strip().splitlines() or ["it says no more"]
            raise ResourceError(f"Ray could not be started on this machine: {lines[-1]}")
        before = os.environ.copy()
        os.environ.update(TOKEN_MODE | before)
        try:
            yield address
        finally:
            if AUTH_MODE not in before:
                del os.environ[AUTH_MODE]


def _serve() -> None:
    import ray

    has_started = threading.Event()

    def await_end() -> None:
        sys.stdin.read()
        if not has_started.is_set():
            end_descendants()
            os._exit(1)

    waiting = threading.Thread(target=await_end, daemon=True)
    waiting.start()
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    has_started.set()
    sys.stdout.write(f"{ray.get_runtime_context().gcs_address}\n")
    sys.stdout.flush()
    waiting.join()
    ray.shutdown()


if __name__ == "__main__":
    _serve()
