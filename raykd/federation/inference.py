"""Running a network over whole volumes: padding, sliding windows where a volume is large, never a batch of one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from torch import Tensor

from raykd.models._base import SegmentationNetwork, set_dropout_only_training
from raykd.numerics.known_classes import merge_probs
from raykd.numerics.label_map import best_class
from raykd.numerics.rng import seeded_layers

MAX_VOXELS = 1_500_000
"""Largest volume that goes through a network in one piece; a larger one goes in windows with Gaussian blending."""
WINDOW = (48, 128, 128)


def pad_to_multiple(volume_BCIJK: Tensor, multiple: tuple[int, int, int]) -> Tensor:
    """The volume with the darkest value appended to each axis up to a multiple of the network's stride."""
    missing = [-n % m for n, m in zip(volume_BCIJK.shape[2:], multiple, strict=True)]
    return F.pad(volume_BCIJK, [0, missing[2], 0, missing[1], 0, missing[0]], value=float(volume_BCIJK.min()))


def predict_logits(network: SegmentationNetwork, volumes_BCIJK: Tensor, window: tuple[int, int, int] | None = None) -> Tensor:
    """Logits (B, L, I, J, K) of volumes of any shape, in the mode that the network is in, without gradient.

    Args:
        window: go through the network in pieces of this many voxels, half of which overlap; None: large volumes alone, in `WINDOW`.

    A lone volume is run as a pair of itself where PyTorch would otherwise choose its slow convolution, which costs more than
    twice the work.
    """
    shape, device = volumes_BCIJK.shape[2:], _device(network)

    def in_pairs(batch: Tensor) -> Tensor:
        logits: Tensor = network(_at_least_two(batch))[: len(batch)]
        return logits

    with torch.inference_mode():
        if window is not None or volumes_BCIJK[0].numel() > MAX_VOXELS:
            sides = zip(window or WINDOW, shape, network.total_stride, strict=True)
            piece = [min(max(w - w % m, m), -(-n // m) * m) for w, n, m in sides]
            overlap = 0.25 if window is None else 0.5
            logits: Tensor = sliding_window_inference(
                volumes_BCIJK, piece, 2, in_pairs, overlap=overlap, mode="gaussian", sw_device=device, device="cpu"
            )
            return logits
        padded = pad_to_multiple(volumes_BCIJK, network.total_stride)
        whole: Tensor = network(_at_least_two(padded).to(device)).cpu()
        return whole[: len(volumes_BCIJK), :, : shape[0], : shape[1], : shape[2]]


def predict_features(network: SegmentationNetwork, image_IJK: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Feature maps (F, i, j, k) by layer of one volume, padded to the network's stride, in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        padded = pad_to_multiple(image_IJK[None, None], network.total_stride)
        _, features = network.forward_with_features(_at_least_two(padded).to(_device(network)), tuple(layers))
    return {layer: value[0].cpu() for layer, value in features.items()}


def predict_labels(
    network: SegmentationNetwork,
    image_IJK: Tensor,
    known: Sequence[int] | None = None,
    window: tuple[int, int, int] | None = None,
) -> Tensor:
    """The most probable class of each voxel, uint8 (I, J, K), in evaluation mode.

    Args:
        known: the foreground classes that the network was taught; None: all. Others are part of its background.
        window: as for `predict_logits`.
    """
    network.eval()
    logits = predict_logits(network, image_IJK[None, None], window)
    return best_class(logits[0] if known is None else merge_probs(torch.softmax(logits, dim=1), known)[0])


def soft_label(
    network: SegmentationNetwork,
    image_IJK: Tensor,
    *,
    num_passes: int,
    input_noise: float,
    rng: torch.Generator,
    window: tuple[int, int, int] | None = None,
) -> Tensor:
    """Mean over stochastic passes of the class probabilities (L, I, J, K).

    Args:
        num_passes: passes with dropout on, normalisation in evaluation mode, and fresh noise N(0, input_noise^2) clipped at
            two standard deviations on the input; 0: one clean pass.
        rng: seeds noise and dropout masks, in a fork of torch's global state, because its dropout takes no generator.
        window: as for `predict_logits`.
    """
    image = image_IJK[None, None]
    if num_passes == 0:
        network.eval()
        return torch.softmax(predict_logits(network, image, window)[0], dim=0)
    set_dropout_only_training(network)
    total = torch.zeros(())
    with seeded_layers(rng, _device(network)):
        for first in range(0, num_passes, 2):
            size = min(2, num_passes - first)
            noise = (input_noise * torch.randn((size, *image.shape[1:]))).clamp(-2 * input_noise, 2 * input_noise)
            total = total + torch.softmax(predict_logits(network, image + noise, window), dim=1).sum(dim=0)
    network.eval()
    return total / num_passes


def _at_least_two(batch: Tensor) -> Tensor:
    return batch if len(batch) > 1 else batch.expand(2, -1, -1, -1, -1)


def _device(network: SegmentationNetwork) -> torch.device:
    return next(network.parameters()).device
