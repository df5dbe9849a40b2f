"""Timers: keys come due at full minutes, in an order that follows from their times."""

from clickscore.schemas.durations import MINUTE_MS
from clickscore.stream.state.timers import TimerWheel


def wheel(*times: int) -> TimerWheel:
    made = TimerWheel()
    for time in times:
        made.add(str(time), time)
    return made


def due(made: TimerWheel, now: int) -> list[str]:
    return list(iter(lambda: made.pop(now), None))


def test_key_is_not_due_within_its_minute():
    assert due(wheel(10), MINUTE_MS - 1) == []


def test_key_is_due_at_the_next_full_minute():
    assert due(wheel(10), MINUTE_MS) == ["10"]


def test_key_at_a_full_minute_is_due_at_the_one_after():
    assert due(wheel(MINUTE_MS), MINUTE_MS) == []


def test_key_comes_due_once():
    made = wheel(10)
    due(made, MINUTE_MS)
    assert due(made, 10 * MINUTE_MS) == []


def test_minutes_come_in_their_order():
    assert due(wheel(3 * MINUTE_MS, MINUTE_MS, 2 * MINUTE_MS), 9 * MINUTE_MS) == ["60000", "120000", "180000"]


def test_keys_of_a_minute_come_by_name_however_they_were_added():
    assert due(wheel(30, 10, 20), MINUTE_MS) == due(wheel(20, 30, 10), MINUTE_MS) == ["10", "20", "30"]


def test_remaining_key_is_still_due():
    made = wheel(10, 20)
    made.pop(MINUTE_MS)
    assert made.is_due(MINUTE_MS)


def test_key_of_an_earlier_minute_that_is_added_in_the_middle_of_a_minute_comes_first():
    made = wheel(2 * MINUTE_MS + 10, 2 * MINUTE_MS + 20)
    assert made.pop(9 * MINUTE_MS) == "120010"
    made.add("late", MINUTE_MS)
    assert due(made, 9 * MINUTE_MS) == ["late", "120020"]


def test_key_of_the_same_minute_that_is_added_in_the_middle_of_it_comes_in_its_order():
    made = wheel(10, 30)
    assert made.pop(MINUTE_MS) == "10"
    made.add("20", 20)
    assert due(made, MINUTE_MS) == ["20", "30"]
