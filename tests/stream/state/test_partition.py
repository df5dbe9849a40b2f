"""Partition state: sessions close in event time, users are forgotten, and the changelog tells of both."""

import gc
import weakref

from clickscore.schemas.events import Interaction
from clickscore.schemas.snapshots import PARTITION_KEY, decode_user, encode
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.state.partition import MAX_CLOSURES_PER_EVENT, PartitionState
from tests.events import MINUTE, START, purchase, view


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


# Users who have bought: remembered for user_ttl_ms beyond their session

TTL = SessionSettings(user_ttl_ms=60 * MINUTE)
WATERMARK_LAG = TTL.lateness_ms // MINUTE


class Buyer:
    """A partition in which one user acts, at times in minutes."""

    def __init__(self) -> None:
        self.state = PartitionState("events-0", TTL)
        self._offset = -1

    def act(self, event: Interaction) -> None:
        self._offset += 1
        self.state.advance(event.ts, self._offset)
        self.state.add_event(self.state.user("ann"), event, self._offset.to_bytes(8), self._offset)

    def wait(self, minute: float) -> None:
        """Move the watermark to a minute, and end the batch."""
        self._offset += 1
        self.state.advance(START + round((minute + WATERMARK_LAG) * MINUTE), self._offset)
        self.state.flush(self._offset)

    @property
    def bought(self) -> list[str]:
        return self.state.user("ann").bought


def test_bought_items_are_remembered_beyond_the_session():
    buyer = Buyer()
    buyer.act(purchase("ann", 0))
    buyer.wait(59)
    assert (buyer.bought, buyer.state.open_sessions) == (["kettle"], 0)


def test_bought_items_are_forgotten_after_their_time():
    buyer = Buyer()
    buyer.act(purchase("ann", 0))
    buyer.wait(61)
    assert (buyer.bought, len(buyer.state)) == ([], 0)


def test_later_event_prolongs_the_memory_of_bought_items():
    buyer = Buyer()
    buyer.act(purchase("ann", 0))
    buyer.act(view("ann", 10))
    buyer.wait(61)
    assert buyer.bought == ["kettle"]
    buyer.wait(71)
    assert buyer.bought == []


def test_second_purchase_is_remembered_beside_the_first():
    buyer = Buyer()
    buyer.act(purchase("ann", 0))
    buyer.act(purchase("ann", 1, "mug"))
    assert buyer.bought == ["kettle", "mug"]


def test_bought_items_are_remembered_while_a_session_is_open():
    buyer = Buyer()
    buyer.act(purchase("ann", 0))
    buyer.act(view("ann", 50))
    buyer.wait(61)
    assert buyer.bought == ["kettle"]
    buyer.wait(111)
    assert buyer.bought == []


def test_restored_buyer_without_a_session_is_forgotten_after_the_time():
    buyer = Buyer()
    buyer.act(purchase("ann", 0))
    buyer.wait(50)
    restored = Buyer()
    restored.state.load_user("ann", encode(buyer.state.user("ann")))
    assert (restored.state.open_sessions, restored.bought) == (0, ["kettle"])
    restored.wait(61)
    assert restored.bought == []


def backlog(users: int, settings: SessionSettings = TTL) -> PartitionState:
    """Return a partition of buyers with open sessions, whose next event comes after their time."""
    state = PartitionState("events-0", settings)
    for number in range(users):
        event = purchase(f"user-{number:03}", 0)
        state.advance(event.ts, number)
        state.add_event(state.user(event.user_id), event, number.to_bytes(8), number)
    return state


def test_buyer_whose_session_ends_after_the_time_is_forgotten_at_once():
    state = backlog(MAX_CLOSURES_PER_EVENT + 1)
    last = f"user-{MAX_CLOSURES_PER_EVENT:03}"
    state.advance(START + 120 * MINUTE, 1_000)
    assert (state.user(last).length, state.user(last).bought) == (1, ["kettle"])
    state.advance(START + 120 * MINUTE, 1_001)
    assert (state.user(last).length, state.user(last).bought) == (0, [])


def test_buyer_who_comes_back_after_the_time_is_still_remembered():
    state = backlog(MAX_CLOSURES_PER_EVENT + 1)
    last = f"user-{MAX_CLOSURES_PER_EVENT:03}"
    state.advance(START + 120 * MINUTE, 1_000)
    state.add_event(state.user(last), view(last, 120), b"12345678", 1_000)
    state.advance(START + 121 * MINUTE, 1_001)
    assert (state.user(last).length, state.user(last).bought) == (1, ["kettle"])


def test_bound_of_no_purchases_forgets_the_user_with_the_session():
    state = backlog(1, SessionSettings(max_bought=0))
    state.flush(0)
    state.advance(START + 120 * MINUTE, 1)
    assert (state.flush(1)[0].value, len(state)) == (None, 0)


# The end of a log


def test_user_whose_session_closed_in_the_same_batch_leaves_a_tombstone():
    state = entered(0)
    state.advance(START + 60 * MINUTE, 1)
    changes = state.flush(1)
    assert changes[0] == ChangelogRecord(b"ann", None, 1)
    assert [change.key for change in changes[1:]] == [PARTITION_KEY]


def test_close_all_closes_open_sessions_alone():
    buyer = Buyer()
    buyer.act(purchase("ann", 0))
    buyer.wait(50)
    assert buyer.state.close_all() == []


def test_timer_of_a_session_that_close_all_closed_closes_nothing_more():
    state = entered(0)
    state.flush(0)
    assert len(state.close_all()) == 1
    assert state.advance(START + 60 * MINUTE, 1) == []


def test_user_that_is_to_be_written_again_comes_with_the_next_flush():
    state = entered(0)
    first = state.flush(0)
    state.rewrite(["ann", "bob"])
    assert state.needs_flush
    assert state.flush(0) == [first[0], ChangelogRecord(b"bob", None, 0), first[1]]
    assert not state.needs_flush


def test_user_that_is_to_be_written_again_and_has_no_state_after_the_batch_leaves_a_tombstone():
    state = entered(0)
    state.rewrite(["ann"])
    state.advance(START + 60 * MINUTE, 1)
    assert state.flush(1)[0] == ChangelogRecord(b"ann", None, 1)


def test_older_record_of_a_user_overlays_the_state():
    state = entered(0, 1)
    state.flush(1)
    assert [state.is_overlaid("ann", offset, is_tombstone=False) for offset in (0, 1)] == [True, False]
    assert [state.is_overlaid("bob", 0, is_tombstone=tombstone) for tombstone in (False, True)] == [True, False]


def test_late_record_of_a_stalled_worker_opens_no_closed_session_again():
    late = entered(0).flush(0)
    successor = entered(0)
    assert len(successor.advance(START + 60 * MINUTE, 1)) == 1
    restored = restore([*successor.flush(1), *late], "events-0", SessionSettings())
    assert (restored.offset, restored.open_sessions) == (1, 0)


def test_dropped_state_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        state = PartitionState("events-0", SessionSettings())
        reference = weakref.ref(state)
        del state
        assert reference() is None
    finally:
        gc.enable()
