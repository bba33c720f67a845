"""Sparse ternary compression. Sattler et al., IEEE TNNLS 2020. https://arxiv.org/abs/1903.02891"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from raykd.codecs._base import Codec, Coded, Shapes, Tensors, joined, parted
from raykd.codecs.top_k import SparseSettings, read, total, written
from raykd.numerics.compression.bits import pack_bits, unpack_bits
from raykd.numerics.compression.sparsity import largest, num_kept, scatter, ternary
from raykd.scenario.registry import CODECS


@CODECS.register("stc")
class Stc(Codec):
    """The places and signs of the numbers of largest magnitude, and one magnitude for all: their mean."""

    class Settings(SparseSettings):
        name: Literal["stc"]
        is_last = True

    def shapes(self, shapes: Shapes) -> Shapes:
        return {}

    def encode(self, values: Tensors, memory: Mapping[str, Tensor], rng: torch.Generator) -> Coded:
        vector = joined(values)
        index = largest(vector, num_kept(self.settings.share, len(vector)))
        is_positive, magnitude = ternary(vector[index])
        signs = torch.from_numpy(pack_bits(is_positive.long().numpy(), 1))
        indices = written(index, len(vector), self.settings)
        return Coded({}, {"indices": indices, "signs": signs, "magnitude": magnitude.reshape(1)})

    def decode(self, values: Tensors, parts: Mapping[str, Tensor], shapes: Shapes) -> Tensors:
        size = total(shapes)
        count = num_kept(self.settings.share, size)
        signs = torch.from_numpy(unpack_bits(parts["signs"].numpy(), 1, count)).float() * 2.0 - 1.0
        index = read(parts["indices"], count, self.settings)
        return parted(scatter(signs * parts["magnitude"], index, size), shapes)
