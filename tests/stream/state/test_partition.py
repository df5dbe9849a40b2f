"""Partition state: sessions close in event time, users are forgotten, and the changelog tells of both."""

from clickscore.schemas.snapshots import PARTITION_KEY, decode_user
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.partition import MAX_CLOSURES_PER_EVENT, ChangelogRecord, PartitionState
from tests.events import MINUTE, START, view


def entered(*minutes: float, settings: SessionSettings | None = None) -> PartitionState:
    state = PartitionState("events-0", settings or SessionSettings())
    for offset, minute in enumerate(minutes):
        event = view("ann", minute, f"item-{offset}")
        state.advance(event.ts, offset)
        state.add_event(state.user("ann"), event, offset.to_bytes(8), offset)
    return state


def test_partitions_record_ends_a_batch():
    state = entered(0, 1)
    changes = state.flush(1)
    assert [change.key for change in changes] == [b"ann", PARTITION_KEY]


def test_forgotten_user_leaves_a_tombstone():
    state = entered(0)
    state.flush(0)
    state.advance(START + 60 * MINUTE, 1)
    assert state.flush(1)[0] == ChangelogRecord(b"ann", None, 1)


def test_session_keeps_its_newest_events():
    state = entered(*range(20), settings=SessionSettings(max_events=5))
    assert decode_user(state.flush(19)[0].value or b"").items == [f"item-{number}" for number in range(15, 20)]


def crowd(size: int) -> PartitionState:
    state = PartitionState("events-0", SessionSettings())
    for offset in range(size):
        event = view(f"user-{offset:04}", offset / size)
        state.advance(event.ts, offset)
        state.add_event(state.user(event.user_id), event, offset.to_bytes(8), offset)
    return state


def test_one_event_closes_a_bounded_number_of_sessions():
    state = crowd(3 * MAX_CLOSURES_PER_EVENT)
    assert len(state.advance(START + 600 * MINUTE, 1_000)) == MAX_CLOSURES_PER_EVENT


def test_remaining_sessions_close_with_the_next_events():
    state = crowd(3 * MAX_CLOSURES_PER_EVENT)
    for offset in range(1_000, 1_003):
        state.advance(START + 600 * MINUTE, offset)
    assert state.open_sessions == 0


def test_remaining_sessions_close_in_the_same_order_after_a_restart():
    size = 3 * MAX_CLOSURES_PER_EVENT
    state = crowd(size)
    changes = state.flush(size)
    state.advance(START + 600 * MINUTE, 1_000)
    changes += state.flush(1_000)
    again = restore(changes, "events-0", SessionSettings())
    assert again.advance(START, 1_001) == state.advance(START, 1_001)


def test_session_closes_with_the_first_event_of_its_minute():
    state = entered(0, settings=SessionSettings(gap_ms=10 * MINUTE, lateness_ms=0))
    full_minute = (START + 10 * MINUTE) // MINUTE * MINUTE + MINUTE  # the first full minute after the gap
    closed = [
        len(state.advance(ts, offset)) for offset, ts in enumerate((START + 1, full_minute - 1, full_minute), start=1)
    ]
    assert closed == [0, 0, 1]


def state_of(settings: SessionSettings, *views: tuple[str, str]) -> PartitionState:
    state = PartitionState("events-0", settings)
    for offset, (user, item) in enumerate(views):
        event = view(user, 0, item)
        state.advance(event.ts, offset)
        state.add_event(state.user(user), event, offset.to_bytes(8), offset)
    return state


def test_popularity_is_ranked_anew_at_every_refresh():
    state = state_of(SessionSettings(), ("ann", "a"), ("ann", "b"), ("bob", "b"))
    assert state.popular == ["a", "b"]
    state.advance(START + 10 * MINUTE, 3)
    assert state.popular == ["b", "a"]


def test_popularity_is_ranked_at_any_period_of_refresh():
    state = state_of(SessionSettings(popularity_refresh_ms=1_000), ("ann", "a"), ("ann", "b"), ("bob", "b"))
    state.advance(START + 2_000, 3)
    assert state.popular == ["b", "a"]


def test_items_of_closed_sessions_stay_behind_in_the_ranking():
    state = entered(0)
    state.advance(START + 120 * MINUTE, 1)
    assert state.popular == ["item-0"]
