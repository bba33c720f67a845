"""What crosses a link: payloads serialised kind by kind, their bytes counted as they are, their time on the line derived from
those bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from raykd.codecs._chain import HEADER, codec_column, decode, encode
from raykd.federation.blobs import METADATA, entries_of, pack, unpack
from raykd.federation.lines import Direction, link_seconds
from raykd.numerics.params import MEMORY, Payload, kind_of, select
from raykd.scenario.sites import Link

Envelope = dict[str, np.ndarray]
"""By kind, the serialised tensors as one flat array of bytes: what Ray puts once and reads without a copy."""


class Size(NamedTuple):
    """Of what crosses a link, of one kind: the values that it stands for, its bytes as serialised, and how they were written."""

    num_values: int
    num_bytes: int
    codec: str = "none"


Sizes = dict[str, Size]
"""By kind."""


def seal(payload: Mapping[str, Tensor]) -> Envelope:
    """A payload as bytes in the safetensors format, one blob a kind. Raises `ValueError` for a key without a known kind."""
    kinds = sorted({kind_of(key) for key in payload})
    return {kind: pack(select(payload, kind)) for kind in kinds}


def seal_coded(
    payload: Mapping[str, Tensor],
    chains: Mapping[str, Any],
    reference: Mapping[str, Tensor],
    memory: Mapping[str, Tensor],
    rng_of: Callable[[str], torch.Generator],
) -> tuple[Envelope, Payload]:
    """A payload as bytes, the kinds that have codecs written by these; and what the sender keeps for its next message.

    Args:
        payload: what is sent.
        chains: by kind, settings of codecs in their order.
        reference: what both sides hold, of the kinds that are sent as changes.
        memory: of the sender, under `memory/`.
        rng_of: by kind, for codecs that draw.
    """
    envelope = seal({key: value for key, value in payload.items() if not chains.get(kind_of(key))})
    kept: Payload = {}
    for kind in sorted({kind_of(key) for key in payload} - envelope.keys()):
        own = {key.removeprefix(f"{MEMORY}/{kind}/"): value for key, value in select(memory, f"{MEMORY}/{kind}").items()}
        message = encode(select(payload, kind), chains[kind], select(reference, kind), own, rng_of(kind))
        envelope[kind] = pack(message.tensors, ((HEADER, message.header),))
        kept |= {f"{MEMORY}/{kind}/{name}": value for name, value in message.memory.items()}
    return envelope, kept


def unseal(envelope: Envelope, reference: Mapping[str, Tensor] | None = None) -> Payload:
    """The payload again, its keys in alphabetical order, which counts: a sum over keys in another would end in other bits. Its
    tensors are the receiver's own and may be written to.

    Args:
        envelope: as it was sent.
        reference: what the receiver holds, where changes against it were sent.
    """
    payload: Payload = {}
    for kind in sorted(envelope):
        tensors, header = unpack(envelope[kind]), coded_header(envelope[kind])
        opened = tensors if header is None else decode(tensors, header, select(reference or {}, kind))
        payload.update(sorted(opened.items()))
    return payload


def coded_header(blob: np.ndarray) -> str | None:
    """How to read a blob that codecs wrote; None: it is as it looks."""
    if not blob[8:64].tobytes().startswith(b'{"__metadata__"'):
        return None
    header: str | None = entries_of(blob)[0][METADATA].get(HEADER)
    return header


def is_coded(envelope: Envelope) -> bool:
    """Whether codecs wrote any of it."""
    return any(coded_header(blob) is not None for blob in envelope.values())


def sizes_of(envelope: Envelope) -> Sizes:
    """Values, bytes and codecs by kind, read from the bytes themselves."""
    sizes = {}
    for kind, blob in sorted(envelope.items()):
        if header := coded_header(blob):
            codec, num_values = codec_column(header)
            sizes[kind] = Size(num_values, int(blob.nbytes), codec)
        else:
            tensors, _ = entries_of(blob)
            num_values = sum(math.prod(entry["shape"]) for name, entry in tensors.items() if name != METADATA)
            sizes[kind] = Size(num_values, int(blob.nbytes))
    return sizes


def share_of(sizes: Sizes, share: float) -> Sizes:
    """What of a message has crossed when it is cut off: the share of each kind, in whole values and bytes."""
    return {kind: Size(int(size.num_values * share), int(size.num_bytes * share), size.codec) for kind, size in sizes.items()}


def transfer_rows(
    sizes: Sizes, *, round_index: int, client_id: int, direction: Direction, link: Link, jitter_s: float = 0.0
) -> list[dict[str, Any]]:
    """One row of the `transfers` table for each kind that crosses a client's link in one message, which waits `jitter_s` more."""
    return [
        {
            "round": round_index,
            "client_id": client_id,
            "direction": direction,
            "kind": kind,
            "codec": size.codec,
            "num_values": size.num_values,
            "num_bytes": size.num_bytes,
            "simulated_s": link_seconds(size.num_bytes, direction, link, with_latency=index == 0) + (0.0 if index else jitter_s),
        }
        for index, (kind, size) in enumerate(sizes.items())
    ]
