"""Sessions: where they begin and end, and where an event takes its place."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from clickscore.schemas.events import View
from clickscore.schemas.snapshots import UserState
from clickscore.stream.state import sessions
from tests.events import MINUTE, START, view

GAP = 30 * MINUTE


def session_of(*events: View) -> UserState:
    user = UserState()
    sessions.open_session(user, events[0], 0, "0-0")
    for number, event in enumerate(events):
        sessions.add_event(user, event, 1, event.item_id, number.to_bytes(8))
    return user


def test_first_event_starts_a_session():
    assert sessions.starts_session(UserState(), view("ann", 0), GAP)


def test_event_exactly_at_gap_extends_session():
    assert not sessions.starts_session(session_of(view("ann", 0)), view("ann", 30), GAP)


def test_event_beyond_gap_starts_a_session():
    assert sessions.starts_session(session_of(view("ann", 0)), view("ann", 30.001), GAP)


def test_another_client_session_starts_a_session():
    user = session_of(view("ann", 0, session="a"))
    assert sessions.starts_session(user, view("ann", 1, session="b"), GAP)


def test_event_without_client_session_joins_the_open_one():
    user = session_of(view("ann", 0, session="a"))
    assert not sessions.starts_session(user, view("ann", 1), GAP)


def test_older_event_of_another_client_session_belongs_to_one_that_ended():
    user = session_of(view("ann", 5, session="b"))
    assert sessions.belongs_to_closed_session(user, view("ann", 4, session="a"), GAP)


def test_session_takes_the_clients_name():
    assert session_of(view("ann", 0, session="a")).session_id == "a"


def test_event_out_of_order_takes_its_place_by_time():
    user = session_of(view("ann", 0, "a"), view("ann", 2, "c"), view("ann", 1, "b"))
    assert user.items == ["a", "b", "c"]


def test_event_before_the_first_moves_the_opening():
    user = session_of(view("ann", 2, "b"), view("ann", 1, "a"))
    assert (user.opened_at, user.ages, user.items) == (START + MINUTE, [0, MINUTE], ["a", "b"])


def test_event_of_equal_time_comes_after():
    assert session_of(view("ann", 0, "a"), view("ann", 0, "b")).items == ["a", "b"]


def test_fingerprints_keep_step_with_items():
    user = session_of(view("ann", 0, "a"), view("ann", 2, "c"), view("ann", 1, "b"))
    assert [user.fingerprints[at : at + 8] for at in (0, 8, 16)] == [number.to_bytes(8) for number in (0, 2, 1)]


def test_repeat_is_known():
    assert sessions.is_duplicate(session_of(view("ann", 0), view("ann", 1)), (1).to_bytes(8))


def test_fingerprint_across_two_neighbours_is_no_repeat():
    user = UserState(fingerprints=bytes(range(16)))
    assert not sessions.is_duplicate(user, bytes(range(4, 12)))


def test_oldest_event_is_forgotten():
    user = session_of(view("ann", 0, "a"), view("ann", 1, "b"), view("ann", 2, "c"))
    dropped = sessions.drop_oldest(user)
    assert (dropped, user.items, len(user.actions), len(user.fingerprints), user.length) == ("a", ["b", "c"], 2, 16, 3)


def test_newest_purchases_are_remembered_once_each():
    user = UserState()
    for item in ("a", "b", "a", "c"):
        sessions.remember_purchase(user, item, day=7, max_bought=2)
    assert user.bought == ["a", "c"]


def test_no_purchase_is_remembered_with_a_bound_of_0():
    user = UserState()
    sessions.remember_purchase(user, "a", day=7, max_bought=0)
    assert (user.bought, user.purchased) == ([], True)


def test_empty_name_of_a_session_counts_as_none():
    user = session_of(view("ann", 0, session=""))
    assert not sessions.starts_session(user, view("ann", 1, session=""), GAP)


def test_closed_session_has_its_events_in_order_and_its_outcome():
    user = session_of(view("ann", 0, "a"), view("ann", 1, "b"))
    sessions.remember_purchase(user, "b", day=7, max_bought=5)
    closed = sessions.close(user, "ann", "events-3")
    assert closed.id == "events-3-0"
    assert closed.purchased
    assert [event.item_id for event in closed.events] == ["a", "b"]
    assert (closed.opened_at, closed.closed_at, closed.length) == (START, START + MINUTE, 2)


def test_purchases_outlive_their_session():
    user = session_of(view("ann", 0))
    sessions.remember_purchase(user, "kettle", day=7, max_bought=5)
    sessions.close(user, "ann", "events-0")
    assert (user.length, user.bought, user.purchased) == (0, ["kettle"], False)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40))
def test_sorted_times_open_one_session_more_than_there_are_gaps(minutes: list[int]):
    times = sorted(minutes)
    user, opened = UserState(), 0
    for number, minute in enumerate(times):
        event = view("ann", minute)
        if sessions.starts_session(user, event, GAP):
            opened += 1
            sessions.open_session(user, event, number, f"0-{number}")
        sessions.add_event(user, event, 1, event.item_id, number.to_bytes(8))
    assert opened == 1 + sum(later - earlier > 30 for earlier, later in pairwise(times))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_any_order_within_a_session_ends_in_order_of_time(minutes: list[int]):
    user = session_of(*(view("ann", minute, f"item-{minute}") for minute in minutes))
    times = [user.opened_at + age for age in user.ages]
    assert times == sorted(START + minute * MINUTE for minute in minutes)
    assert user.items == [f"item-{(time - START) // MINUTE}" for time in times]


def test_purchase_from_before_days_were_remembered_has_none():
    user = UserState(bought=["a", "b"])
    sessions.remember_purchase(user, "c", day=7, max_bought=5)
    assert sessions.purchases(user) == {"a": 0, "b": 0, "c": 7}
    sessions.remember_purchase(user, "a", day=8, max_bought=2)
    assert sessions.purchases(user) == {"c": 7, "a": 8}
    sessions.forget_purchases(user)
    assert sessions.purchases(user) == {}
