"""What images look like that would explain an upload: baselines of an attacker, to measure what uploads give away.

Shapes: B patches, L classes with background, F channels, I J K voxels, i j k feature grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LIMIT = 4.0
"""Largest intensity of a z-scored image that is tried, in standard deviations."""


@dataclass(frozen=True)
class Effort:
    """What an attacker spends.

    Attributes:
        num_steps: of Adam, with the sign of the gradient, as Geiping et al. take.
        learning_rate: in standard deviations of intensity, falling by a cosine to zero.
        smoothness: weight of the total variation of the image.
    """

    num_steps: int = 200
    learning_rate: float = 0.2
    smoothness: float = 3e-2


def total_variation(image_BCIJK: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring voxels, summed over the three axes."""
    return torch.stack([image_BCIJK.diff(dim=axis).abs().mean() for axis in (2, 3, 4)]).sum()


def cosine_distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """1 - cos of the angle between two lists of tensors, each taken as one vector."""
    product = torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum()
    norms = [torch.stack([a.square().sum() for a in side]).sum().sqrt() for side in (one, other)]
    return 1.0 - product / (norms[0] * norms[1]).clamp(min=1e-20)


def invert_gradient(
    network: nn.Module,
    update: Mapping[str, Tensor],
    shape: Sequence[int],
    num_classes: int,
    *,
    effort: Effort,
    rng: torch.Generator,
) -> Tensor:
    """Images (B, 1, I, J, K) whose gradient points where an update does: cosine matching with a total variation prior (Geiping et
    al., Inverting gradients, NeurIPS 2020, https://arxiv.org/abs/2003.14053), labels found along with them.

    Args:
        network: with the parameters that the client had received.
        update: by parameter name, received minus uploaded: what one step of SGD makes of the gradient.
        shape: B, I, J, K.
        num_classes: L.
        effort: how long is tried.
        rng: source of the first guess.
    """
    names = [name for name, parameter in network.named_parameters() if name in update and parameter.requires_grad]
    moving = [dict(network.named_parameters())[name] for name in names]
    wanted = [update[name].to(torch.float32) for name in names]
    num_patches, *grid = shape
    guess_BLIJK = torch.zeros(num_patches, num_classes, *grid, requires_grad=True)

    def mismatch(image_BCIJK: Tensor) -> Tensor:
        loss = _soft_label_loss(network(image_BCIJK), torch.softmax(guess_BLIJK, dim=1))
        found = torch.autograd.grad(loss, moving, create_graph=True)
        return cosine_distance(found, wanted)

    return _search(mismatch, [guess_BLIJK], (num_patches, 1, *grid), effort, rng)


def invert_prototypes(
    features_of: Callable[[Tensor], Tensor],
    mean_LF: Tensor,
    share_L: Tensor,
    shape: Sequence[int],
    *,
    effort: Effort,
    rng: torch.Generator,
) -> Tensor:
    """An image (1, 1, I, J, K) whose features, averaged within regions that are found along with it, are the classes' prototypes.

    Args:
        features_of: (1, F, i, j, k) of an image.
        mean_LF: prototypes of the classes.
        share_L: of the cells that are of each class, summing to 1; 0: the class has no prototype.
        shape: I, J, K.
        effort: how long is tried.
        rng: source of the first guess.
    """
    with torch.no_grad():
        grid = features_of(torch.zeros(1, 1, *shape)).shape[2:]
    present_L = share_L > 0
    guess_Lijk = (0.01 * torch.randn(len(share_L), *grid, generator=rng)).requires_grad_()
    scale = mean_LF[present_L].square().sum(dim=1).clamp(min=1e-12)

    def mismatch(image_BCIJK: Tensor) -> Tensor:
        region_Lijk = torch.softmax(guess_Lijk.masked_fill(~present_L[:, None, None, None], float("-inf")), dim=0)
        count_L = region_Lijk.sum(dim=(1, 2, 3))
        sums_LF = torch.einsum("lijk,fijk->lf", region_Lijk, features_of(image_BCIJK)[0])
        found_LF = sums_LF[present_L] / count_L[present_L, None].clamp(min=1e-6)
        distance = ((found_LF - mean_LF[present_L]).square().sum(dim=1) / scale).mean()
        return distance + (count_L / count_L.sum() - share_L).square().sum()

    return _search(mismatch, [guess_Lijk], (1, 1, *shape), effort, rng)


def _soft_label_loss(logits_BLIJK: Tensor, soft_BLIJK: Tensor) -> Tensor:
    """Half cross-entropy, half soft Dice with 1 added above and below: the sites' own loss, for labels that are shares."""
    probs_BLIJK = torch.softmax(logits_BLIJK, dim=1)
    cross_entropy = -(soft_BLIJK * F.log_softmax(logits_BLIJK, dim=1)).sum(dim=1).mean()
    both_BL = (probs_BLIJK * soft_BLIJK).sum(dim=(2, 3, 4))
    dice_BL = (2.0 * both_BL + 1.0) / (probs_BLIJK.sum(dim=(2, 3, 4)) + soft_BLIJK.sum(dim=(2, 3, 4)) + 1.0)
    return 0.5 * cross_entropy + 0.5 * (1.0 - dice_BL).mean()


def _search(
    mismatch: Callable[[Tensor], Tensor], beside: list[Tensor], shape: Sequence[int], effort: Effort, rng: torch.Generator
) -> Tensor:
    """The image of the smallest mismatch that was met."""
    image_BCIJK = torch.randn(tuple(shape), generator=rng).requires_grad_()
    optimiser = torch.optim.Adam([image_BCIJK, *beside], effort.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, effort.num_steps)
    best, best_value = image_BCIJK.detach().clone(), float("inf")
    for _ in range(effort.num_steps):
        optimiser.zero_grad(set_to_none=True)
        loss = mismatch(image_BCIJK)
        tried = image_BCIJK.detach().clone()
        (loss + effort.smoothness * total_variation(image_BCIJK)).backward()
        if float(loss.detach()) < best_value:
            best, best_value = tried, float(loss.detach())
        assert image_BCIJK.grad is not None
        image_BCIJK.grad.sign_()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            image_BCIJK.clamp_(-LIMIT, LIMIT)
    return best
