"""How long a user waits for the first round: `raykd run` on the smoke scenario, with nothing in the cache and with its data there,
beside a process that imports torch, MONAI and Ray and does nothing else.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
REPEATS = 3
IMPORTS = "import torch, monai, ray"


def imports_s() -> float:
    """Seconds of a process that only imports the three."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True)
    return time.perf_counter() - begin


def run_s(out: Path, cache: Path) -> tuple[float, float]:
    """Seconds from a command to its first round, which the evaluation before it shows, and to its end."""
    command = [sys.executable, "-m", "raykd.cli", "run", str(ROOT / "scenarios/smoke.yaml"), "--out", str(out)]
    env = os.environ | {"RAYKD_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    begin, first = time.perf_counter(), None
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if first is None and "before the first round" in line:
                first = time.perf_counter() - begin
    if process.returncode != 0 or first is None:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return first, time.perf_counter() - begin


def main() -> None:
    """Prints the table."""
    rows: dict[str, list[tuple[float, float]]] = {"empty": [], "with its data": []}
    ratios: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            for name in rows:
                alone_s = imports_s()
                rows[name].append(run_s(Path(folder) / name, Path(folder) / "cache"))
                ratios[name].append(rows[name][-1][0] / alone_s)
    print("| cache | until the first round | whole run | first round to imports alone |\n|---|---|---|---|")
    for name, found in rows.items():
        first, whole = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {name} | {first:.1f} s | {whole:.1f} s | {statistics.median(ratios[name]):.2f} |")


if __name__ == "__main__":
    main()
