"""Half precision (IEEE 754 binary16), scaled by the largest magnitude of a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from raykd.codecs._base import Codec, CodecSettings, Coded, Shapes, Tensors
from raykd.numerics.compression.quantisation import from_half, to_half
from raykd.scenario.registry import CODECS


@CODECS.register("fp16")
class Fp16(Codec):
    """Half the bytes; every number within 2^-11 of itself, or 2^-25 of the largest of its tensor."""

    class Settings(CodecSettings):
        name: Literal["fp16"]
        is_last = True
        bytes_each = 2

    def encode(self, values: Tensors, memory: Mapping[str, Tensor], rng: torch.Generator) -> Coded:
        coded = {name: to_half(value) for name, value in values.items()}
        scales = torch.stack([scale for _, scale in coded.values()]) if coded else torch.zeros(0)
        return Coded({name: value for name, (value, _) in coded.items()}, {"scales": scales})

    def decode(self, values: Tensors, parts: Mapping[str, Tensor], shapes: Shapes) -> Tensors:
        scales = zip(values.items(), parts["scales"], strict=True)
        return {name: from_half(value, scale) for (name, value), scale in scales}
