"""`python -m benchmarks [NAME...]`: runs all benchmarks or those named, and prints a table for each."""

from __future__ import annotations

import sys

from benchmarks import (
    codec_ratios,
    distillation_step,
    first_round,
    long_run,
    many_clients,
    prepare,
    ray_overhead,
    side_by_side,
    slots,
    step_settings,
)

BENCHMARKS = {
    "distillation_step": distillation_step.main,
    "step_settings": step_settings.main,
    "first_round": first_round.main,
    "ray_overhead": ray_overhead.main,
    "slots": slots.main,
    "many_clients": many_clients.main,
    "long_run": long_run.main,
    "prepare": prepare.main,
    "codec_ratios": codec_ratios.main,
    "side_by_side": side_by_side.main,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"\n## {name}\n")
        BENCHMARKS[name]()
