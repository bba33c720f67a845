"""Sites that join late, leave, or are away: what the rounds, the links and the events tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Record = Callable[..., Any]
FEDAVG = "method={name: fedavg}"


@pytest.fixture(scope="module")
def late(record: Record) -> Any:
    """Nobody in round 0, the two community sites from round 1, the university in round 1 alone."""
    return record(
        FEDAVG, "federation.rounds=3", "clients[0].availability={joins: 1}", "clients[1].availability={joins: 1, leaves: 2}"
    )


def test_only_the_sites_that_are_there_train(late: Any) -> None:
    training = late.outcome.table("training")
    assert training.groupby("round")["client_id"].apply(sorted).to_dict() == {1: [0, 1, 2], 2: [0, 1]}


def test_a_round_with_nobody_there_is_written_down_and_changes_nothing(late: Any) -> None:
    rounds = late.outcome.table("rounds").set_index("round")
    assert rounds.loc[0, ["num_selected", "num_completed", "num_dropped"]].tolist() == [0, 0, 0]
    cases = late.outcome.table("cases").query("model == 'global' and client_id >= 0")
    before, after = (cases[cases["round"] == index]["dsc"].tolist() for index in (-1, 0))
    assert before == after and before


def test_every_site_is_evaluated_whether_it_is_there_or_not(late: Any) -> None:
    cases = late.outcome.table("cases").query("client_id >= 0")
    assert all(set(group["client_id"]) == {0, 1, 2} for _, group in cases.groupby("round"))


def test_events_say_who_joined_and_who_left(late: Any) -> None:
    events = late.outcome.table("events")[["round", "client_id", "kind"]]
    assert sorted(map(tuple, events.astype({"kind": str}).to_numpy().tolist())) == [
        (1, 0, "joined"),
        (1, 1, "joined"),
        (1, 2, "joined"),
        (2, 2, "left"),
    ]


def test_nothing_crosses_the_link_of_a_site_that_is_away(late: Any) -> None:
    transfers = late.outcome.table("transfers")
    assert {(int(row["round"]), int(row["client_id"])) for _, row in transfers.iterrows()} == {
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (2, 1),
    }


def test_a_site_that_joins_later_is_handed_the_teacher_then(record: Record) -> None:
    outcome = record("federation.rounds=2", "clients[1].availability={joins: 1}").outcome
    teacher = outcome.table("transfers").query("kind == 'teacher'")
    assert [(int(row["round"]), int(row["client_id"])) for _, row in teacher.iterrows()] == [(-1, 0), (-1, 1), (1, 2)]
    assert teacher["num_bytes"].nunique() == 1


def test_a_site_that_never_joins_is_tested_and_never_trained(record: Record) -> None:
    """A hospital held out: the federation meets it only in its evaluation."""
    outcome = record(FEDAVG, "clients[1].availability={joins: 99}").outcome
    assert set(outcome.table("training")["client_id"]) == {0, 1}
    assert set(outcome.table("cases").query("client_id >= 0")["client_id"]) == {0, 1, 2}
    assert len(outcome.table("events")) == 0 and 2 not in set(outcome.table("transfers")["client_id"])


def test_a_site_that_left_has_no_personal_rounds(record: Record) -> None:
    outcome = record(FEDAVG, "federation.rounds=3", "federation.personal_rounds=2", "clients[1].availability={leaves: 1}").outcome
    training = outcome.table("training")
    assert training.groupby("round")["client_id"].apply(sorted).to_dict() == {0: [0, 1, 2], 1: [0, 1], 2: [0, 1]}


def test_a_federation_that_says_nothing_of_availability_runs_as_one_whose_sites_are_always_there(
    record: Record, assert_same_tables: Callable[..., None]
) -> None:
    plain = record(FEDAVG, "federation.rounds=3").outcome
    said = record(FEDAVG, "federation.rounds=3", "clients[*].availability={joins: 0, leaves: 3}").outcome
    assert_same_tables(plain, said, but=("clients",))
