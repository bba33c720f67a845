"""Tensors as bytes in the safetensors format, and back.

What a round sends looks the same for every client, so safetensors works out the header of such bytes once for each set of names,
types and shapes, and values are copied once each way: `safetensors.torch.save` takes 2 ms a megabyte, this a tenth of a
millisecond.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

Blob = NDArray[np.uint8]
METADATA = "__metadata__"
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Of what travels, as safetensors calls them."""

_Look = tuple[tuple[str, torch.dtype, tuple[int, ...]], ...]


def pack(tensors: Mapping[str, Tensor], metadata: tuple[tuple[str, str], ...] = ()) -> Blob:
    """Tensors as the bytes that `safetensors.torch.save` makes of them, which may not be written to.

    Args:
        tensors: by name; on any device.
        metadata: names and texts.
    """
    look = tuple((name, value.dtype, tuple(value.shape)) for name, value in sorted(tensors.items()))
    header, places, end = _layout(look, metadata)
    blob = np.empty(end, dtype=np.uint8)
    blob[: len(header)] = np.frombuffer(header, dtype=np.uint8)
    for name, start, stop in places:
        blob[start:stop] = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    blob.flags.writeable = False
    return blob


def unpack(blob: Blob) -> dict[str, Tensor]:
    """The tensors again, in the order of their names; they are the caller's own and may be written to."""
    entries, end = entries_of(blob)
    own, tensors = blob.copy(), {}
    for name in sorted(entries.keys() - {METADATA}):
        start, stop = (end + offset for offset in entries[name]["data_offsets"])
        tensors[name] = torch.from_numpy(own[start:stop]).view(TYPES[entries[name]["dtype"]]).reshape(entries[name]["shape"])
    return tensors


def entries_of(blob: Blob) -> tuple[Mapping[str, Any], int]:
    """What the header of a blob tells of its tensors, by name, metadata included, and the bytes that it takes itself."""
    end = 8 + int(blob[:8].view("<u8")[0])
    return _read_header(blob[8:end].tobytes()), end


@functools.lru_cache(maxsize=32)
def _read_header(header: bytes) -> Mapping[str, Any]:
    return MappingProxyType(json.loads(header))


@functools.lru_cache(maxsize=32)
def _layout(look: _Look, metadata: tuple[tuple[str, str], ...]) -> tuple[bytes, tuple[tuple[str, int, int], ...], int]:
    """The header of tensors that look like this, where the bytes of each lie that has any, and the length of all."""
    shaped = {name: torch.empty(shape, dtype=dtype) for name, dtype, shape in look}
    blank = np.frombuffer(save(shaped, metadata=dict(metadata) or None), dtype=np.uint8)
    entries, end = entries_of(blank)
    offsets = {name: entry["data_offsets"] for name, entry in entries.items() if name != METADATA}
    places = tuple((name, end + start, end + stop) for name, (start, stop) in offsets.items() if stop > start)
    return blank[:end].tobytes(), places, len(blank)
