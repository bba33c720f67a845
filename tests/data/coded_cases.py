"""Cases whose voxels carry their own coordinates, so that whatever is drawn of them tells where it comes from."""

from __future__ import annotations

import torch
from torch import Tensor

from raykd.data.patches import Knowledge, TrainingCase
from raykd.scenario.training import Augmentation

SIZE = (10, 12, 13)
PLAIN = Augmentation(flip=(0.0, 0.0, 0.0))
ALL_FLIPS = Augmentation(flip=(0.5, 0.5, 0.5))
STRIDES = {"encoder_0": (1, 2, 2), "bottleneck": (2, 4, 4)}


def coordinates(size: tuple[int, int, int] = SIZE) -> Tensor:
    """(3, I, J, K): the index of each voxel."""
    return torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"))


def code_of(at: Tensor) -> Tensor:
    """One whole number below 2048 a voxel, exact in half precision."""
    return (at[0] * SIZE[1] + at[1]) * SIZE[2] + at[2]


def decoded(code: Tensor) -> Tensor:
    code = code.round().long()
    return torch.stack([code // (SIZE[1] * SIZE[2]), code // SIZE[2] % SIZE[1], code % SIZE[2]])


def label_of(at: Tensor) -> Tensor:
    return ((at[0] + 2 * at[1] + 3 * at[2]) % 5).to(torch.uint8)


def soft_label_of(at: Tensor) -> Tensor:
    """Three classes that carry i, j, k as sixty-fourths, and a background that makes up the rest."""
    foreground = at.float() / 64
    return torch.cat([1 - foreground.sum(dim=0, keepdim=True), foreground])


def knowledge() -> Knowledge:
    features = {}
    for layer, stride in STRIDES.items():
        # The network pads a volume to a multiple of its stride.
        features[layer] = coordinates(tuple(-(-n // s) for n, s in zip(SIZE, stride, strict=True))).half()  # type: ignore[arg-type]
    at = coordinates()
    return Knowledge(soft_label_of(at).half(), code_of(at).half(), features, STRIDES)


def coded_case(*, label: bool = True, knows: bool = True) -> TrainingCase:
    at = coordinates()
    labels = label_of(at) if label else None
    foreground = {} if labels is None else {c: (labels.flatten() == c).nonzero()[:, 0] for c in range(1, 5)}
    return TrainingCase("c", code_of(at).float(), labels, code_of(at).float().flatten(), foreground, knowledge() if knows else None)


def flat_case(value: float, *, label: bool, case_id: str = "c") -> TrainingCase:
    """A case of a single intensity, which names it in any batch."""
    image = torch.full((4, 4, 4), value)
    return TrainingCase(case_id, image, torch.ones((4, 4, 4), dtype=torch.uint8) if label else None, image.flatten(), {})
