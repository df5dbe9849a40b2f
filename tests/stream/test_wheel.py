"""Wheel: keys come due at full minutes."""

from stream.wheel import MINUTE_MS, TimeWheel


def wheel(*times: int) -> TimeWheel:
    made = TimeWheel()
    for time in times:
        made.add(str(time), time)
    return made


def test_key_is_not_due_within_its_minute():
    assert wheel(10).due(MINUTE_MS - 1) == []


def test_key_is_due_at_the_next_full_minute():
    assert wheel(10).due(MINUTE_MS) == ["10"]


def test_key_at_a_full_minute_is_due_at_the_one_after():
    assert wheel(MINUTE_MS).due(MINUTE_MS) == []


def test_key_comes_due_once():
    made = wheel(10)
    made.due(MINUTE_MS)
    assert made.due(10 * MINUTE_MS) == []


def test_minutes_come_in_their_order():
    assert wheel(3 * MINUTE_MS, MINUTE_MS, 2 * MINUTE_MS).due(9 * MINUTE_MS) == ["60000", "120000", "180000"]
