"""The device on which a process runs its networks."""

from __future__ import annotations

import os

import torch

from raykd.federation.protocols import Progress


def take_up_device(gpus: float, progress: Progress) -> str:
    """The device of this process, made ready: `cuda` where it is given a GPU and torch sees one, else `cpu`.

    Of a part of a GPU the process may use that part of its memory. Only such kernels are chosen as add up in the same order at
    every run, since the same seed gives the same numbers.

    Args:
        gpus: what the process holds of them.
        progress: told where it holds one that torch does not see.
    """
    if gpus <= 0 or not torch.cuda.is_available():
        if gpus > 0:
            progress("gpu_unseen")
        return "cpu"
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a workspace of its own
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus)
    return "cuda"
