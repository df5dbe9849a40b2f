"""Expiry: what is remembered of users ends with its time, and never within an open session."""

from clickscore.schemas.durations import MINUTE_MS
from clickscore.schemas.snapshots import UserState
from clickscore.stream.state.expiry import ExpiryTimers

HOUR = 60 * MINUTE_MS


def remembering(user: UserState) -> int | None:
    """Return an hour after the user's last event, for a user who has bought something."""
    return user.last_ts + HOUR if user.bought else None


def ended(timers: ExpiryTimers, users: dict[str, UserState], now_ms: int, limit: int = 10) -> list[str]:
    return [user_id for user_id, _ in timers.pop_ended(now_ms, limit, users.__getitem__)]


def timers_of(users: dict[str, UserState]) -> ExpiryTimers:
    timers = ExpiryTimers(remembering)
    for user_id, user in users.items():
        timers.add(user_id, user)
    return timers


def test_part_ends_at_the_first_full_minute_after_its_time():
    users = {"ann": UserState(bought=["tea"], last_ts=30_000)}
    timers = timers_of(users)
    assert not timers.is_due(HOUR + MINUTE_MS - 1)
    assert ended(timers, users, HOUR + MINUTE_MS) == ["ann"]


def test_later_event_moves_the_end():
    users = {"ann": UserState(bought=["tea"])}
    timers = timers_of(users)
    users["ann"].last_ts = HOUR
    assert ended(timers, users, HOUR + MINUTE_MS) == []
    assert ended(timers, users, 2 * HOUR + MINUTE_MS) == ["ann"]


def test_open_session_keeps_the_part_to_its_end():
    users = {"ann": UserState(bought=["tea"], length=1)}
    timers = timers_of(users)
    assert ended(timers, users, 3 * HOUR) == []
    users["ann"].length = 0
    timers.end_session("ann", users["ann"])
    assert ended(timers, users, 3 * HOUR) == ["ann"]


def test_part_that_was_forgotten_within_the_session_sets_no_timer_at_its_end():
    users = {"ann": UserState(bought=["tea"], length=1)}
    timers = timers_of(users)
    assert ended(timers, users, 3 * HOUR) == []
    users["ann"] = UserState()
    timers.end_session("ann", users["ann"])
    assert not timers.is_due(9 * HOUR)


def test_limit_leaves_the_rest_for_the_next_call():
    users = {f"user-{number}": UserState(bought=["tea"]) for number in range(3)}
    timers = timers_of(users)
    assert ended(timers, users, 2 * HOUR, limit=2) == ["user-0", "user-1"]
    assert timers.is_due(2 * HOUR)
    assert ended(timers, users, 2 * HOUR, limit=2) == ["user-2"]


def test_removed_user_comes_out_no_more():
    users = {"ann": UserState(bought=["tea"]), "ben": UserState(bought=["pot"])}
    timers = timers_of(users)
    timers.remove({"ann"})
    assert ended(timers, users, 2 * HOUR) == ["ben"]
