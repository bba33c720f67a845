"""FitNets' hint: the student's features, through an adapter trained beside it, are to equal the teacher's (Romero et al., ICLR
2015, https://arxiv.org/abs/1412.6550).

Shapes: B patches, T channels of the teacher, S of the student, i j k feature grid.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raykd.numerics.feature_losses import match_grid


def hint_adapters(student: Mapping[str, int], teacher: Mapping[str, int], rng: torch.Generator) -> nn.ModuleDict:
    """By layer, a 1x1x1 convolution from the student's to the teacher's channels; it never leaves the site.

    Args:
        student, teacher: number of channels by layer.
        rng: of the weights, which are orthogonal, so that no direction of the student's features starts lost or favoured; biases
            are 0.
    """
    adapters = nn.ModuleDict()
    for layer in sorted(student):
        # The constructor alone would draw weights from the global state.
        adapter = nn.utils.skip_init(nn.Conv3d, student[layer], teacher[layer], kernel_size=1)
        nn.init.orthogonal_(adapter.weight, generator=rng)
        nn.init.zeros_(adapter.bias)
        adapters[layer] = adapter
    return adapters


def hint_loss(student_BTijk: Tensor, teacher_BTijk: Tensor) -> Tensor:
    """Mean over positions and channels of (r(f_S) - f_T)^2.

    Args:
        student_BTijk: already through the adapter r; brought to the teacher's grid here.

    Raises:
        ValueError: different numbers of channels.
    """
    if student_BTijk.shape[1] != teacher_BTijk.shape[1]:
        raise ValueError(
            f"hint needs as many student as teacher channels, got {student_BTijk.shape[1]} and {teacher_BTijk.shape[1]}; "
            "bring the student's through one of hint_adapters first"
        )
    return (match_grid(student_BTijk, teacher_BTijk.shape[2:]) - teacher_BTijk).square().mean()
