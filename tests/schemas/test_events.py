"""Events: what a wrong event time is called."""

import msgspec
import pytest

from clickscore.schemas.events import View, decode_record


def decode(ts: str, **others: str) -> object:
    fields = {"type": "view", "event_id": "e", "user_id": "u", "item_id": "i", **others}
    return decode_record(msgspec.json.encode({**fields, "ts": msgspec.Raw(ts.encode())}))


@pytest.mark.parametrize(
    ("ts", "unit"),
    [
        ("0", "seconds"),
        ("1767605470", "seconds"),
        ("1767605470.25", "seconds"),
        ("946684799999", "seconds"),
        ("1767605470000000", "microseconds"),
        ("253402300800000", "microseconds"),
        ("1767605470000000000", "nanoseconds"),
        ("-1", "a time before 1970"),
    ],
)
def test_wrong_unit_is_named(ts: str, unit: str):
    with pytest.raises(msgspec.ValidationError, match=f"ts looks like {unit}: it must be milliseconds"):
        decode(ts)


@pytest.mark.parametrize("ts", ["946684800000", "253402300799999"])
def test_first_and_last_time_are_allowed(ts: str):
    assert decode(ts) == View(event_id="e", user_id="u", ts=int(ts), item_id="i")


@pytest.mark.parametrize("ts", ['"2026-01-05T10:00:00Z"', "1767605470000.5", "null"])
def test_other_faults_of_the_time_keep_their_words(ts: str):
    with pytest.raises(msgspec.DecodeError) as caught:
        decode(ts)
    assert "looks like" not in str(caught.value)


def test_fault_of_another_field_comes_first():
    with pytest.raises(msgspec.ValidationError, match="user_id"):
        decode("1767605470", user_id="")
