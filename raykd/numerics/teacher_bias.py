"""What corrects a teacher where labels say that it is wrong. Pure functions of its probabilities.

Shapes: B patches, L classes with background, I J K voxels. 255 is unknown: there, nothing is known better than by the teacher.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from raykd.numerics.segmentation_losses import UNKNOWN


def adjust_knowledge(soft_label_BLIJK: Tensor, label_BIJK: Tensor) -> Tensor:
    """Probability shift: where the most probable class is not the label, their two probabilities are swapped (knowledge adjustment,
    Wen, Lai and Qian, Neurocomputing 2021, https://arxiv.org/abs/1911.07471).

    What the teacher says of all other classes, and how sure it is, stays.
    """
    known = (label_BIJK != UNKNOWN)[:, None]
    most_probable = soft_label_BLIJK.argmax(dim=1, keepdim=True)
    label = torch.where(known, label_BIJK[:, None], most_probable)
    of_label, highest = soft_label_BLIJK.gather(1, label), soft_label_BLIJK.gather(1, most_probable)
    return soft_label_BLIJK.scatter(1, most_probable, of_label).scatter(1, label, highest)


def anneal_teacher(soft_label_BLIJK: Tensor, label_BIJK: Tensor, share: float) -> Tensor:
    """share * y + (1 - share) * p, from the teacher to the label as `share` rises from 0 to 1 over the rounds (teacher annealing,
    Clark et al., ACL 2019, https://arxiv.org/abs/1907.04829).

    Args:
        share: rho_r, in [0, 1].
    """
    known = label_BIJK != UNKNOWN
    one_hot = F.one_hot(label_BIJK * known, soft_label_BLIJK.shape[1]).movedim(-1, 1).to(soft_label_BLIJK.dtype)
    mixed = share * one_hot + (1.0 - share) * soft_label_BLIJK
    return torch.where(known[:, None], mixed, soft_label_BLIJK)
