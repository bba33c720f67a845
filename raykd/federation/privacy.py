"""Noise on what clients upload, and the books on how much privacy that has cost each of them.

Noise on each upload hides from everybody which update a client had: that it uploaded is seen, so neighbouring runs replace its
update by another. Noise on the sum hides, from all but the server, whether a client learnt anything in a round: its update against
none. Cohorts are not drawn as amplification by sampling would need it, so that none is claimed: every round in which a client takes
part counts in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from torch import Tensor

from raykd.federation.accountant import epsilon, epsilon_replace_one
from raykd.federation.private_training import patients, sampling
from raykd.federation.protocols import LocalReply, Row
from raykd.methods._base import Upload
from raykd.numerics.gaussian_mechanism import norm_of, privatised, update_of
from raykd.numerics.params import Payload
from raykd.numerics.rng import generator
from raykd.scenario.errors import DataError
from raykd.scenario.privacy import ClientPrivacy
from raykd.scenario.schema import Scenario
from raykd.scenario.training import Training

UPLOAD, SUM, RECORDS = "upload", "sum", "records"
"""Mechanisms: noise on each upload, on the sum of a round's uploads, on the gradients of patients."""
NEIGHBOURS = {UPLOAD: "replace_one", SUM: "add_or_remove", RECORDS: "add_or_remove"}
"""By mechanism, in which way neighbouring runs differ: what its `epsilon` bounds."""


def protects_uploads(scenario: Scenario) -> ClientPrivacy | None:
    """The words for noise that clients add to what they upload, where they do."""
    words = scenario.privacy.client if scenario.privacy else None
    return words if words and words.where == "client" else None


def protected_upload(
    scenario: Scenario,
    words: ClientPrivacy,
    payload: Mapping[str, Tensor],
    received: Mapping[str, Tensor],
    address: tuple[int, int],
) -> tuple[Payload, Row]:
    """What a client uploads in the place of a payload, and what its books say of it.

    Args:
        scenario: its seed.
        words: how much.
        payload: what the method would upload; not empty.
        received: what the client was sent in the round.
        address: round and client.
    """
    noise_std = words.noise_multiplier * words.clip_norm
    rng = generator(scenario.seed, "privacy", *address)
    private = privatised(payload, received, clip_norm=words.clip_norm, noise_std=noise_std, rng=rng)
    return private, {"mechanism": UPLOAD, "num_releases": 1, "update_norm": norm_of(update_of(payload, received))}


def records_row(training: Training, cases: Sequence[Any], num_steps: int) -> Row:
    """What the books say of a client's private steps.

    Args:
        training: its batch size.
        cases: its labelled ones.
        num_steps: how many were taken.
    """
    rate, _ = sampling(len(patients(cases)), training.batch_size)
    return {"mechanism": RECORDS, "num_releases": num_steps, "sample_rate": rate}


class ProtectedSum(Sequence[Upload]):
    """A round's uploads whose sum has noise: each is clipped when it is read, and has its share of the noise, drawn at its address.

    m draws of standard deviation z C / sqrt(m) sum up to one of z C.

    Args:
        scenario, words: as for `protected_upload`.
        uploads: as they were sent.
        received: gives what a client was sent in the round.
        round_index: of the address.
    """

    def __init__(
        self,
        scenario: Scenario,
        words: ClientPrivacy,
        uploads: Sequence[Upload],
        received: Callable[[int], Payload],
        round_index: int,
    ):
        self._seed, self._words, self._uploads = scenario.seed, words, uploads
        self._received, self._round_index = received, round_index

    def __len__(self) -> int:
        return len(self._uploads)

    @overload
    def __getitem__(self, index: int) -> Upload: ...

    @overload
    def __getitem__(self, index: slice) -> list[Upload]: ...

    def __getitem__(self, index: int | slice) -> Upload | list[Upload]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        sent, words = self._uploads[index], self._words
        private = privatised(
            sent.payload,
            self._received(sent.client_id),
            clip_norm=words.clip_norm,
            noise_std=words.noise_multiplier * words.clip_norm / math.sqrt(len(self)),
            rng=generator(self._seed, "privacy", self._round_index, sent.client_id),
        )
        return Upload(sent.client_id, private, sent.num_labelled, sent.num_unlabelled)

    def rows(self) -> list[Row]:
        """What the books say of each client."""
        norms = [(sent.client_id, norm_of(update_of(sent.payload, self._received(sent.client_id)))) for sent in self._uploads]
        return [{"client_id": client_id, "mechanism": SUM, "num_releases": 1, "update_norm": norm} for client_id, norm in norms]


def protected_sum(
    scenario: Scenario, round_index: int, uploads: Sequence[Upload], received: Callable[[int], Payload]
) -> Sequence[Upload]:
    """The uploads, with noise where the scenario has the server add it."""
    words = scenario.privacy.client if scenario.privacy else None
    if words is None or words.where != "server":
        return uploads
    return ProtectedSum(scenario, words, uploads, received, round_index)


def privacy_rows(scenario: Scenario, round_index: int, entries: Sequence[Row], released: dict[str, int]) -> list[Row]:
    """Rows of `privacy` for what was released in a round, which is added to what had been.

    Args:
        scenario: its words.
        round_index: of the rows.
        entries: by client and mechanism, how many releases, at which sampling rate, and the norm before clipping.
        released: by mechanism and client, the releases so far; changed in place.
    """
    rows = []
    for entry in entries:
        key = f"{entry['mechanism']}/{entry['client_id']}"
        released[key] = total = released.get(key, 0) + entry["num_releases"]
        clip_norm, noise, delta = _numbers(scenario, entry["mechanism"])
        rate = entry.get("sample_rate", 1.0)
        spent = spent_by(entry["mechanism"], noise, rate, total, delta)
        terms = {"clip_norm": clip_norm, "noise_multiplier": noise, "sample_rate": rate}
        unit = "patient" if entry["mechanism"] == RECORDS else "client"
        rows.append({"round": round_index, "unit": unit, **entry, "num_releases": total, **terms, **spent})
    return rows


def spent_by(mechanism: str, noise_multiplier: float, sample_rate: float, num_releases: int, delta: float) -> Row:
    """Epsilon in both senses, and the one that applies to a mechanism; arguments as for `epsilon`."""
    terms = noise_multiplier, sample_rate, num_releases, delta
    both = {"add_or_remove": epsilon(*terms), "replace_one": epsilon_replace_one(*terms)}
    applies = NEIGHBOURS[mechanism]
    named = {f"epsilon_{neighbours}": value for neighbours, value in both.items()}
    return {"neighbours": applies, "epsilon": both[applies], **named, "delta": delta}


def check_delta(scenario: Scenario, owner: str, labelled: Sequence[Any]) -> None:
    """Raises `DataError` where the delta of a site's patients is not below one over their number."""
    words, num_patients = scenario.privacy.records if scenario.privacy else None, len(patients(labelled))
    if words is not None and num_patients and words.delta >= 1 / num_patients:
        raise DataError(
            f"{owner}: privacy.records.delta must be below 1 / {num_patients}, one over the number of its labelled patients, got "
            f"{words.delta:g}: at that delta publishing one patient at random would count as private; choose a smaller one"
        )


def entries_of(replies: Sequence[LocalReply], uploads: Sequence[Upload] | None) -> list[Row]:
    """What the books say of a round, by client and mechanism.

    Args:
        replies: of the clients.
        uploads: as the server used them; None: it used none.
    """
    own: list[Row] = [{"client_id": reply.client_id, **row} for reply in replies for row in reply.privacy]
    return own + (uploads.rows() if isinstance(uploads, ProtectedSum) else [])


def _numbers(scenario: Scenario, mechanism: str) -> tuple[float, float, float]:
    """Clipping norm, noise multiplier and delta of a mechanism."""
    privacy = scenario.privacy
    assert privacy is not None
    if mechanism == RECORDS:
        assert privacy.records is not None
        return privacy.records.max_grad_norm, privacy.records.noise_multiplier, privacy.records.delta
    assert privacy.client is not None
    return privacy.client.clip_norm, privacy.client.noise_multiplier, privacy.client.delta
