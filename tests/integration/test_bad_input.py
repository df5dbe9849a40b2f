"""Bad input on the real topic, through a real worker: each kind on its own."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from aiokafka import ConsumerRecord

from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.events import Cart, View, encode_event
from clickscore.schemas.manifest import Manifest, decode_manifest
from clickscore.schemas.topics import DEAD_LETTERS, RECOMMENDATIONS
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.partition import PartitionState
from tests.integration.comparison import headers, remembered, restored_states
from tests.integration.event_log import BEGAN, MINUTE_MS, Sent
from tests.integration.live import Installation, Worker, installation

pytestmark = pytest.mark.kafka

KEY = b"somebody"


def event(**fields: Any) -> bytes:
    return msgspec.json.encode(
        {"type": "view", "event_id": "bad", "user_id": "u", "ts": BEGAN, "item_id": "item-1", **fields}
    )


def without(field: str) -> bytes:
    return msgspec.json.encode({name: value for name, value in msgspec.json.decode(event()).items() if name != field})


def view(user: str, event_id: str, minute: float = 0, item: str = "item-1", **fields: Any) -> bytes:
    ts = BEGAN + int(minute * MINUTE_MS)
    return encode_event(View(event_id=event_id, user_id=user, ts=ts, item_id=item, **fields))


def nested(depth: int) -> bytes:
    """Return an event with an unknown field of nested arrays."""
    return event()[:-1] + b', "x": %b}' % (b"[" * depth + b"]" * depth)


BAD: dict[str, tuple[bytes | None, str]] = {
    "not JSON": (b"surely no JSON", "malformed"),
    "half an event": (event()[:-20], "truncated"),
    "an empty value": (b"", "truncated"),
    "a list": (b"[1, 2]", "the value is no JSON object"),
    "a number": (b"17", "the value is no JSON object"),
    "nested deeper than anybody reads": (nested(9_000), "nested deeper than 64 levels"),
    "nested deeper than the limit": (nested(64), "nested deeper than 64 levels"),
    "a field of the wrong type": (event(item_id=7), "item_id must be text, not 7"),
    "a missing field": (without("user_id"), "user_id is missing"),
    "an empty user id": (event(user_id=""), "user_id must have at least 1 character, not 0"),
    "2 MB": (event(category="x" * 2_000_000), "bytes, more than max_event_bytes (65536)"),
    "wrong encoding": (event(item_id="caf").replace(b"caf", "café".encode("latin-1")), "utf-8"),
    "null": (None, "the value is null"),
    "ts more than five minutes ahead": (event(ts=int(time.time() * 1000) + 60 * MINUTE_MS), "after the append time"),
    "ts after the year 9999": (event(ts=999_999_999_999_999), "ts looks like microseconds"),
    "ts in seconds": (event(ts=1_767_605_470), "ts looks like seconds"),
    "negative ts": (event(ts=-1), "ts looks like a time before 1970"),
    "ts as a text": (event(ts="soon"), "ts must be a whole number, not 'soon'"),
    "ts with a fraction": (event(ts=BEGAN + 0.5), "ts must be a whole number, not 17"),
    "no ts": (without("ts"), "ts is missing"),
    "unknown event type": (event(type="teleport"), "type must be one of view, cart, "),
    "no event type": (without("type"), "type is missing: it must be one of view, cart, "),
}

OWN = partition_of(b"stranger", 4)
WRONG = (OWN + 1) % 4
GOOD = [
    Sent(view("before", "first"), b"before", 0),
    # Unknown fields
    Sent(view("newer", "unknown-fields")[:-1] + b', "mood": "good", "cart_size": [1, 2]}', b"newer"),
    # Late: the partition's newest event is 20 minutes on, and the allowance is 5
    Sent(view("tardy", "in-time", minute=0), b"tardy", 1),
    Sent(view("fast", "newest", minute=20), b"fast", 1),
    Sent(view("tardy", "too-late", minute=10, item="item-2"), b"tardy", 1),
    Sent(view("tardy", "in-time-again", minute=21, item="item-3"), b"tardy", 1),
    # An item that the model has never seen
    Sent(view("explorer", "seen", item="item-5"), b"explorer"),
    Sent(view("explorer", "seen-and-unseen", minute=1, item="novelty"), b"explorer"),
    Sent(view("pioneer", "unseen-alone", item="novelty"), b"pioneer"),
    # A producer with another partitioner
    Sent(view("stranger", "elsewhere"), b"stranger", WRONG),
    Sent(encode_event(Cart(event_id="elsewhere-again", user_id="stranger", ts=BEGAN, item_id="item-2")), KEY, WRONG),
    Sent(view("torn", "one-side"), b"torn", 2),
    Sent(view("torn", "other-side", minute=1), b"torn", 3),
]


class Outcome(NamedTuple):
    worker: Worker
    events: list[ConsumerRecord]
    letters: list[ConsumerRecord]
    decisions: dict[str, tuple[ConsumerRecord, Recommendation]]
    """By event id."""
    states: dict[int, PartitionState]

    def decision(self, event_id: str) -> Recommendation:
        return self.decisions[event_id][1]

    def remembered(self, user: str) -> dict[int, bytes]:
        """The user's snapshot in each partition that has one."""
        return {number: found[user] for number, state in self.states.items() if user in (found := remembered(state))}


def run(live: Installation, log: list[Sent]) -> Outcome:
    worker = live.start_worker()
    live.produce(log)
    live.wait_finished()
    worker.stop()
    decided = [record for records in live.read(RECOMMENDATIONS).values() for record in records]
    decisions = {decision.event_id: (record, decision) for record in decided if (decision := decode(record))}
    assert len(decisions) == len(decided)
    return Outcome(
        worker=worker,
        events=live.events(),
        letters=[record for records in live.read(DEAD_LETTERS).values() for record in records],
        decisions=decisions,
        states=restored_states(live),
    )


def decode(record: ConsumerRecord) -> Recommendation:
    decision = decode_decision(record.value)
    assert isinstance(decision, Recommendation)
    return decision


@pytest.fixture(scope="module")
def outcome(broker: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    bad = [Sent(value, KEY, 0) for value, _ in BAD.values()]
    last = Sent(view("after", "last"), b"after", 0)
    with installation(broker, tmp_path_factory.mktemp("bad"), bundle=str(bundle)) as live:
        return run(live, [GOOD[0], *bad, *GOOD[1:], last])


@pytest.fixture(scope="module")
def strict(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What becomes of the good events where late ones go to the dead letters; no bundle, so nothing is scored."""
    with installation(broker, tmp_path_factory.mktemp("strict"), late_events="dead-letter") as live:
        return run(live, GOOD)


@pytest.fixture
def manifest(bundle: Path) -> Manifest:
    return decode_manifest((bundle / "manifest.json").read_bytes())


def letters_of(outcome: Outcome, value: bytes | None) -> list[ConsumerRecord]:
    """Return the dead letters of a record: its raw bytes, cut to the largest event that is read."""
    stored = value if value is None else value[: SessionSettings().max_event_bytes]
    return [letter for letter in outcome.letters if letter.value == stored]


@pytest.mark.parametrize("kind", BAD)
def test_bad_record_is_one_dead_letter_with_its_raw_bytes_and_key(kind: str, outcome: Outcome) -> None:
    assert [letter.key for letter in letters_of(outcome, BAD[kind][0])] == [KEY]


def test_dead_letter_that_is_cut_says_the_size_of_its_record(outcome: Outcome) -> None:
    value = BAD["2 MB"][0]
    (letter,) = letters_of(outcome, value)
    assert headers(letter)["cut-from-bytes"] == str(len(value or b""))


@pytest.mark.parametrize("kind", BAD)
def test_dead_letter_says_where_the_record_was(kind: str, outcome: Outcome) -> None:
    value = BAD[kind][0]
    (letter,) = letters_of(outcome, value)
    (record,) = (record for record in outcome.events if record.value == value)
    says = headers(letter)
    assert (says["topic"], says["partition"], says["offset"]) == (record.topic, "0", str(record.offset))


@pytest.mark.parametrize("kind", BAD)
def test_dead_letter_says_in_words_what_is_wrong(kind: str, outcome: Outcome) -> None:
    value, words = BAD[kind]
    (letter,) = letters_of(outcome, value)
    assert words in headers(letter)["error"]


def test_nothing_else_is_a_dead_letter(outcome: Outcome) -> None:
    assert len(outcome.letters) == len(BAD)


def test_stream_goes_on_after_bad_records(outcome: Outcome) -> None:
    assert {"first", "last"} <= outcome.decisions.keys()


def test_nothing_is_decided_on_a_bad_record(outcome: Outcome) -> None:
    assert "bad" not in outcome.decisions


def test_unknown_fields_are_skipped(outcome: Outcome) -> None:
    assert outcome.decision("unknown-fields").session_length == 1


def test_event_beyond_the_allowance_is_decided_and_said_to_be_late(outcome: Outcome) -> None:
    assert outcome.decision("too-late").late


def test_late_event_is_decided_from_the_session_as_it_stands(outcome: Outcome) -> None:
    late, before = outcome.decision("too-late"), outcome.decision("in-time")
    assert (late.session_id, late.session_length, late.items) == (before.session_id, 1, before.items)


def test_late_event_changes_no_state(outcome: Outcome) -> None:
    assert outcome.decision("in-time-again").session_length == 2
    assert b"item-2" not in outcome.remembered("tardy")[1]


def test_late_event_is_a_dead_letter_where_the_setting_says_so(strict: Outcome) -> None:
    (letter,) = strict.letters
    assert msgspec.json.decode(letter.value)["event_id"] == "too-late"
    assert headers(letter)["error"] == f"late: {10 * MINUTE_MS} ms behind the newest event"
    assert "too-late" not in strict.decisions


def test_late_dead_letter_changes_no_state(strict: Outcome) -> None:
    assert strict.decision("in-time-again").session_length == 2


def test_item_that_the_model_has_never_seen_is_kept_in_the_session(outcome: Outcome) -> None:
    assert outcome.decision("seen-and-unseen").session_length == 2
    (snapshot,) = outcome.remembered("explorer").values()
    assert b"novelty" in snapshot


def test_session_is_scored_without_the_item_that_the_model_has_never_seen(outcome: Outcome, manifest: Manifest) -> None:
    with_it, before = outcome.decision("seen-and-unseen"), outcome.decision("seen")
    assert with_it.bundle == manifest.version
    assert (with_it.items, with_it.actions, with_it.purchase) == (before.items, before.actions, before.purchase)


def test_session_with_nothing_that_the_model_knows_gets_what_is_popular(outcome: Outcome) -> None:
    decision = outcome.decision("unseen-alone")
    assert decision.bundle is None
    assert len(decision.items) == 10
    assert {choice.reason for choice in decision.items} == {"popular"}


@pytest.mark.parametrize("event_id", ["elsewhere", "elsewhere-again"])
def test_decision_follows_the_partition_that_the_event_came_in(event_id: str, outcome: Outcome) -> None:
    record, decision = outcome.decisions[event_id]
    assert record.partition == WRONG
    assert decision.decision_id.rsplit("-", 2)[1] == str(WRONG)


def test_session_goes_on_in_the_partition_that_the_events_come_in_whatever_their_key(outcome: Outcome) -> None:
    assert outcome.decision("elsewhere-again").session_length == 2


def test_state_lies_in_the_partition_that_the_events_came_in(outcome: Outcome) -> None:
    assert outcome.remembered("stranger").keys() == {WRONG}


def test_user_whose_events_come_in_two_partitions_has_a_session_in_each(outcome: Outcome) -> None:
    assert outcome.remembered("torn").keys() == {2, 3}
    assert outcome.decision("other-side").session_length == 1
