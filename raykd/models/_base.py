"""What a network promises, and how one is built from its block of the scenario."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raykd.numerics.rng import seeded_layers
from raykd.scenario.errors import RaykdError
from raykd.scenario.fields import Strict
from raykd.scenario.registry import NETWORKS

Stride = tuple[Literal[1, 2], Literal[1, 2], Literal[1, 2]]
"""Down-sampling along I, J, K from one level to the next."""
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
_NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
"""The base class is that of batch and of instance normalisation."""


class SegmentationNetwork(nn.Module, ABC):
    """A network that gives logits and, by name, the feature maps on the way to them.

    Args:
        settings: the validated block of the scenario.
        num_classes: L, with background.

    Attributes:
        layers: strides (I, J, K) of every named feature map, from the input's side to the output's. Every network has
            `encoder_1` ... `encoder_n`, `bottleneck` and `decoder_m` ... `decoder_1`: 1 is the finest level, `encoder_l` and
            `decoder_l` lie on one grid, and `decoder_1` is the last map before the head.
    """

    Settings: ClassVar[type[Strict]]
    layers: dict[str, tuple[int, int, int]]

    def __init__(self, settings: Any, num_classes: int):
        super().__init__()
        self.settings = settings
        self.num_classes = num_classes

    @abstractmethod
    def forward(self, image_BCIJK: Tensor) -> Tensor:
        """Logits (B, L, I, J, K) for a grid whose edges are multiples of `total_stride`."""

    @abstractmethod
    def forward_with_features(self, image_BCIJK: Tensor, layers: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and the feature maps of the named layers."""

    @property
    def head(self) -> nn.Module:
        """The output block: what stands between `decoder_1` and the logits."""
        raise NotImplementedError(f"{type(self).__name__} must say which of its modules is its head")

    @property
    def total_stride(self) -> tuple[int, int, int]:
        """The multiple that every edge of an input must be."""
        i, j, k = (max(stride[axis] for stride in self.layers.values()) for axis in range(3))
        return i, j, k


class TappedNetwork(SegmentationNetwork):
    """A network made of a module whose parts' outputs are its named feature maps.

    A subclass calls `attach` at the end of its `__init__`.
    """

    network: nn.Module

    def attach(
        self,
        network: nn.Module,
        head: nn.Module,
        *,
        encoders: Sequence[nn.Module],
        bottleneck: nn.Module,
        decoders: Sequence[nn.Module],
        strides: Sequence[tuple[int, int, int]],
    ) -> None:
        """Takes the module, and names its parts.

        Args:
            network: gives logits.
            head: its part that does.
            encoders, decoders: parts whose outputs are feature maps, the finest first.
            bottleneck: the part whose output is the coarsest map.
            strides: of the levels from the finest to the bottleneck's.
        """
        self.network = network
        # Within plain containers, so that parameters are not registered twice.
        self._head = (head,)
        self._taps = {
            **{f"encoder_{level}": part for level, part in enumerate(encoders, 1)},
            "bottleneck": bottleneck,
            **{f"decoder_{level}": decoders[level - 1] for level in range(len(decoders), 0, -1)},
        }
        at = {str(level): stride for level, stride in enumerate(strides, 1)}
        self.layers = {name: at.get(name.partition("_")[2], strides[-1]) for name in self._taps}

    @property
    def head(self) -> nn.Module:
        return self._head[0]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """By layer, the part of the module whose output is that feature map."""
        return dict(self._taps)

    def forward(self, image_BCIJK: Tensor) -> Tensor:
        self._check_grid(image_BCIJK.shape[2:])
        logits: Tensor = self.network(image_BCIJK)
        return logits

    def forward_with_features(self, image_BCIJK: Tensor, layers: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        self._check_grid(image_BCIJK.shape[2:])
        features: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            return lambda module, args, output: features.__setitem__(name, output)

        handles = [self._taps[name].register_forward_hook(keep(name)) for name in layers]
        try:
            return self.network(image_BCIJK), features
        finally:
            for handle in handles:
                handle.remove()

    def _check_grid(self, shape: Sequence[int]) -> None:
        multiple = self.total_stride
        if any(n % m for n, m in zip(shape, multiple, strict=True)):
            raise RaykdError(
                f"an input of network {self.settings.name} must have edges that are multiples of {multiple}, got {tuple(shape)}; "
                "change the patch_shape, or the network's strides where it has them"
            )
        if getattr(self.settings, "norm", "") == "instance" and tuple(shape) == multiple:
            raise RaykdError(
                f"norm: instance must have more than one voxel at the bottleneck of network {self.settings.name}, got an input of "
                f"{multiple}, which leaves one; choose a larger patch_shape or norm: group"
            )


def level_strides(strides: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The strides of the levels of a network, (1, 1, 1) first, given those from each level to the next."""
    levels = [(1, 1, 1)]
    for step in strides:
        i, j, k = (a * b for a, b in zip(levels[-1], step, strict=True))
        levels.append((i, j, k))
    return levels


def build_network(settings: Any, num_classes: int, seed: int) -> SegmentationNetwork:
    """A network with initial parameters that depend on `seed` alone.

    Args:
        settings: a validated network block.
        num_classes: L, with background.
        seed: of the initial parameters.
    """
    with seeded_layers(torch.Generator().manual_seed(seed)):
        network: SegmentationNetwork = NETWORKS.get(settings.name)(settings, num_classes)
    return network


def norm_keys(network: nn.Module) -> frozenset[str]:
    """The state-dict keys of parameters and buffers of normalisation layers: what FedBN keeps at a site."""
    return _keys_of(network, lambda module: isinstance(module, _NORMALISATIONS))


def head_keys(network: SegmentationNetwork) -> frozenset[str]:
    """The state-dict keys of parameters and buffers of the output block: what FedRep keeps at a site."""
    head = network.head
    return _keys_of(network, lambda module: module is head)


def head_channels(network: SegmentationNetwork) -> int:
    """Channels of what enters the output block, skip connections included."""
    entered: list[Tensor] = []
    handle = network.head.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    i, j, k = network.total_stride
    try:
        with torch.no_grad():
            network.eval()(torch.zeros((2, 1, i, j, 2 * k)))  # a bottleneck of two voxels: a normalisation of one has no spread
    finally:
        handle.remove()
    return int(entered[0].shape[1])


def _keys_of(network: nn.Module, is_wanted: Callable[[nn.Module], bool]) -> frozenset[str]:
    wanted = [(name, module) for name, module in network.named_modules() if is_wanted(module)]
    return frozenset(f"{name}.{key}" for name, module in wanted for key in module.state_dict())


def draws_masks(module: nn.Module) -> bool:
    """Whether a module has dropout that is not switched off by a rate of 0."""
    return any(isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 for part in module.modules())


def set_dropout_only_training(network: nn.Module) -> None:
    """Evaluation mode for all but the dropout layers: Monte-Carlo dropout without touching any normalisation."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.train()
