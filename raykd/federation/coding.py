"""Which codecs write what crosses a link, by direction, kind and client; and what a client's codecs keep from round to round."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raykd.federation.transport import Envelope, is_coded, seal, seal_coded, unseal
from raykd.numerics.params import TRAVELLING, Payload, select
from raykd.numerics.rng import generator
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import Client as Member
from raykd.scenario.traffic import Codecs

CHANGING = "params"
"""The kind of which both sides hold what the client started from, so that changes can be sent."""


def seal_download(scenario: Scenario, payload: Mapping[str, Tensor]) -> Envelope:
    """What goes down, in bytes that any receiver can read by themselves."""
    return seal_coded(payload, _chains(scenario.traffic.down), {}, {}, _no_draws)[0]


def seal_upload(
    scenario: Scenario,
    member: Member,
    round_index: int,
    payload: Mapping[str, Tensor],
    received: Mapping[str, Tensor],
    memory: Mapping[str, Tensor],
) -> tuple[Envelope, Payload]:
    """What goes up, and what the client's codecs keep for its next upload.

    Args:
        scenario, member, round_index: who sends, and when.
        payload: what the method uploads.
        received: what the client was sent in this round, as it read it.
        memory: of its last upload.
    """
    codecs = (member.group.traffic or scenario.traffic).up

    def rng_of(kind: str) -> torch.Generator:
        return generator(scenario.seed, f"codec-{kind}", round_index, member.client_id)

    return seal_coded(payload, _chains(codecs), select(received, CHANGING), memory, rng_of)


def opened_upload(upload: Envelope, download: Envelope, extra: Envelope) -> Envelope:
    """An upload as the server reads it, beside what that client was sent: to be kept and aggregated."""
    if not is_coded(upload):
        return upload
    return seal(unseal(upload, unseal(download) | unseal(extra)))


def _chains(codecs: Codecs) -> dict[str, tuple[object, ...]]:
    return {kind: codecs.of(kind) for kind in TRAVELLING}


def _no_draws(kind: str) -> torch.Generator:
    return torch.Generator().manual_seed(0)
