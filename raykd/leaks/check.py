"""All attacks on all uploads of a run's last round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from raykd.leaks.evidence import Evidence, evidence_of
from raykd.leaks.inversion import Row, gradient_inversion, prototype_inversion
from raykd.leaks.membership import membership_rows, membership_scores
from raykd.numerics.inversion import Effort
from raykd.numerics.membership import Scores

ALL_CLIENTS = -2
"""The client id of what is said of all clients together."""


def find_leaks(run_dir: Path, effort: Effort, note: Callable[[str], None]) -> tuple[int, list[Row]]:
    """The round that was attacked, and rows of `leaks`.

    Args:
        run_dir: of a run that is done.
        effort: of each inversion.
        note: told of every attack that an upload gives nothing to.

    Raises:
        RaykdError: there is nothing to attack, or success could not be judged.
    """
    rows: list[Row] = []
    groups: dict[str, dict[int, Scores]] = {}
    round_index = seed = -1
    for evidence in evidence_of(run_dir):
        round_index, seed = evidence.round_index, evidence.client.scenario.seed
        torch.set_num_threads(evidence.client.scenario.resources.threads_per_client)
        own = evidence.client.member
        if not evidence.client.data.test:
            note(f"{own.name}: no attack: its num_test is 0, and without cases it never learnt from success cannot be judged")
            continue
        for outcome in (gradient_inversion(evidence, effort), prototype_inversion(evidence, effort)):
            if isinstance(outcome, str):
                note(f"{own.name}: {outcome}")
            else:
                rows += [{"client_id": own.client_id, **row} for row in outcome]
        rows += _membership(evidence, groups, note)
    for attack, scores in groups.items():
        found = membership_rows(attack, scores, seed, (round_index, ALL_CLIENTS))
        rows += [{"client_id": ALL_CLIENTS, **row} for row in found]
    return round_index, [{"round": round_index, **row} for row in rows]


def _membership(evidence: Evidence, groups: dict[str, dict[int, Scores]], note: Callable[[str], None]) -> list[Row]:
    """Rows of one client, whose scores are added to those of all."""
    own, found = evidence.client.member, membership_scores(evidence)
    if isinstance(found, str):
        note(f"{own.name}: {found}")
        return []
    rows = []
    for attack, scores in found.items():
        groups.setdefault(attack, {})[own.client_id] = scores
        address = (evidence.round_index, own.client_id)
        of_one = membership_rows(attack, {own.client_id: scores}, evidence.client.scenario.seed, address)
        rows += [{"client_id": own.client_id, **row} for row in of_one]
    return rows
