"""Losses on relations within a network's own features, which therefore ask for neither equal channels nor equal grids.

Shapes: B patches, L classes with background, F channels (T of the teacher, S of the student), i j k feature grid, N positions.
Where positions are compared, `match_grid` brings the student's map to the teacher's grid first. More of their kind, which need no
common positions, are in `feature_losses`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from raykd.numerics.feature_losses import match_grid


def intra_class_loss(student_BSijk: Tensor, teacher_BTijk: Tensor, region_BLIJK: Tensor) -> Tensor:
    """Mean over positions of (cos(f_S, mu_S) - cos(f_T, mu_T))^2, where mu is the mean over a patch of the network's own features
    in the position's class: intra-class feature variation (IFVD, Wang et al., ECCV 2020,
    https://www.ecva.net/papers/eccv_2020/papers_ECCV/html/230_ECCV_2020_paper.php, which weighs this term 200).

    Args:
        region_BLIJK: membership of each voxel in each class, in [0, 1]; a position is of the class that covers most of it.
    """
    class_Bijk = match_grid(region_BLIJK, teacher_BTijk.shape[2:]).argmax(dim=1)
    one_hot_BNL = F.one_hot(class_Bijk.flatten(1), region_BLIJK.shape[1]).to(teacher_BTijk.dtype)
    share_BLN = (one_hot_BNL / one_hot_BNL.sum(dim=1, keepdim=True).clamp(min=1.0)).transpose(1, 2)

    def cosine_to_own_class(feature_BFijk: Tensor) -> Tensor:
        feature_BNF = feature_BFijk.flatten(2).transpose(1, 2)
        mean_BNF = one_hot_BNL @ (share_BLN @ feature_BNF)
        return F.cosine_similarity(feature_BNF, mean_BNF, dim=2, eps=1e-6)

    student = match_grid(student_BSijk, teacher_BTijk.shape[2:])
    return (cosine_to_own_class(student) - cosine_to_own_class(teacher_BTijk)).square().mean()


def cka_loss(student_BSijk: Tensor, teacher_BTijk: Tensor, *, debiased: bool = False) -> Tensor:
    """1 - linear CKA of the features at the positions of all patches together: 0 where one is a rotation and scaling of the other
    (Kornblith et al., ICML 2019, https://arxiv.org/abs/1905.00414).

    Args:
        debiased: HSIC as the unbiased estimator of Song et al. (JMLR 2012, https://jmlr.org/papers/v13/song12a.html), as Nguyen et
            al. (ICLR 2021, https://arxiv.org/abs/2010.15327) use it: of independent features CKA is then 0 on average, where the
            plain one nears 1 as positions become fewer than channels.

    Raises:
        ValueError: debiased, and fewer than four positions.
    """
    student = match_grid(student_BSijk, teacher_BTijk.shape[2:])
    x_NS, y_NT = (feature.movedim(1, -1).flatten(0, 3) for feature in (student, teacher_BTijk))
    if debiased and len(x_NS) < 4:
        raise ValueError(f"debiased CKA needs four positions or more, got {len(x_NS)}; choose larger patches, a finer layer or cka")
    x_NS, y_NT = (rows - rows.mean(dim=0) for rows in (x_NS, y_NT))
    if not debiased:
        return 1.0 - _hsic(x_NS, y_NT) / (_hsic(x_NS, x_NS) * _hsic(y_NT, y_NT)).clamp(min=1e-24).sqrt()
    # Of a few positions the estimate may be under zero, where no quotient means anything.
    own = [torch.maximum(_unbiased_hsic(rows, rows), 0.01 * _hsic(rows, rows).clamp(min=1e-10)) for rows in (x_NS, y_NT)]
    return 1.0 - _unbiased_hsic(x_NS, y_NT) / (own[0] * own[1]).sqrt()


def _hsic(x_NS: Tensor, y_NT: Tensor) -> Tensor:
    """||X^T Y||_F^2 / N^2 of centred columns."""
    return (x_NS.T @ y_NT / len(x_NS)).square().sum()


def _unbiased_hsic(x_NS: Tensor, y_NT: Tensor) -> Tensor:
    """(tr(KL) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'KL1 / (n - 2)) / (n (n - 3)), where K is XX' and L is YY' but for zeros on their
    diagonals.

    Neither N x N matrix is formed. Columns are centred, which changes rounding alone: hence X'1 = 0 and K1 = -diag(XX').
    """
    n = len(x_NS)
    x_diagonal, y_diagonal = x_NS.square().sum(dim=1), y_NT.square().sum(dim=1)
    both = (x_diagonal * y_diagonal).sum()
    trace = (x_NS.T @ y_NT).square().sum() - both
    sums = x_diagonal.sum() * y_diagonal.sum()
    return (trace + sums / ((n - 1) * (n - 2)) - 2.0 * both / (n - 2)) / (n * (n - 3))
