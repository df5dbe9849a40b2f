"""State: what the changelog gives back, whoever wrote to it."""

from clickscore.schemas.snapshots import PARTITION_KEY, UserState, decode_user, encode
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.changelog import StateRestorer, restore
from clickscore.stream.state.partition import MAX_CLOSURES_PER_EVENT, POPULAR, ChangelogRecord, PartitionState
from tests.events import MINUTE, START, view


def snapshot(user: str, offset: int) -> ChangelogRecord:
    state = UserState(offset=offset, length=1, opened_at=START, last_ts=START, ages=[0], actions=b"\1", items=["a"])
    return ChangelogRecord(user.encode(), encode(state), offset)


def restorer(*changes: ChangelogRecord) -> StateRestorer:
    made = StateRestorer()
    for change in changes:
        made.add(change.key, change.value, change.offset)
    return made


def entered(*minutes: float, settings: SessionSettings | None = None) -> PartitionState:
    state = PartitionState("events-0", settings or SessionSettings())
    for offset, minute in enumerate(minutes):
        event = view("ann", minute, f"item-{offset}")
        state.advance(event.ts, offset)
        state.add_event(state.user("ann"), event, offset.to_bytes(8), offset)
    return state


def test_newest_snapshot_wins():
    state = restorer(snapshot("ann", 1), snapshot("ann", 5)).state("events-0", SessionSettings())
    assert state.user("ann").offset == 5


def test_late_write_of_a_stalled_worker_does_not_step_back():
    state = restorer(snapshot("ann", 5), snapshot("ann", 1)).state("events-0", SessionSettings())
    assert state.user("ann").offset == 5


def test_overlaid_snapshot_is_repaired():
    assert restorer(snapshot("ann", 5), snapshot("ann", 1), snapshot("bob", 2)).repairs() == [snapshot("ann", 5)]


def test_overlaid_snapshot_that_was_written_again_needs_no_repair():
    assert restorer(snapshot("ann", 5), snapshot("ann", 1), snapshot("ann", 5)).repairs() == []


def test_stale_tombstone_forgets_nobody():
    state = restorer(snapshot("ann", 5), ChangelogRecord(b"ann", None, 4)).state("events-0", SessionSettings())
    assert state.user("ann").offset == 5


def test_tombstone_forgets():
    state = restorer(snapshot("ann", 5), ChangelogRecord(b"ann", None, 6)).state("events-0", SessionSettings())
    assert len(state) == 0


def test_restored_state_knows_open_sessions():
    assert restore([snapshot("ann", 1), snapshot("bob", 2)], "events-0", SessionSettings()).open_sessions == 2


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


def test_popular_items_are_bounded():
    assert len(entered(*(number / 10 for number in range(2 * POPULAR))).popular) == POPULAR


def test_popularity_is_ranked_anew_at_every_refresh():
    state = PartitionState("events-0", SessionSettings())
    for offset, (user, item) in enumerate([("ann", "a"), ("ann", "b"), ("bob", "b")]):
        event = view(user, 0, item)
        state.advance(event.ts, offset)
        state.add_event(state.user(user), event, offset.to_bytes(8), offset)
    assert state.popular == ["a", "b"]
    state.advance(START + 10 * MINUTE, 3)
    assert state.popular == ["b", "a"]


def test_popular_item_stays_behind_when_nobody_looks_at_it():
    state = entered(0)
    state.advance(START + 120 * MINUTE, 1)
    assert state.popular == ["item-0"]


def crowd(size: int) -> PartitionState:
    state = PartitionState("events-0", SessionSettings())
    for offset in range(size):
        event = view(f"user-{offset:04}", offset / size)
        state.advance(event.ts, offset)
        state.add_event(state.user(event.user_id), event, offset.to_bytes(8), offset)
    return state


def test_one_jump_of_time_closes_so_many_sessions_at_most():
    state = crowd(3 * MAX_CLOSURES_PER_EVENT)
    assert len(state.advance(START + 600 * MINUTE, 1_000)) == MAX_CLOSURES_PER_EVENT


def test_sessions_that_were_left_close_with_the_next_events():
    state = crowd(3 * MAX_CLOSURES_PER_EVENT)
    for offset in range(1_000, 1_003):
        state.advance(START + 600 * MINUTE, offset)
    assert state.open_sessions == 0


def test_sessions_that_were_left_close_in_the_same_order_after_a_restart():
    size = 3 * MAX_CLOSURES_PER_EVENT
    state = crowd(size)
    changes = state.flush(size)
    state.advance(START + 600 * MINUTE, 1_000)
    changes += state.flush(1_000)
    again = restore(changes, "events-0", SessionSettings())
    assert again.advance(START, 1_001) == state.advance(START, 1_001)


def test_session_closes_with_the_first_event_of_its_minute():
    state = entered(0, settings=SessionSettings(gap_ms=10 * MINUTE, lateness_ms=0))
    at = (START + 10 * MINUTE) // MINUTE * MINUTE + MINUTE  # the first full minute after the gap
    closed = [len(state.advance(ts, offset)) for offset, ts in enumerate((START + 1, at - 1, at), start=1)]
    assert closed == [0, 0, 1]


def test_popularity_is_ranked_at_any_period_of_refresh():
    state = PartitionState("events-0", SessionSettings(popularity_refresh_ms=1_000))
    for offset, (user, item) in enumerate([("ann", "a"), ("ann", "b"), ("bob", "b")]):
        event = view(user, 0, item)
        state.advance(event.ts, offset)
        state.add_event(state.user(user), event, offset.to_bytes(8), offset)
    state.advance(START + 2_000, 3)
    assert state.popular == ["b", "a"]
