"""What crosses a link: payloads serialised kind by kind, their bytes counted as they are, their time on the line derived from
those bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.torch import load, save
from torch import Tensor

from raykd.federation.lines import Direction, link_seconds
from raykd.numerics.params import Payload, kind_of, select
from raykd.scenario.sites import Link

Envelope = dict[str, np.ndarray]
"""By kind, the serialised tensors as one flat array of bytes: what Ray puts once and reads without a copy."""

Sizes = dict[str, tuple[int, int]]
"""By kind, the number of values and of bytes of what crosses a link."""


def seal(payload: Mapping[str, Tensor]) -> Envelope:
    """A payload as bytes in the safetensors format, one blob a kind. Raises `ValueError` for a key without a known kind."""
    kinds = sorted({kind_of(key) for key in payload})
    return {
        kind: np.frombuffer(save({k: v.contiguous() for k, v in select(payload, kind).items()}), dtype=np.uint8) for kind in kinds
    }


def unseal(envelope: Envelope) -> Payload:
    """The payload again; its tensors are the receiver's own and may be written to."""
    payload: Payload = {}
    for kind in sorted(envelope):
        payload.update(load(envelope[kind].tobytes()))
    return payload


def sizes_of(envelope: Envelope) -> Sizes:
    """Number of values and of bytes by kind, as they are serialised: the values are counted from the header of the bytes."""
    sizes = {}
    for kind, blob in sorted(envelope.items()):
        header = json.loads(blob[8 : 8 + int(blob[:8].view("<u8")[0])].tobytes())
        num_values = sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
        sizes[kind] = (num_values, int(blob.nbytes))
    return sizes


def share_of(sizes: Sizes, share: float) -> Sizes:
    """What of a message has crossed when it is cut off: the share of each kind, in whole values and bytes."""
    return {kind: (int(num_values * share), int(num_bytes * share)) for kind, (num_values, num_bytes) in sizes.items()}


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
            "codec": "none",
            "num_values": num_values,
            "num_bytes": num_bytes,
            "simulated_s": link_seconds(num_bytes, direction, link, with_latency=index == 0) + (0.0 if index else jitter_s),
        }
        for index, (kind, (num_values, num_bytes)) in enumerate(sizes.items())
    ]
