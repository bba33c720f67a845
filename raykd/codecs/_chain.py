"""A payload of one kind as a message that tells how to read it: which codecs wrote it, in which order, and what of it they did.

Tensors with fewer than two axes (biases, norms, counts), whole numbers, and what the last codec would not make smaller go as
they are. Where the receiver holds what the sender started from, changes against that are coded, and shapes need not be sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raykd.codecs._base import Codec, CodecSettings, Shapes, Tensors, joined, parted
from raykd.scenario.registry import CODECS

HEADER = "raykd"
"""The entry of a blob's metadata that tells how to read it."""


class Kind(NamedTuple):
    """What a tensor is, apart from its numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class Message(NamedTuple):
    """What crosses a link.

    Attributes:
        tensors: by name.
        header: JSON.
        memory: what the sender keeps for its next message; it crosses nothing.
    """

    tensors: Tensors
    header: str
    memory: Tensors


def encode(
    payload: Mapping[str, Tensor],
    chain: Sequence[CodecSettings],
    reference: Mapping[str, Tensor],
    memory: Mapping[str, Tensor],
    rng: torch.Generator,
) -> Message:
    """Writes the entries of one kind.

    Args:
        payload: what is to be sent.
        chain: of codecs, at least one.
        reference: what sender and receiver both hold; what has the same name and shape there is sent as a change.
        memory: of the sender's last message.
        rng: for codecs that draw.
    """
    codecs, is_change = [CODECS.get(settings.name)(settings) for settings in chain], _changes(payload, reference)
    like = {key: Kind(tuple(payload[key].shape), payload[key].dtype) for key in sorted(payload)}
    names = _coded_names(like, is_change, chain)
    values = {key: payload[key].float() - reference[key].float() if key in is_change else payload[key].float() for key in names}
    kept: Tensors = {}
    if chain[0].feeds_back:
        values = {key: value + memory[f"error.{key}"] if f"error.{key}" in memory else value for key, value in values.items()}
    tensors, kept = _through(codecs, values, memory, rng) if names else ({}, {})
    if names and chain[0].feeds_back:
        arrived = _back(codecs, tensors, {key: like[key].shape for key in names})
        kept |= {f"error.{key}": value - arrived[key] for key, value in values.items()}
    tensors |= _plain({key: payload[key] for key in like if key not in names})
    header = {
        "chain": [settings.model_dump(mode="json") for settings in chain],
        "num_values": sum(value.numel() for value in payload.values()),
        "changes": True if reference and is_change == set(reference) else sorted(is_change),
        "like": {key: [str(kind.dtype).removeprefix("torch."), kind.shape] for key, kind in like.items() if key not in is_change},
    }
    return Message(tensors, json.dumps(header, separators=(",", ":")), kept)


def decode(tensors: Mapping[str, Tensor], header: str, reference: Mapping[str, Tensor]) -> Tensors:
    """Reads what `encode` wrote, given the same reference. Raises `ValueError` where that is missing."""
    told = json.loads(header)
    chain = [CODECS.get(block["name"]).Settings.model_validate_json(json.dumps(block)) for block in told["chain"]]
    is_change = set(reference) if told["changes"] is True else set(told["changes"])
    if (told["changes"] is True and not reference) or not is_change <= reference.keys():
        raise ValueError("a message of changes can be read only beside what they change, which is not here")
    like = {key: Kind(tuple(shape), getattr(torch, dtype)) for key, (dtype, shape) in told["like"].items()}
    like |= {key: Kind(tuple(reference[key].shape), reference[key].dtype) for key in is_change}
    like = {key: like[key] for key in sorted(like)}
    names, shapes = _coded_names(like, is_change, chain), {key: kind.shape for key, kind in like.items()}
    codecs = [CODECS.get(settings.name)(settings) for settings in chain]
    values = _back(codecs, tensors, {key: shapes[key] for key in names}) if names else {}
    payload = {
        key: (value + reference[key].float() if key in is_change else value).to(like[key].dtype) for key, value in values.items()
    }
    for name, value in tensors.items():
        if name.startswith(_PLAIN):
            dtype = getattr(torch, name.removeprefix(_PLAIN))
            payload |= parted(value, {key: kind.shape for key, kind in like.items() if key not in names and kind.dtype == dtype})
    return payload


def codec_column(header: str) -> tuple[str, int]:
    """What a table says of a message: its codecs in order, and how many values it stands for."""
    told = json.loads(header)
    return "+".join(block["name"] for block in told["chain"]), int(told["num_values"])


_VALUES, _PLAIN = "values", "plain."


def _changes(payload: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> set[str]:
    return {key for key, value in payload.items() if key in reference and _same(value, reference[key])}


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _coded_names(like: Mapping[str, Kind], is_change: set[str], chain: Sequence[CodecSettings]) -> list[str]:
    needs_change = any(settings.codes_changes for settings in chain)
    return [
        key
        for key, (shape, dtype) in like.items()
        if len(shape) > 1
        and 0 not in shape
        and dtype.is_floating_point
        and dtype.itemsize > chain[-1].bytes_each
        and (key in is_change or not needs_change)
    ]


def _through(
    codecs: Sequence[Codec], values: Tensors, memory: Mapping[str, Tensor], rng: torch.Generator
) -> tuple[Tensors, Tensors]:
    """What is sent of values after all codecs, and what each of these keeps."""
    sent, kept = Tensors(), Tensors()
    for index, codec in enumerate(codecs):
        own = {name.removeprefix(f"{index}."): value for name, value in memory.items() if name.startswith(f"{index}.")}
        coded = codec.encode(values, own, rng)
        values = coded.values
        sent |= {f"{index}.{name}": part for name, part in coded.parts.items()}
        kept |= {f"{index}.{name}": part for name, part in coded.memory.items()}
    return sent | ({_VALUES: joined(values)} if values else {}), kept


def _back(codecs: Sequence[Codec], sent: Mapping[str, Tensor], shapes: Shapes) -> Tensors:
    """The values before all codecs, as the receiver makes them out."""
    outlines = [shapes]
    for codec in codecs:
        outlines.append(codec.shapes(outlines[-1]))
    values = parted(sent[_VALUES], outlines[-1]) if _VALUES in sent else {}
    for index, codec in reversed(list(enumerate(codecs))):
        parts = {name.removeprefix(f"{index}."): value for name, value in sent.items() if name.startswith(f"{index}.")}
        values = codec.decode(values, parts, outlines[index])
    return values


def _plain(payload: Mapping[str, Any]) -> Tensors:
    """What goes as it is, one vector a type of number."""
    dtypes = sorted({value.dtype for value in payload.values()}, key=str)
    found = {dtype: {key: value for key, value in payload.items() if value.dtype == dtype} for dtype in dtypes}
    return {_PLAIN + str(dtype).removeprefix("torch."): joined(tensors) for dtype, tensors in found.items()}
