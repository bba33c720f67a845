"""A teacher that follows its student."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raykd.numerics.mean_teacher import follow, warm_keep


def test_the_first_steps_give_the_plain_mean_of_all_students_so_far() -> None:
    """Students 4, 6, 11: means 4, 5, 7, whatever the teacher was."""
    teacher, student = nn.Linear(1, 1), nn.Linear(1, 1)
    seen = []
    for step, value in enumerate([4.0, 6.0, 11.0]):
        nn.init.constant_(student.weight, value)
        follow(teacher, student, warm_keep(step, 0.999))
        seen.append(float(teacher.weight.detach()))
    assert seen == pytest.approx([4.0, 5.0, 7.0])


def test_later_steps_keep_no_more_than_they_are_told() -> None:
    assert warm_keep(0, 0.9) == 0.0
    assert warm_keep(3, 0.9) == 0.75
    assert warm_keep(1000, 0.9) == 0.9


def test_buffers_are_the_students() -> None:
    teacher, student = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    student.running_mean.fill_(3.0)
    student.num_batches_tracked.fill_(5)
    follow(teacher, student, 0.99)
    assert teacher.running_mean.tolist() == [3.0, 3.0]
    assert int(teacher.num_batches_tracked) == 5


def test_the_student_does_not_move() -> None:
    teacher, student = nn.Linear(2, 2), nn.Linear(2, 2)
    before = student.weight.detach().clone()
    follow(teacher, student, 0.3)
    assert torch.equal(student.weight, before)
