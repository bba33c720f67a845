"""Running a network over whole volumes in windows as large as the patches that it learnt from, never a batch of one.

A network that normalises over space answers otherwise when it is shown more at once than it was trained on, or a margin that it
never saw: nothing is appended to a volume but where it is smaller than a patch, as in training.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from torch import Tensor

from raykd.models._base import SegmentationNetwork, set_dropout_only_training
from raykd.numerics.known_classes import merge_probs
from raykd.numerics.label_map import best_class
from raykd.numerics.rng import seeded_layers

T = TypeVar("T")
Window = tuple[int, int, int]
"""Voxels along I, J, K of the pieces in which a volume goes through a network."""
OVERLAP = 0.5
"""Share of a window that the next one along an axis covers again, blended with Gaussian weights (nnU-Net, Isensee et al., Nature
Methods 2021, https://doi.org/10.1038/s41592-020-01008-z)."""


def pad_to_patch(volume_BCIJK: Tensor, shape: Sequence[int]) -> Tensor:
    """The volume with the darkest value appended to each axis that is shorter than a patch, as training patches have it."""
    missing = [max(edge - n, 0) for n, edge in zip(volume_BCIJK.shape[2:], shape, strict=True)]
    return F.pad(volume_BCIJK, [0, missing[2], 0, missing[1], 0, missing[0]], value=float(volume_BCIJK.min()))


def pad_to_multiple(volume_BCIJK: Tensor, multiple: tuple[int, int, int]) -> Tensor:
    """The volume with its last plane repeated along each axis up to a multiple of the network's stride."""
    missing = [-n % m for n, m in zip(volume_BCIJK.shape[2:], multiple, strict=True)]
    return F.pad(volume_BCIJK, [0, missing[2], 0, missing[1], 0, missing[0]], mode="replicate")


def predict_logits(network: SegmentationNetwork, volumes_BCIJK: Tensor, window: Window | None = None) -> Tensor:
    """Logits (B, L, I, J, K) of volumes of any shape, in the mode that the network is in, without gradient.

    Args:
        window: of the patches that the network learnt from; half of it overlaps the next; None: the whole volume at once.

    A lone window is run as a pair of itself where PyTorch would otherwise choose its slow convolution, which costs more than
    twice the work.
    """
    shape, device = volumes_BCIJK.shape[2:], _device(network)

    def in_pairs(batch: Tensor) -> Tensor:
        logits: Tensor = network(_at_least_two(batch))[: len(batch)]
        return logits

    with torch.inference_mode():
        padded, piece = _pieces(network, volumes_BCIJK, window)
        logits: Tensor = sliding_window_inference(
            padded, piece, 2, in_pairs, overlap=OVERLAP, mode="gaussian", sw_device=device, device="cpu"
        )
        return logits[..., : shape[0], : shape[1], : shape[2]]


def predict_features(
    network: SegmentationNetwork, image_IJK: Tensor, layers: Sequence[str], window: Window | None = None
) -> dict[str, Tensor]:
    """Feature maps (F, i, j, k) by layer of one volume, padded to the network's stride, in evaluation mode.

    Args:
        window: as for `predict_logits`, but side by side, so that each begins at a whole voxel of every layer.
    """
    network.eval()
    padded, piece = _pieces(network, pad_to_multiple(image_IJK[None, None], network.total_stride), window)
    shape, found = padded.shape[2:], dict[str, Tensor]()
    starts = itertools.product(*(_starts(size, edge) for size, edge in zip(shape, piece, strict=True)))
    with torch.inference_mode():
        for pair in _batched(starts, 2):
            windows = torch.cat([_window_at(padded, start, piece) for start in pair])
            _, features = network.forward_with_features(_at_least_two(windows).to(_device(network)), tuple(layers))
            for layer, values in features.items():
                stride = network.layers[layer]
                whole = found.setdefault(layer, torch.empty(values.shape[1], *(n // s for n, s in zip(shape, stride, strict=True))))
                for start, value in zip(pair, values.cpu(), strict=False):
                    i, j, k = (slice(a // s, a // s + n) for a, s, n in zip(start, stride, value.shape[1:], strict=True))
                    whole[:, i, j, k] = value
    return found


def _starts(size: int, edge: int) -> list[int]:
    """Where windows begin that lie side by side, the last of which ends with the volume."""
    return [*range(0, size - edge, edge), size - edge]


def _window_at(padded: Tensor, start: Sequence[int], piece: Sequence[int]) -> Tensor:
    i, j, k = (slice(first, first + edge) for first, edge in zip(start, piece, strict=True))
    return padded[..., i, j, k]


def _batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """The items in tuples of so many, as `itertools.batched` of Python 3.12."""
    left = iter(items)
    while batch := tuple(itertools.islice(left, size)):
        yield batch


def class_scores(logits_BLIJK: Tensor, known: Sequence[int] | None) -> Tensor:
    """What is largest for the most probable class: the logits, or, where some classes were never taught, the probabilities with
    these as part of the background.
    """
    return logits_BLIJK if known is None else merge_probs(torch.softmax(logits_BLIJK, dim=1), known)


@dataclass(frozen=True)
class Prediction:
    """What a network says of a volume.

    Attributes:
        logits_LIJK: of background and all classes.
        known: the foreground classes that the network was taught; None: all. Others are part of its background.
    """

    logits_LIJK: Tensor
    known: Sequence[int] | None

    @cached_property
    def labels_IJK(self) -> Tensor:
        """The most probable class of each voxel, uint8."""
        return best_class(class_scores(self.logits_LIJK[None], self.known)[0])

    def probs_LN(self, mask_IJK: Tensor) -> Tensor:
        """The class probabilities of the voxels of a mask, in its order; those of classes never taught are 0."""
        return merge_probs(torch.softmax(self.logits_LIJK[:, mask_IJK], dim=0)[None], self.known)[0]


def predict(
    network: SegmentationNetwork,
    image_IJK: Tensor,
    window: Window | None = None,
    known: Sequence[int] | None = None,
) -> Prediction:
    """What a network says of a volume in evaluation mode.

    Args:
        window: as for `predict_logits`.
        known: as in `Prediction`.
    """
    network.eval()
    return Prediction(predict_logits(network, image_IJK[None, None], window)[0], known)


def predict_labels(
    network: SegmentationNetwork,
    image_IJK: Tensor,
    window: Window | None = None,
    known: Sequence[int] | None = None,
) -> Tensor:
    """The most probable class of each voxel, uint8 (I, J, K), in evaluation mode; arguments as for `predict`."""
    return predict(network, image_IJK, window, known).labels_IJK


def soft_label(
    network: SegmentationNetwork,
    image_IJK: Tensor,
    window: Window | None = None,
    *,
    num_passes: int,
    input_noise: float,
    rng: torch.Generator,
) -> Tensor:
    """Mean over stochastic passes of the class probabilities (L, I, J, K).

    Args:
        window: as for `predict_logits`.
        num_passes: passes with dropout on, normalisation in evaluation mode, and fresh noise N(0, input_noise^2) clipped at
            two standard deviations on the input; 0: one clean pass.
        rng: seeds noise and dropout masks, in a fork of torch's global state, because its dropout takes no generator.
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


def _pieces(network: SegmentationNetwork, volumes_BCIJK: Tensor, window: Window | None) -> tuple[Tensor, list[int]]:
    """The volumes, padded where they need it, and the edges of a window in multiples of the network's stride."""
    if window is None:
        whole = pad_to_multiple(volumes_BCIJK, network.total_stride)
        return whole, list(whole.shape[2:])
    piece = [max(edge - edge % stride, stride) for edge, stride in zip(window, network.total_stride, strict=True)]
    return pad_to_patch(volumes_BCIJK, piece), piece


def _at_least_two(batch: Tensor) -> Tensor:
    return batch if len(batch) > 1 else batch.expand(2, -1, -1, -1, -1)


def _device(network: SegmentationNetwork) -> torch.device:
    return next(network.parameters()).device
