"""What corrects a teacher where labels, or the proportions of classes, say that it is wrong. Pure functions of its probabilities.

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


def shift_prior(soft_label_BLIJK: Tensor, teacher_prior_L: Tensor, site_prior_L: Tensor, strength: float = 1.0) -> Tensor:
    """p_c (site_c / teacher_c)^strength, normalised: what the teacher would say had it learnt at the site's proportions of classes
    (logit adjustment, Menon et al., ICLR 2021, https://arxiv.org/abs/2007.07314).

    Args:
        teacher_prior_L, site_prior_L: shares of the classes, which sum to 1.
        strength: rho; 0 changes nothing.
    """
    ratio_L = (site_prior_L.clamp(min=1e-12) / teacher_prior_L.clamp(min=1e-12)) ** strength
    shifted = soft_label_BLIJK * ratio_L.to(soft_label_BLIJK)[:, None, None, None]
    return shifted / shifted.sum(dim=1, keepdim=True).clamp(min=1e-30)


def estimate_prior(
    soft_label_BLIJK: Tensor, teacher_prior_L: Tensor, *, max_iterations: int = 1000, tolerance: float = 1e-7
) -> Tensor:
    """Shares of the classes at a site, by expectation maximisation from the teacher's probabilities of unlabelled voxels: (L,),
    float64 (Saerens, Latinne and Decaestecker, Neural Computation 14, 2002, https://doi.org/10.1162/089976602753284446).

    Exact where the teacher is calibrated on its own cases and only the proportions differ.

    Args:
        soft_label_BLIJK: as the teacher says them, without correction.
        teacher_prior_L: shares of the classes where the teacher was trained.
        max_iterations: of expectation and maximisation.
        tolerance: the largest change of a share at which they stop.
    """
    probs = soft_label_BLIJK.movedim(1, 0).flatten(1).double()
    teacher_prior = teacher_prior_L.to(probs).clamp(min=1e-12)
    prior = teacher_prior
    for _ in range(max_iterations):
        joint = probs * (prior / teacher_prior)[:, None]
        updated = (joint / joint.sum(dim=0).clamp(min=1e-300)).mean(dim=1)
        change, prior = (updated - prior).abs().max(), updated
        if change <= tolerance:
            break
    return prior
