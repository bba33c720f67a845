"""The words of a scenario for how models are fitted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raykd.scenario.fields import NetworkBlock, NonNegativeFloat, PositiveFloat, PositiveInt, Probability, Shape, Strict


class Augmentation(Strict):
    """What is drawn anew for every training patch. All zeros: patches as they are. Spatial draws move image, labels and cached
    teacher maps together; intensity draws touch the image alone."""

    flip: tuple[Probability, Probability, Probability] = (0.5, 0.0, 0.0)
    """Probability of mirroring along I, J, K. A right knee mirrored along I is a left knee."""
    spacing_factor: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    """Largest coarsening along I, J, K: the patch is averaged to a spacing drawn from 1 to this many times the case's own."""
    contrast: Probability = 0.0
    """Probability that intensities pass through a random, non-monotone map (and a labelled class through its own)."""
    gamma: NonNegativeFloat = 0.0
    """Half width of a uniform draw of log(gamma)."""
    bias_field: NonNegativeFloat = 0.0
    """Standard deviation of the coefficients of a smooth multiplicative field, in log intensity."""
    blur: NonNegativeFloat = 0.0
    """Largest standard deviation of a Gaussian blur, in voxels."""
    noise: NonNegativeFloat = 0.0
    """Largest standard deviation of additive Gaussian noise, in units of the image's own standard deviation."""


class Training(Strict):
    """How a model is fitted locally."""

    num_local_steps: PositiveInt = 16
    """Optimiser steps of one local update."""
    batch_size: PositiveInt = 2
    """Labelled patches in a step; 1 is avoided because PyTorch sends it to a slow convolution."""
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: PositiveFloat = 2.0e-3
    schedule: Literal["constant", "cosine", "poly"] = "constant"
    """How the learning rate falls over all steps of the federation; `poly` has power 0.9."""
    weight_decay: NonNegativeFloat = 0.0
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Of SGD; Adam keeps its betas."""
    clip_norm: NonNegativeFloat = 0.0
    """Largest gradient norm; 0 clips nothing."""
    patch_shape: Shape = (16, 64, 64)
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16`: convolutions in bfloat16 (autocast), parameters and sums in fp32; half the memory of activations."""
    memory_format: Literal["contiguous", "channels_last_3d"] = "contiguous"
    """How a network's tensors lie; channels_last_3d is faster for 5 x 5 x 5 convolutions on CPUs."""
    compile: bool = False
    """Whether the network is compiled by torch.compile, where a loss asks it for logits alone: a minute or so a worker, once."""
    foreground: Probability = 0.75
    """Share of labelled patches that hold a labelled voxel of a class drawn uniformly, at a uniform place."""
    augmentation: Augmentation = Augmentation()


class Student(Strict):
    """The model that every client trains."""

    network: NetworkBlock
