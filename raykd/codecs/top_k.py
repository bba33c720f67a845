"""The largest changes. Stich et al., NeurIPS 2018. https://arxiv.org/abs/1809.07599"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.codecs._base import Codec, CodecSettings, Coded, Shapes, Tensors, joined, parted
from raykd.numerics.compression.bits import rice_decode, rice_encode, rice_width
from raykd.numerics.compression.sparsity import largest, num_kept, scatter
from raykd.scenario.registry import CODECS


class SparseSettings(CodecSettings):
    """Of what sends a few numbers of all."""

    codes_changes = True
    is_first = True
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01
    """Of all numbers of the payload, how many are sent: those of largest magnitude, whatever their layer [k]. With few clients and
    rounds, 0.01 to 0.05."""
    error_feedback: bool = True
    """Whether what was not sent is kept at the client and added to its next change, so that nothing is lost for good."""
    indices: Literal["golomb", "int32"] = "golomb"
    """How their places are written: gaps in Golomb-Rice codes, 8.1 bits each at a share of 0.01 and 8.6 with the filling that makes
    a message's length independent of its contents; or 32 bits each."""

    @property
    def feeds_back(self) -> bool:
        return self.error_feedback


@CODECS.register("top_k")
class TopK(Codec):
    """The numbers of largest magnitude and their places; the rest waits at the sender."""

    class Settings(SparseSettings):
        name: Literal["top_k"]

    def shapes(self, shapes: Shapes) -> Shapes:
        return {"largest": (num_kept(self.settings.share, total(shapes)),)}

    def encode(self, values: Tensors, memory: Mapping[str, Tensor], rng: torch.Generator) -> Coded:
        vector = joined(values)
        index = largest(vector, num_kept(self.settings.share, len(vector)))
        return Coded({"largest": vector[index]}, {"indices": written(index, len(vector), self.settings)})

    def decode(self, values: Tensors, parts: Mapping[str, Tensor], shapes: Shapes) -> Tensors:
        index = read(parts["indices"], len(values["largest"]), self.settings)
        return parted(scatter(values["largest"], index, total(shapes)), shapes)


def total(shapes: Shapes) -> int:
    """Numbers in tensors of these shapes."""
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def written(index: Tensor, size: int, settings: SparseSettings) -> Tensor:
    """Ascending indices below `size` as they are sent."""
    if settings.indices == "int32":
        return index.int()
    return torch.from_numpy(rice_encode(index.numpy(), size, rice_width(settings.share)))


def read(coded: Tensor, count: int, settings: SparseSettings) -> Tensor:
    """The indices again."""
    if settings.indices == "int32":
        return coded.long()
    return torch.from_numpy(rice_decode(coded.numpy(), count, rice_width(settings.share)))
