"""Tensors as bytes: those of safetensors to the last bit, and read by it and by us alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from raykd.federation.blobs import METADATA, TYPES, entries_of, pack, unpack

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
TENSORS = st.dictionaries(
    st.text(alphabet="abc/._0ä", min_size=1, max_size=12), st.tuples(st.sampled_from(list(TYPES.values())), SHAPES), max_size=6
)


def drawn(looks: dict[str, tuple[torch.dtype, tuple[int, ...]]], seed: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: (100 * torch.randn(shape, generator=rng)).to(dtype) for name, (dtype, shape) in looks.items()}


@given(TENSORS, st.integers(0, 9), st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=9), max_size=1))
def test_the_bytes_are_those_of_safetensors(
    looks: dict[str, tuple[torch.dtype, tuple[int, ...]]], seed: int, metadata: dict[str, str]
) -> None:
    tensors = drawn(looks, seed)
    blob = pack(tensors, tuple(metadata.items()))
    assert blob.tobytes() == save(tensors, metadata=metadata or None)
    for read in (unpack(blob), load(blob.tobytes())):
        assert read.keys() == tensors.keys()
        assert all(value.dtype == tensors[name].dtype and torch.equal(value, tensors[name]) for name, value in read.items())
    assert list(unpack(blob)) == sorted(tensors)
    assert entries_of(blob)[0].get(METADATA, {}) == metadata


def test_tensors_of_one_look_are_told_apart_by_their_values() -> None:
    """The header is kept from one to the next, and nothing else."""
    first, second = (pack({"w": torch.full((2, 3), value)}) for value in (1.0, 2.0))
    assert unpack(first)["w"].eq(1.0).all() and unpack(second)["w"].eq(2.0).all()


def test_views_and_tensors_with_gradients_are_packed_as_they_look() -> None:
    grid = torch.arange(12.0).reshape(3, 4).requires_grad_()
    read = unpack(pack({"turned": grid.T, "row": grid[1], "one": grid.sum()}))
    assert torch.equal(read["turned"], grid.T) and torch.equal(read["row"], grid[1]) and read["one"] == 66.0


def test_bytes_may_not_be_written_to_and_what_is_read_may() -> None:
    blob = pack({"w": torch.ones(2)})
    with pytest.raises(ValueError, match="read-only"):
        blob[0] = 0
    unpack(blob)["w"] += 1
    assert np.array_equal(blob, pack({"w": torch.ones(2)}))
