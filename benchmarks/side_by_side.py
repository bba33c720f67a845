"""The same FedAvg, with the same tensors and the same last weights, in raykd, in other toolkits and in bare processes.

Every toolkit has an environment of its own below `benchmarks/out/`, made at the first call. All are run in turn, several times,
with the allocator of the C library as it comes and told to keep what was freed, and compared with the bare processes of the same
turn that keep it. raykd tells the allocator so itself. Half an hour on two cores, the environments not counted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.raykd_run import prepare
from benchmarks.peers.task import Task

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / "benchmarks/out/environments"
REPEATS = 3
KEEPING = {name: str(2**30) for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")}
TOLERANCE = 1e-5
"""By which checksums may differ in all: sums are taken in other orders."""


class Peer(NamedTuple):
    """Who takes part.

    Attributes:
        module: in `benchmarks/peers`.
        packages: of its environment; none: this one.
        flags: of its command line.
    """

    module: str
    packages: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


PEERS = {
    "bare processes": Peer("bare"),
    "raykd, processes": Peer("raykd_run"),
    "raykd, threads": Peer("raykd_run", flags=("--use-threads",)),
    "Flower": Peer("flower", ("flwr[simulation]",)),
    "pfl-research": Peer("pfl_research", ("pfl[pytorch]",)),
    "FedLab": Peer("fedlab", ("fedlab",)),
    "BlazeFL, processes": Peer("blazefl", ("blazefl==2.0.3", "--ignore-requires-python")),
    "BlazeFL, threads": Peer("blazefl", ("blazefl==2.0.3", "--ignore-requires-python"), ("--use-threads",)),
}


def python_of(peer: Peer) -> str:
    """The interpreter of its environment, which is made where there is none."""
    if not peer.packages:
        return sys.executable
    folder = ENVIRONMENTS / peer.module
    python = str(folder / "bin/python")
    if not (folder / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pinned = [f"--constraint={ROOT / 'constraints.txt'}"]
        for packages, limits in ((["torch"], pinned), (["monai"], pinned), ([*peer.packages, "torch"], [])):
            command = [python, "-m", "pip", "install", "--quiet", *limits, *packages]
            subprocess.run(command, check=True)
        (folder / "made").touch()
    return python


def measured(peer: Peer, task: Task, *, is_keeping: bool) -> dict[str, Any]:
    """What one run of a script told."""
    flags = [f"--{name}={getattr(task, name)}" for name in ("clients", "rounds", "steps", "workers")]
    command = [python_of(peer), "-m", f"benchmarks.peers.{peer.module}", str(task.data), *flags, *peer.flags]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | (KEEPING if is_keeping else {})
    run = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {run.returncode}:\n{run.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as name:
        task = Task(Path(name))
        prepare(task)
        found: dict[tuple[str, bool], list[dict[str, Any]]] = {}
        for _ in range(REPEATS):
            for is_keeping in (True, False):
                for title, peer in PEERS.items():
                    found.setdefault((title, is_keeping), []).append(measured(peer, task, is_keeping=is_keeping))
                    print(title, found[title, is_keeping][-1], file=sys.stderr, flush=True)
    expected = found["bare processes", True][0]["checksum"]
    for (title, _), lines in found.items():
        for line in lines:
            if abs(line["checksum"] - expected) > TOLERANCE * expected:
                raise SystemExit(
                    f"{title} came to weights of {line['checksum']}, bare processes to {expected}; nothing is compared"
                )
    print(f"{task.clients} clients x {task.rounds} rounds x {task.steps} steps, {task.workers} at once, {REPEATS} repeats;")
    print("seconds are of the rounds, ratios are to bare processes that keep freed memory\n")
    print("| toolkit | start | rounds, freed memory kept | ratio | rounds, as it comes | ratio | memory |")
    print("|---|---|---|---|---|---|---|")
    for title in PEERS:
        kept, plain = found[title, True], found[title, False]
        cells = [f"{_median(kept, 'start_s'):.1f} s"]
        for lines in (kept, plain):
            base = found["bare processes", True]
            ratio = statistics.median(own["rounds_s"] / other["rounds_s"] for own, other in zip(lines, base, strict=True))
            cells += [f"{_median(lines, 'rounds_s'):.2f} s", f"{ratio:.3f}"]
        print(f"| {title} | {' | '.join(cells)} | {_median(kept, 'memory_mb'):.0f} MB |", flush=True)


def _median(lines: list[dict[str, Any]], column: str) -> float:
    return statistics.median(line[column] for line in lines)


if __name__ == "__main__":
    main()
