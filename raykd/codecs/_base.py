"""What a codec promises. It sees float32 tensors by name and gives tensors that are cheaper to send, and undoes that.

Codecs keep nothing on `self` after `__init__`: what one remembers at a sender from round to round goes in and out as `memory`.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from raykd.scenario.fields import Strict

Tensors = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


class CodecSettings(Strict):
    """What every codec can be told, and what is known of it before anything is coded."""

    name: str
    codes_changes: ClassVar[bool] = False
    """Whether it makes sense only of a change against what the receiver holds: most of it small, and a loss made good later."""
    is_first: ClassVar[bool] = False
    """Whether it works on whole tensors, so that no other may have been at them."""
    is_last: ClassVar[bool] = False
    """Whether what it gives are no numbers that another codec could go on with."""
    bytes_each: ClassVar[int] = 0
    """Bytes of a number it gives; numbers that have no more than these are left as they are. 0: fewer than one."""

    @property
    def feeds_back(self) -> bool:
        """Whether what is lost in a round is added to what is sent in the next."""
        return False


@dataclass(frozen=True)
class Coded:
    """What a codec made of tensors.

    Attributes:
        values: numbers that the next codec of the chain may go on with, or that are sent.
        parts: what is sent beside them.
        memory: what the sender keeps for the next time.
    """

    values: Tensors
    parts: Tensors = field(default_factory=dict)
    memory: Tensors = field(default_factory=dict)


class Codec(ABC):
    """A way to write tensors. Subclasses are registered with `CODECS.register(name)`.

    Args:
        settings: the validated block.
    """

    Settings: ClassVar[type[CodecSettings]]

    def __init__(self, settings: Any):
        self.settings = settings

    @classmethod
    def facts(cls) -> dict[str, Any]:
        """What a list of codecs tells beside the settings."""
        return {
            "source": (sys.modules[cls.__module__].__doc__ or "").splitlines()[0],
            "codes": "changes" if cls.Settings.codes_changes else "changes or values",
        }

    def shapes(self, shapes: Shapes) -> Shapes:
        """The shapes of `Coded.values`, from those of what is coded: they may not depend on the numbers."""
        return shapes

    @abstractmethod
    def encode(self, values: Tensors, memory: Mapping[str, Tensor], rng: torch.Generator) -> Coded:
        """Codes float32 tensors.

        Args:
            values: by name, in the order of their names.
            memory: of the last time; empty at first.
            rng: at an address of this sender's, kind and round.
        """

    @abstractmethod
    def decode(self, values: Tensors, parts: Mapping[str, Tensor], shapes: Shapes) -> Tensors:
        """The float32 tensors again, of these shapes."""


def joined(tensors: Mapping[str, Tensor]) -> Tensor:
    """All numbers in one vector, in the order given."""
    return torch.cat([value.flatten() for value in tensors.values()]) if tensors else torch.zeros(0)


def parted(vector: Tensor, shapes: Shapes) -> Tensors:
    """The tensors that were joined."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    return {name: part.reshape(shapes[name]) for name, part in zip(shapes, vector.split(sizes), strict=True)}
