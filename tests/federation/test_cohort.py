"""Who takes part in a round is drawn, the same in every run, as often as the scenario says."""

from __future__ import annotations

from collections import Counter

import pytest

from raykd.federation.cohort import Cohort, cohort_events, draw_cohort, is_present
from raykd.scenario.sites import Availability
from raykd.scenario.timing import Federation

ALWAYS = Availability()


def cohorts(participation: float, dropout: float, num_clients: int, num_rounds: int, seed: int = 0) -> list[Cohort]:
    federation = Federation(participation=participation, client_dropout=dropout)
    return [draw_cohort(federation, [ALWAYS] * num_clients, seed, index) for index in range(num_rounds)]


def cohorts_of(availability: list[Availability], num_rounds: int, participation: float = 1.0, dropout: float = 0.0) -> list[Cohort]:
    federation = Federation(participation=participation, client_dropout=dropout)
    return [draw_cohort(federation, availability, 0, index) for index in range(num_rounds)]


def test_a_round_has_the_same_cohort_whenever_it_is_drawn() -> None:
    forwards = cohorts(0.5, 0.3, 8, 20)
    federation = Federation(participation=0.5, client_dropout=0.3)
    assert [draw_cohort(federation, [ALWAYS] * 8, 0, index) for index in reversed(range(20))] == forwards[::-1]


def test_rounds_and_seeds_differ() -> None:
    assert len({cohort.selected for cohort in cohorts(0.5, 0.0, 8, 20)}) > 10
    assert cohorts(0.5, 0.0, 8, 20, seed=0) != cohorts(0.5, 0.0, 8, 20, seed=1)


def test_everybody_takes_part_where_nothing_is_drawn() -> None:
    assert all(c == Cohort((0, 1, 2), (0, 1, 2)) and c.dropped == () for c in cohorts(1.0, 0.0, 3, 5))


@pytest.mark.parametrize(
    ("participation", "num_clients", "size"), [(0.5, 8, 4), (0.3, 10, 3), (0.34, 3, 1), (0.5, 5, 2), (0.7, 4, 3), (1.0, 7, 7)]
)
def test_the_share_of_clients_is_selected_each_once_by_ascending_id(participation: float, num_clients: int, size: int) -> None:
    for cohort in cohorts(participation, 0.0, num_clients, 20):
        assert len(set(cohort.selected)) == len(cohort.selected) == size
        assert list(cohort.selected) == sorted(cohort.selected) and set(cohort.selected) <= set(range(num_clients))


@pytest.mark.parametrize("participation", [1e-6, 0.01, 0.1])
def test_at_least_one_client_is_selected(participation: float) -> None:
    assert all(len(cohort.selected) == 1 for cohort in cohorts(participation, 0.0, 4, 10))


def test_clients_are_selected_alike() -> None:
    counts = Counter(client for cohort in cohorts(0.5, 0.0, 6, 400) for client in cohort.selected)
    # Binomial with n = 400, p = 1/2: mean 200, standard deviation 10.
    assert set(counts) == set(range(6)) and all(abs(count - 200) < 50 for count in counts.values())


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_clients_drop_out_as_often_as_their_probability_says(dropout: float) -> None:
    dropped = Counter(client for cohort in cohorts(1.0, dropout, 5, 400) for client in cohort.dropped)
    deviation = (400 * dropout * (1 - dropout)) ** 0.5
    assert all(abs(dropped[client] - 400 * dropout) < 5 * deviation for client in range(5))


def test_clients_drop_out_independently_of_one_another() -> None:
    both = sum({0, 1} <= set(cohort.dropped) for cohort in cohorts(1.0, 0.5, 2, 400))
    # Binomial with n = 400, p = 1/4: mean 100, standard deviation 8.7.
    assert abs(both - 100) < 5 * 8.7


def test_dropouts_do_not_change_who_is_selected_and_more_dropout_adds_to_less() -> None:
    for none, some, more in zip(*(cohorts(0.6, dropout, 10, 30) for dropout in (0.0, 0.3, 0.6)), strict=True):
        assert none.selected == some.selected == more.selected
        assert set(some.dropped) <= set(more.dropped)


def test_selected_clients_either_complete_or_drop_in_order() -> None:
    for cohort in cohorts(0.6, 0.5, 10, 30):
        assert sorted(cohort.completed + cohort.dropped) == list(cohort.selected)
        assert list(cohort.completed) == sorted(cohort.completed)


def test_a_client_is_selected_from_its_first_round_until_it_leaves() -> None:
    late, early = Availability(joins=2), Availability(leaves=3)
    selected = [cohort.selected for cohort in cohorts_of([ALWAYS, late, early], 5)]
    assert selected == [(0, 2), (0, 2), (0, 1, 2), (0, 1), (0, 1)]


def test_the_cohort_is_a_share_of_those_present() -> None:
    """Two of four are there at first, then four: half is one, then two."""
    late = Availability(joins=3)
    sizes = [len(cohort.selected) for cohort in cohorts_of([ALWAYS, ALWAYS, late, late], 6, participation=0.5)]
    assert sizes == [1, 1, 1, 2, 2, 2]


def test_one_of_those_present_is_selected_however_small_the_share() -> None:
    away = Availability(joins=9)
    assert [cohort.selected for cohort in cohorts_of([away, ALWAYS, away], 3, participation=0.01)] == [(1,)] * 3


def test_a_round_in_which_nobody_is_there_has_an_empty_cohort() -> None:
    assert cohorts_of([Availability(joins=1, leaves=2), Availability(joins=1)], 3)[0] == Cohort((), ())


def test_a_client_drops_out_with_its_own_probability_where_it_has_one() -> None:
    reliable, poor = Availability(dropout=0.0), Availability(dropout=0.75)
    dropped = Counter(client for cohort in cohorts_of([ALWAYS, reliable, poor], 400, dropout=0.25) for client in cohort.dropped)
    # Binomial with n = 400, p = 1/4 or 3/4: standard deviation 8.7.
    assert abs(dropped[0] - 100) < 5 * 8.7 and dropped[1] == 0 and abs(dropped[2] - 300) < 5 * 8.7


def test_one_client_s_probability_changes_no_draw_of_the_others() -> None:
    before = cohorts_of([ALWAYS] * 4, 30, participation=0.5, dropout=0.4)
    after = cohorts_of([ALWAYS, ALWAYS, ALWAYS, Availability(dropout=0.9)], 30, participation=0.5, dropout=0.4)
    assert [c.selected for c in before] == [c.selected for c in after]
    assert [set(c.dropped) - {3} for c in before] == [set(c.dropped) - {3} for c in after]


def test_a_client_that_joins_at_once_and_never_leaves_is_drawn_as_one_without_the_words() -> None:
    plain = cohorts_of([ALWAYS] * 6, 20, participation=0.5, dropout=0.3)
    assert cohorts_of([Availability(joins=0, leaves=20)] * 6, 20, participation=0.5, dropout=0.3) == plain


def test_joining_is_inclusive_and_leaving_exclusive() -> None:
    own = Availability(joins=2, leaves=4)
    assert [is_present(own, index) for index in range(6)] == [False, False, True, True, False, False]


def test_events_tell_who_joined_left_and_dropped_out_in_that_round_and_no_other() -> None:
    availability = [ALWAYS, Availability(joins=1, leaves=2), Availability(dropout=0.5)]
    told = {
        index: [(row["client_id"], row["kind"]) for row in cohort_events(Cohort((0, 2), (0,)), availability, index)]
        for index in range(4)
    }
    drop = (2, "dropout")
    assert told == {0: [drop], 1: [drop, (1, "joined")], 2: [drop, (1, "left")], 3: [drop]}


def test_the_event_of_a_dropout_names_the_setting_that_it_was_drawn_with() -> None:
    rows = cohort_events(Cohort((0, 1), ()), [ALWAYS, Availability(dropout=0.5)], 0)
    assert [row["detail"] for row in rows] == ["drawn with federation.client_dropout", "drawn with availability.dropout"]
