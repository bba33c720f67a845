"""`python -m benchmarks [NAME...]`: runs all benchmarks or those named, and prints a table for each."""

from __future__ import annotations

import sys

from benchmarks import distillation_step, prepare, ray_overhead

BENCHMARKS = {"distillation_step": distillation_step.main, "ray_overhead": ray_overhead.main, "prepare": prepare.main}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"\n## {name}\n")
        BENCHMARKS[name]()
