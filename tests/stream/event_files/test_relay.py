"""Relay without a broker: the events, the dead letters and the ids of the records of a topic."""

import json

import pytest

from clickscore.schemas.events import decode_record
from clickscore.schemas.topics import DEAD_LETTERS, EVENTS
from clickscore.stream.errors import SettingsError
from clickscore.stream.event_files.formats.mapping_files import read_mapping
from clickscore.stream.event_files.relay import RecordMapper, RelayedRecord, RelayTally, check_source
from clickscore.stream.settings import KafkaSettings
from tests.memory_kafka import StoredRecord

CALL = {"type": "track", "event": "Product Viewed", "userId": "anna", "timestamp": "2026-03-01T08:00:00Z"}


def outgoing(mapping: str, value: bytes | None) -> tuple[list[RelayedRecord], RelayTally]:
    tally = RelayTally()
    mapper = RecordMapper(read_mapping(mapping), tally, max_event_bytes=200)
    record = StoredRecord("calls", 3, 17, -1, b"k", value, ())
    return mapper.outgoing(record), tally  # type: ignore[arg-type]


def test_event_goes_to_its_user() -> None:
    call = CALL | {"messageId": "m1", "properties": {"product_id": "p1"}}
    (event,), tally = outgoing("segment", json.dumps(call, indent=1).encode())
    assert (event.topic, event.key) == (EVENTS.name, b"anna")
    assert decode_record(event.value).event_id == "m1"  # type: ignore[union-attr]
    assert (tally.read, tally.ignored, tally.dead.total) == (1, 0, 0)


def test_record_without_an_id_is_named_by_its_place_in_the_topic() -> None:
    call = CALL | {"properties": {"product_id": "p1", "products": [{"sku": "a"}, {"sku": "b"}]}}
    events, _ = outgoing("segment", json.dumps(call).encode())
    assert [decode_record(event.value).event_id for event in events] == [  # type: ignore[union-attr]
        "calls-3-17-0",
        "calls-3-17-1",
    ]


def test_ignored_record_is_counted() -> None:
    sent, tally = outgoing("segment", json.dumps(CALL | {"event": "Signed Up"}).encode())
    assert (sent, tally.ignored) == ([], 1)


@pytest.mark.parametrize(
    ("mapping", "value", "words"),
    [
        ("segment", json.dumps(CALL).encode(), "item_id is missing"),
        ("segment", b"\xff", "no JSON object"),
        ("segment", None, "the record has no value"),
        ("retailrocket", b"1433221332117,1,view,2,", "no header that names the columns"),
    ],
)
def test_record_that_cannot_be_mapped_is_a_dead_letter_with_place_and_reason(
    mapping: str, value: bytes | None, words: str
) -> None:
    (letter,), tally = outgoing(mapping, value)
    headers = dict(letter.headers)
    assert (letter.topic, letter.key, letter.value) == (DEAD_LETTERS.name, b"k", value or b"")
    assert (headers["topic"], headers["partition"], headers["offset"]) == (b"calls", b"3", b"17")
    assert words in headers["error"].decode()
    assert tally.dead.total == 1


def test_long_dead_letter_is_cut() -> None:
    (letter,), _ = outgoing("segment", b"x" * 201)
    assert len(letter.value) == 200
    assert dict(letter.headers)["cut-from-bytes"] == b"201"


def test_relay_does_not_read_its_own_output() -> None:
    settings = KafkaSettings(topic_prefix="t-")
    check_source(settings, EVENTS.name)
    with pytest.raises(SettingsError, match="t-clickstream-events is a topic of Clickscore"):
        check_source(settings, "t-clickstream-events")
