"""What a site learns of the classes that it does not outline from a model that knows them (ConDistFL, Wang et al., DeCaF 2023,
https://arxiv.org/abs/2308.04070).

Shapes: B patches, L classes with background, I J K voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raykd.numerics.response_losses import soft_dice_loss


def conditional_logits(logits_BLIJK: Tensor, annotated: Sequence[int], temperature: float) -> Tensor:
    """Logits over background and the classes that are not outlined here, in that order, softened.

    Their softmax is the source's p_c / (1 - sum of p over the outlined classes): the probability of a class given that the voxel is
    of none of the outlined ones.
    """
    others = [index for index in range(logits_BLIJK.shape[1]) if index not in annotated]
    return logits_BLIJK[:, others] / temperature


def is_elsewhere(label_BIJK: Tensor, teacher_logits_BLIJK: Tensor, annotated: Sequence[int]) -> Tensor:
    """Whether neither the site's label nor the teacher gives a voxel to one of the outlined classes."""
    outlined = torch.tensor(list(annotated), device=label_BIJK.device)
    return ~(torch.isin(label_BIJK, outlined) | torch.isin(teacher_logits_BLIJK.argmax(dim=1), outlined))


def conditional_loss(
    logits_BLIJK: Tensor, teacher_logits_BLIJK: Tensor, label_BIJK: Tensor, annotated: Sequence[int], temperature: float
) -> Tensor:
    """Soft Dice between the conditional probabilities of student and teacher, mean over patches and the classes not outlined.

    Squares in its denominator, which the source's has not, put its minimum where the two agree.

    Args:
        label_BIJK: the site's labels; 255 where nobody knows.
        annotated: the foreground classes outlined here; at least one foreground class must not be among them.
        temperature: > 0; the source's configuration has 0.5, which sharpens.
    """
    student = conditional_logits(logits_BLIJK, annotated, temperature)
    teacher = torch.softmax(conditional_logits(teacher_logits_BLIJK, annotated, temperature), dim=1)
    where = is_elsewhere(label_BIJK, teacher_logits_BLIJK, annotated)
    return soft_dice_loss(student, teacher, where.to(student.dtype))
