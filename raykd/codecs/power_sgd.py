"""Low rank by warm power iterations. Vogels et al., NeurIPS 2019. https://arxiv.org/abs/1905.13727"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from raykd.codecs._base import Codec, CodecSettings, Coded, Shapes, Tensors
from raykd.numerics.compression.power_iteration import factors, is_start, is_worth_factoring
from raykd.scenario.fields import PositiveInt
from raykd.scenario.registry import CODECS

P, Q = "#p", "#q"


@CODECS.register("power_sgd")
class PowerSgd(Codec):
    """Every tensor, as a matrix of its first axis by all others, as the product of two narrow ones; what is left waits."""

    class Settings(CodecSettings):
        name: Literal["power_sgd"]
        codes_changes = True
        is_first = True
        rank: PositiveInt = 2
        """Columns of the factors [r]; a tensor that they would not make smaller is sent whole."""
        num_iterations: PositiveInt = 1
        """Of the power method a round; the source's code takes one, since each goes on from the last round's."""
        error_feedback: bool = True
        """Whether what was not sent is kept at the client and added to its next change."""

        @property
        def feeds_back(self) -> bool:
            return self.error_feedback

    def shapes(self, shapes: Shapes) -> Shapes:
        found: Shapes = {}
        for name, shape in shapes.items():
            rows, columns = _matrix(shape)
            if is_worth_factoring(rows, columns, self.settings.rank):
                found |= {name + P: (rows, self.settings.rank), name + Q: (columns, self.settings.rank)}
            else:
                found[name] = shape
        return found

    def encode(self, values: Tensors, memory: Mapping[str, Tensor], rng: torch.Generator) -> Coded:
        coded: Tensors = {}
        for name, value in values.items():
            rows, columns = _matrix(tuple(value.shape))
            if not is_worth_factoring(rows, columns, self.settings.rank):
                coded[name] = value
                continue
            start_NR = memory.get(name)
            if start_NR is None or start_NR.shape != (columns, self.settings.rank) or not is_start(start_NR):
                start_NR = torch.randn((columns, self.settings.rank), generator=rng)
            coded[name + P], coded[name + Q] = factors(value.reshape(rows, columns), start_NR, self.settings.num_iterations)
        return Coded(coded, memory={name.removesuffix(Q): value for name, value in coded.items() if name.endswith(Q)})

    def decode(self, values: Tensors, parts: Mapping[str, Tensor], shapes: Shapes) -> Tensors:
        return {
            name: values[name] if name in values else (values[name + P] @ values[name + Q].T).reshape(shape)
            for name, shape in shapes.items()
        }


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], torch.Size(shape[1:]).numel()) if len(shape) > 1 else (1, torch.Size(shape).numel())
