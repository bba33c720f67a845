"""From cases to training batches: normalisation, patches, augmentation. Image, labels and cached teacher maps move together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from raykd.data.augmentation import augment_intensity
from raykd.data.case import LABEL_UNKNOWN, Case
from raykd.numerics.intensity import clip_limits, ranked_sample, standardised
from raykd.numerics.label_map import best_class
from raykd.numerics.local_sgd import Batch
from raykd.numerics.rng import integer, uniform
from raykd.scenario.training import Augmentation

NUM_SAMPLED_INTENSITIES = 4096


@dataclass(frozen=True)
class Knowledge:
    """What a teacher says of a case, computed once for each of its versions.

    Attributes:
        soft_label_LIJK: probabilities on the case's grid, half precision.
        entropy_IJK: predictive entropy in nats, half precision.
        features: maps by layer, (F, i, j, k), half precision, on grids coarser by `strides[layer]`.
        strides: voxels of the image in a voxel of the map.
    """

    soft_label_LIJK: Tensor
    entropy_IJK: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    strides: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingCase:
    """A case ready to draw patches from.

    Attributes:
        image_IJK: z-scored intensities, float32.
        label_IJK: uint8, or None where the site has no annotation.
        sample: intensities at evenly spaced ranks, from the darkest voxel to the brightest.
        foreground: by class, the flat indices of its voxels: those outlined, or else those the teacher sees.
        knowledge: the teacher's, where the method distils.
        spacing_mm: voxel edges along I, J, K.
        annotated: the foreground classes outlined in it; None: all.
    """

    case_id: str
    image_IJK: Tensor
    label_IJK: Tensor | None
    sample: Tensor
    foreground: Mapping[int, Tensor]
    knowledge: Knowledge | None = None
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    annotated: tuple[int, ...] | None = None

    def with_knowledge(self, knowledge: Knowledge) -> TrainingCase:
        """The same case with what a teacher says of it. Where nobody outlined the classes, patches are placed by the teacher's."""
        if self.label_IJK is not None:
            return replace(self, knowledge=knowledge)
        return replace(self, knowledge=knowledge, foreground=class_voxels(best_class(knowledge.soft_label_LIJK)))


def class_voxels(label_IJK: Tensor) -> dict[int, Tensor]:
    """By foreground class, the flat indices of its voxels."""
    flat = label_IJK.flatten()
    return {c: (flat == c).nonzero()[:, 0] for c in flat.unique().tolist() if c not in (0, LABEL_UNKNOWN)}


def normalise(image_CIJK: Tensor) -> Tensor:
    """Intensities with mean 0 and standard deviation 1 over the volume, the brightest and darkest half per cent clipped first:
    (I, J, K). The percentiles are those of all voxels; padding does not count (`clip_limits`).
    """
    image = image_CIJK[0]
    return standardised(image, *clip_limits(image, 0.005, 0.995))


def training_case(case: Case) -> TrainingCase:
    """A case made ready for training; its label is kept only where the site has it."""
    image = normalise(case.image_CIJK)
    foreground = {} if case.label_IJK is None else class_voxels(case.label_IJK)
    sample = ranked_sample(image, NUM_SAMPLED_INTENSITIES)
    return TrainingCase(
        case.case_id, image, case.label_IJK, sample, foreground, spacing_mm=case.spacing_mm, annotated=case.outlined
    )


@dataclass(frozen=True)
class Patch:
    """One training patch with everything that belongs to its voxels; maps are (channels, i, j, k)."""

    image_IJK: Tensor
    label_IJK: Tensor | None
    maps: dict[str, Tensor]
    spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)
    annotated: tuple[int, ...] | None = None


def draw_patch(
    case: TrainingCase,
    shape: tuple[int, int, int],
    augmentation: Augmentation,
    rng: torch.Generator,
    *,
    foreground: float = 0.0,
) -> Patch:
    """A random patch of a case, augmented.

    Args:
        case: padded where it is smaller than the patch.
        shape: of the patch, in voxels.
        augmentation: what to draw; a case with cached feature maps keeps its spacing, because they cannot be averaged to another.
        rng: source of every draw.
        foreground: probability that the patch holds a given voxel of a class drawn uniformly, at a uniform place.
    """
    can_coarsen = case.knowledge is None or not case.knowledge.features
    factor = [math.exp(uniform(rng, 0.0, math.log(f))) if can_coarsen and f > 1 else 1.0 for f in augmentation.spacing_factor]
    extent = tuple(min(max(n, round(n * f)), max(n, size)) for n, f, size in zip(shape, factor, case.image_IJK.shape, strict=True))
    start = _draw_start(case, extent, rng, foreground)
    patch = _crop(case, start, extent)
    if extent != tuple(shape):
        coarsened = tuple(mm * e / n for mm, e, n in zip(case.spacing_mm, extent, shape, strict=True))
        patch = replace(_average_to(patch, shape), spacing_mm=coarsened)
    axes = [axis for axis, probability in enumerate(augmentation.flip) if probability > 0 and uniform(rng) < probability]
    if axes:
        patch = _flip(patch, axes)
    return replace(patch, image_IJK=augment_intensity(patch.image_IJK, patch.label_IJK, case.sample, augmentation, rng))


def _draw_start(case: TrainingCase, extent: Sequence[int], rng: torch.Generator, foreground: float) -> list[int]:
    """First voxel of the patch: a multiple of the coarsest cached map's stride along each axis, so that maps crop exactly, and such
    that the whole case is within reach."""
    size = case.image_IJK.shape
    strides = case.knowledge.strides.values() if case.knowledge else ()
    align = [max((stride[axis] for stride in strides), default=1) for axis in range(3)]
    last = [-(-max(n - e, 0) // a) for n, e, a in zip(size, extent, align, strict=True)]
    if not (case.foreground and foreground > 0 and uniform(rng) < foreground):
        return [integer(rng, count + 1) * a for count, a in zip(last, align, strict=True)]
    voxels = list(case.foreground.values())[integer(rng, len(case.foreground))]
    centre = torch.unravel_index(voxels[integer(rng, len(voxels))], size)
    start = []
    for c, e, a, count in zip((int(c) for c in centre), extent, align, last, strict=True):
        first = max(-(-(c - e + 1) // a), 0)
        start.append(min(first + integer(rng, max(min(c // a, count) - first, 0) + 1), count) * a)
    return start


def _window(tensor: Tensor, start: Sequence[int], extent: Sequence[int], fill: float) -> Tensor:
    """The window of the last three axes, filled where it leaves the tensor."""
    i, j, k = (slice(s, min(s + e, n)) for s, e, n in zip(start, extent, tensor.shape[-3:], strict=True))
    window = tensor[..., i, j, k]
    missing = [e - n for e, n in zip(extent, window.shape[-3:], strict=True)]
    if any(missing):
        window = F.pad(window, [0, missing[2], 0, missing[1], 0, missing[0]], value=fill)
    return window


def _crop(case: TrainingCase, start: Sequence[int], extent: Sequence[int]) -> Patch:
    image = _window(case.image_IJK, start, extent, float(case.sample.min()))
    label = None if case.label_IJK is None else _window(case.label_IJK, start, extent, 0)
    maps: dict[str, Tensor] = {}
    if case.knowledge is not None:
        soft = _window(case.knowledge.soft_label_LIJK, start, extent, 0.0).float()
        soft[0] += 1.0 - soft.sum(dim=0)
        maps["soft_label"] = soft
        maps["entropy"] = _window(case.knowledge.entropy_IJK[None], start, extent, 0.0).float()
        for layer, feature in case.knowledge.features.items():
            stride = case.knowledge.strides[layer]
            at = [s // a for s, a in zip(start, stride, strict=True)]
            size = [e // a for e, a in zip(extent, stride, strict=True)]
            maps[f"feature/{layer}"] = _window(feature, at, size, 0.0).float()
    return Patch(image, label, maps, case.spacing_mm, case.annotated)


def _average_to(patch: Patch, shape: tuple[int, int, int]) -> Patch:
    """The patch at a coarser spacing: intensities and soft labels averaged, labels by the class that covers most."""
    image = F.adaptive_avg_pool3d(patch.image_IJK[None], shape)[0]
    label = None
    if patch.label_IJK is not None:
        values = patch.label_IJK.unique()
        coverage = F.adaptive_avg_pool3d((patch.label_IJK[None] == values.view(-1, 1, 1, 1)).float(), shape)
        label = values[best_class(coverage).long()]
    maps = {name: F.adaptive_avg_pool3d(value, shape) for name, value in patch.maps.items() if not name.startswith("feature/")}
    return replace(patch, image_IJK=image, label_IJK=label, maps=maps)


def _flip(patch: Patch, axes: list[int]) -> Patch:
    from_end = [axis - 3 for axis in axes]
    label = None if patch.label_IJK is None else patch.label_IJK.flip(from_end)
    maps = {name: value.flip(from_end) for name, value in patch.maps.items()}
    return replace(patch, image_IJK=patch.image_IJK.flip(from_end), label_IJK=label, maps=maps)


def batches(
    labelled: Sequence[TrainingCase],
    unlabelled: Sequence[TrainingCase],
    *,
    shape: tuple[int, int, int],
    augmentation: Augmentation,
    num_steps: int,
    num_labelled: int,
    num_unlabelled: int,
    foreground: float,
    rng: torch.Generator,
) -> Iterator[Batch]:
    """One batch a step: `num_labelled` patches of labelled cases, then `num_unlabelled` of unlabelled ones, cases in shuffled
    passes.

    Where there is no labelled (or unlabelled) case, the batch holds none; a batch of a single patch is avoided by drawing two.
    """
    labelled_order, unlabelled_order = _endless(labelled, rng), _endless(unlabelled, rng)
    num_labelled = num_labelled if labelled else 0
    num_unlabelled = num_unlabelled if unlabelled else 0
    if num_labelled + num_unlabelled == 1:
        num_labelled, num_unlabelled = 2 * num_labelled, 2 * num_unlabelled
    for _ in range(num_steps):
        drawn = [next(labelled_order) for _ in range(num_labelled)] + [next(unlabelled_order) for _ in range(num_unlabelled)]
        patches = [draw_patch(case, shape, augmentation, rng, foreground=foreground) for case in drawn]
        yield collate(patches, num_labelled)


def _endless(cases: Sequence[TrainingCase], rng: torch.Generator) -> Iterator[TrainingCase]:
    while cases:
        for index in torch.randperm(len(cases), generator=rng).tolist():
            yield cases[index]


def collate(patches: Sequence[Patch], num_labelled: int) -> Batch:
    """Patches as a batch, those with a label first."""
    image = torch.stack([patch.image_IJK for patch in patches])[:, None]
    labels = [patch.label_IJK.long() for patch in patches[:num_labelled] if patch.label_IJK is not None]
    label = torch.stack(labels) if labels else torch.zeros((0, *image.shape[2:]), dtype=torch.long)
    shared = set.intersection(*(set(patch.maps) for patch in patches))
    maps = {name: torch.stack([patch.maps[name] for patch in patches]) for name in shared}
    return Batch(
        image_BCIJK=image,
        label_BIJK=label,
        num_labelled=num_labelled,
        soft_label_BLIJK=maps.get("soft_label"),
        entropy_BIJK=maps["entropy"][:, 0] if "entropy" in maps else None,
        features={name.removeprefix("feature/"): value for name, value in sorted(maps.items()) if name.startswith("feature/")},
        spacing_mm_B3=torch.tensor([patch.spacing_mm for patch in patches]),
        annotated=tuple(patch.annotated for patch in patches[:num_labelled]),
    )
