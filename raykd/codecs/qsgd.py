"""Few levels, drawn without bias. Alistarh et al., NeurIPS 2017. https://arxiv.org/abs/1610.02132"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.codecs._base import Codec, CodecSettings, Coded, Shapes, Tensors, joined, parted
from raykd.numerics.compression.bits import pack_bits, unpack_bits
from raykd.numerics.compression.quantisation import from_levels, to_levels
from raykd.scenario.registry import CODECS


@CODECS.register("qsgd")
class Qsgd(Codec):
    """Each number as one of 2 s + 1 levels of the norm of its bucket, right in the mean over many draws."""

    class Settings(CodecSettings):
        name: Literal["qsgd"]
        codes_changes = True
        is_last = True
        num_levels: Annotated[int, Field(ge=1, le=32767)] = 127
        """Above zero, and as many below [s]: 1 takes 2 bits a number, 7 take 4, 127 take 8. The spread of what comes out is
        about norm / (2 s), and the norm of a bucket of 512 some 20 times its typical number: few levels are coarse."""
        bucket: Annotated[int, Field(ge=8, le=2**20)] = 512
        """Consecutive numbers that share a norm [d]."""

    def encode(self, values: Tensors, memory: Mapping[str, Tensor], rng: torch.Generator) -> Coded:
        settings = self.settings
        levels, norms = to_levels(joined(values), settings.num_levels, settings.bucket, rng)
        packed = pack_bits((levels + settings.num_levels).numpy(), self._width())
        return Coded({}, {"levels": torch.from_numpy(packed), "norms": norms})

    def decode(self, values: Tensors, parts: Mapping[str, Tensor], shapes: Shapes) -> Tensors:
        settings, count = self.settings, sum(torch.Size(shape).numel() for shape in shapes.values())
        levels = torch.from_numpy(unpack_bits(parts["levels"].numpy(), self._width(), count)) - settings.num_levels
        return parted(from_levels(levels, parts["norms"], settings.num_levels, settings.bucket), shapes)

    def shapes(self, shapes: Shapes) -> Shapes:
        return {}

    def _width(self) -> int:
        return int(2 * self.settings.num_levels).bit_length()
