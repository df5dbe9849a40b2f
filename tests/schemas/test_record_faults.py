"""Record faults: what is wrong with a record of `clickstream-events`, in a sentence with the field."""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest

from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.events import Epoch, decode_record, encode_event
from clickscore.schemas.open_decisions import OpenDecision, UserLedger, encode_ledger
from clickscore.schemas.record_faults import describe_record_fault
from tests.events import handed_session, handover

TYPES = "view, cart, remove_from_cart, favourite, purchase, click, search, impression, consent, erase, identify"
TS = 1_700_000_000_000


def view(**changes: Any) -> bytes:
    return msgspec.json.encode({"type": "view", "event_id": "e", "user_id": "u", "ts": TS, "item_id": "i"} | changes)


def described(text: bytes) -> str:
    with pytest.raises(ValueError) as refused:
        decode_record(text)
    return describe_record_fault(refused.value, text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"[1, 2]", "the value is no JSON object, where an event is expected"),
        (b"null", "the value is no JSON object, where an event is expected"),
        (b"{}", f"type is missing: it must be one of {TYPES}"),
        (view(type="teleport"), f"type must be one of {TYPES}, not 'teleport'"),
        (view(type=["view"]), f"type must be one of {TYPES}, not ['view']"),
        (b'{"type":"view"}', "event_id is missing"),
        (view(item_id=7), "item_id must be text, not 7"),
        (view(user_id=""), "user_id must have at least 1 character, not 0"),
        (view(ts="soon"), "ts must be a whole number, not 'soon'"),
        (view(price=-1), "price must be at least 0, not -1"),
        (
            view(placements=["A"]),
            "placements[0] must have at most 64 small letters, digits and `_`, a letter first, not 'A'",
        ),
        (view(type="purchase", quantity=0), "quantity must be at least 1, not 0"),
        (view(client="ghost"), "client must be one of agent, bot, shopper, not 'ghost'"),
        (view(type="consent", granted=["fun"]), "granted[0] must be one of ads, personalisation, training, not 'fun'"),
        (view(type="consent"), "no purpose is named in `granted` or `withdrawn`"),
        (view(type="tick", ts=None), "ts must be a whole number, not null"),
    ],
)
def test_fault_is_a_sentence_with_the_field(text: bytes, sentence: str):
    assert described(text) == sentence


def test_time_of_another_unit_keeps_its_own_sentence():
    assert described(view(ts=TS // 1000)).startswith("ts looks like seconds: it must be milliseconds since 1970")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"surely no JSON", "malformed"),
        (b"[" * 1000, "nested deeper than 64 levels"),
        (b'{"type":"view","user_id":"\xff"}', "utf-8"),
        (view(item_id=7)[:-1] + b", x}", "Expected `str`, got `int` - at `$.item_id`"),
        (view(item_id=7)[:-1] + b',"item_id":"i"}', "Expected `str`, got `int` - at `$.item_id`"),
    ],
)
def test_text_that_is_no_json_or_has_a_field_twice_keeps_the_words_of_the_decoder(text: bytes, words: str):
    assert words in described(text)


def mutations(value: Any) -> Iterator[Any]:
    """Yield a value with each of its parts replaced, or left out."""
    yield from (None, True, -1, 1.5, "", "x" * 300, [], {}, [[]], {"a": 1}, 2**63)
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        for name in fields:
            yield {other: fields[other] for other in fields if other != name}
            for part in mutations(fields[name]):
                yield fields | {name: part}
    elif isinstance(value, list):
        parts = cast("list[Any]", value)
        for index in range(len(parts)):
            yield parts[:index] + parts[index + 1 :]
            for part in mutations(parts[index]):
                yield [*parts[:index], part, *parts[index + 1 :]]


LEDGER = encode_ledger(UserLedger([OpenDecision(0, 0, TS, "model", b"")]))
RECORDS = [
    *(msgspec.json.decode(view(type=kind)) for kind in ("view", "impression", "purchase", "search", "erase", "tick")),
    msgspec.json.decode(view(placements=["top"], client="bot", region="de", campaign_id="c", quantity=1)),
    msgspec.json.decode(view(type="consent", granted=["ads"], withdrawn=["training"])),
    msgspec.json.decode(view(type="identify", identified_as="ann")),
    msgspec.json.decode(encode_event(handover("ann", 2, handed_session(0, 1), ledger=LEDGER, bought=("a",)))),
    msgspec.json.decode(msgspec.json.encode(Epoch(number=1, catalogue=2, campaigns=3, bundle="b"))),
    {"type": "lease", "ts": TS, "number": 1, "day": TS // DAY_MS, "ends_at": TS, "campaigns": [["c", 5, 0.5]]},
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["type"])
def test_no_fault_of_any_record_is_beyond_words(record: dict[str, Any]):
    decode_record(msgspec.json.encode(record))
    for value in mutations(record):
        text = msgspec.json.encode(value)
        with contextlib.suppress(ValueError):
            decode_record(text)
            continue
        assert described(text)
