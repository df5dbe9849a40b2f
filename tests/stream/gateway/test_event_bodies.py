import json
from typing import Any

import pytest

from clickscore.stream.errors import RequestError
from clickscore.stream.gateway.event_bodies import MAX_FAULTS, EventFault, read_events
from clickscore.stream.settings import SessionSettings

NOW = 1_767_605_400_000


def event(**changes: Any) -> dict[str, Any]:
    return {"type": "view", "event_id": "e1", "user_id": "anna", "ts": NOW, "item_id": "cup", **changes}


def read(body: object, **settings: int) -> list[bytes]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [incoming.value for incoming in read_events(text, SessionSettings(**settings), NOW)]


def refusal(body: object, **settings: int) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(body, **settings)
    assert caught.value.status == 400
    return caught.value


def test_event_is_stored_byte_for_byte_with_unknown_fields() -> None:
    text = json.dumps(event(colour="blue")).encode()
    assert read(text) == [text]
    assert read(b" \n[" + text + b" ,\n" + text + b"]") == [text, text]


def test_identification_is_stored_under_the_anonymous_id_and_gets_no_decision() -> None:
    fields = {"type": "identify", "event_id": "e1", "user_id": "cookie", "ts": NOW, "identified_as": "anna"}
    (incoming,) = read_events(json.dumps(fields).encode(), SessionSettings(), NOW)
    assert (incoming.key, incoming.gets_decision) == (b"cookie", False)


def test_key_is_the_user_id() -> None:
    (incoming,) = read_events(json.dumps(event(user_id="zoë")).encode(), SessionSettings(), NOW)
    assert incoming.key == "zoë".encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "malformed|truncated"),
        (b"{", "malformed|truncated"),
        (b"[", "no list of events"),
        (b"[]", "no event"),
        (b"[1]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"type":"view","user_id":"\xff"}', "utf-8|UTF-8"),
        (event(type="hug"), "^type must be one of view, cart, .*, not 'hug'$"),
        (event(ts=1_767_605_400), "ts looks like seconds"),
        (event(user_id=""), "^user_id must have at least 1 character, not 0$"),
        ({"type": "tick", "ts": NOW}, "type tick: only Clickscore"),
        ({"type": "epoch", "number": 1, "catalogue": 2, "campaigns": 3}, "type epoch: only Clickscore"),
        (
            {"type": "handover", "user_id": "u", "anonymous_id": "a", "ts": NOW, "partition": 0, "offset": 1},
            "type handover: only Clickscore",
        ),
        ({"type": "identify", "event_id": "e", "user_id": "u", "ts": NOW, "identified_as": "u"}, "are the same"),
        (event(ts=NOW + 300_001), "in the future"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 100, "nested deeper"),
    ],
)
def test_faults_are_named(body: object, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        read(body)


def test_limits_are_those_of_the_worker() -> None:
    assert "max_event_bytes (50)" in str(refusal(event(), max_event_bytes=50))
    assert read(event(ts=NOW + 300_000))
    assert read(event(ts=NOW - 10**10))
    assert "past_ms (1000)" in str(refusal(event(ts=NOW - 1001), past_ms=1000))


def test_a_fault_of_one_event_refuses_all_and_names_its_place() -> None:
    error = refusal([event(), event(ts="now"), event(item_id=7)])
    assert [(fault.index, fault.error) for fault in error.faults if isinstance(fault, EventFault)] == [
        (1, "ts must be a whole number, not 'now'"),
        (2, "item_id must be text, not 7"),
    ]
    assert "2 of 3 events have a fault, so no event is stored" in str(error)
    assert len(refusal([1] * 1000).faults) == MAX_FAULTS
