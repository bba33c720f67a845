"""Eight bits a number, one scale an output channel. Krishnamoorthi, 2018. https://arxiv.org/abs/1806.08342"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from raykd.codecs._base import Codec, CodecSettings, Coded, Shapes, Tensors, joined
from raykd.numerics.compression.quantisation import from_int8, to_int8
from raykd.scenario.registry import CODECS


@CODECS.register("int8")
class Int8(Codec):
    """A quarter of the bytes; every number within half a step, max / 127 of its channel (the first axis of its tensor)."""

    class Settings(CodecSettings):
        name: Literal["int8"]
        is_last = True
        bytes_each = 1

    def encode(self, values: Tensors, memory: Mapping[str, Tensor], rng: torch.Generator) -> Coded:
        coded = {name: to_int8(value) for name, value in values.items()}
        scales = joined({name: scale_C for name, (_, scale_C) in coded.items()})
        return Coded({name: value for name, (value, _) in coded.items()}, {"scales": scales})

    def decode(self, values: Tensors, parts: Mapping[str, Tensor], shapes: Shapes) -> Tensors:
        counts = [value.shape[0] if value.ndim > 1 else 1 for value in values.values()]
        scales = zip(values.items(), parts["scales"].split(counts), strict=True)
        return {name: from_int8(value, scale_C) for (name, value), scale_C in scales}
