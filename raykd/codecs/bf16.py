"""The upper half of a float32 number (bfloat16)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from raykd.codecs._base import Codec, CodecSettings, Coded, Shapes, Tensors
from raykd.scenario.registry import CODECS


@CODECS.register("bf16")
class Bf16(Codec):
    """Half the bytes; every number within 2^-8 of itself, however small or large."""

    class Settings(CodecSettings):
        name: Literal["bf16"]
        is_last = True
        bytes_each = 2

    def encode(self, values: Tensors, memory: Mapping[str, Tensor], rng: torch.Generator) -> Coded:
        return Coded({name: value.bfloat16() for name, value in values.items()})

    def decode(self, values: Tensors, parts: Mapping[str, Tensor], shapes: Shapes) -> Tensors:
        return {name: value.float() for name, value in values.items()}
