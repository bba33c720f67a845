"""A teacher that is the moving mean of its student (mean teacher, Tarvainen and Valpola, NeurIPS 2017,
https://arxiv.org/abs/1703.01780).
"""

from __future__ import annotations

import torch
from torch import nn


def warm_keep(step: int, keep: float) -> float:
    """min(1 - 1 / (step + 1), keep): the plain mean of all students so far while they are few.

    Args:
        step: of the student, from 0; it must count on over rounds, or every round starts by replacing the teacher.
        keep: [alpha], in [0, 1].
    """
    return min(1.0 - 1.0 / (step + 1), keep)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, keep: float) -> None:
    """Moves a teacher's parameters to keep * teacher + (1 - keep) * student in place; its buffers become the student's."""
    for mine, new in zip(teacher.parameters(), student.parameters(), strict=True):
        mine.lerp_(new, 1.0 - keep)
    for kept, current in zip(teacher.buffers(), student.buffers(), strict=True):
        kept.copy_(current)
