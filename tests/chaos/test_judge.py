"""Judge: it accepts what the pipeline writes, and it finds a planted error of each kind."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest

from clickscore.stream.settings import Settings
from tests.chaos.judge import Topics, Verdict, judge
from tests.chaos.privacy_records import with_identities, with_privacy_records
from tests.chaos.reactions import ends_of_windows
from tests.chaos.written_topics import Stored, rules_of, written_topics
from tests.integration.event_log import BEGAN, MEAN_GAP_MS, event_log

SETTINGS = Settings.of(gap_ms=300_000, max_events=20, max_bought=5, user_ttl_ms=900_000)

pytestmark = pytest.mark.slow

Spoil = Callable[[list[Stored]], list[Stored]]


@pytest.fixture(scope="module")
def good() -> Topics:
    return written_topics(with_privacy_records(event_log(1_200, seed=11, users=100), seed=11), SETTINGS, batch=40)


@pytest.fixture(scope="module")
def settled() -> Topics:
    """Return topics after a log at whose end every outcome is due."""
    log = with_privacy_records(event_log(500, seed=11, users=60), seed=11)
    return written_topics([*log, *ends_of_windows(BEGAN + 500 * MEAN_GAP_MS)], SETTINGS, batch=40, reacts=True)


@pytest.fixture(scope="module")
def handing() -> Topics:
    """Return topics with hand-overs of shoppers who react."""
    log = with_identities(event_log(500, seed=2, users=40), seed=2)
    return written_topics([*log, *ends_of_windows(BEGAN + 500 * MEAN_GAP_MS)], SETTINGS, batch=40, reacts=True)


def judged(topics: Topics) -> Verdict:
    return judge(topics, rules_of(SETTINGS), with_ads=True)


def spoiled(topics: Topics, name: str, spoil: Spoil) -> Topics:
    return topics._replace(**{name: {0: spoil(list(getattr(topics, name)[0]))}})


def without(index: int) -> Spoil:
    return lambda records: records[:index] + records[index + 1 :]


def changed(index: int, **fields: object) -> Spoil:
    """Return a spoil that changes fields of a JSON record."""

    def spoil(records: list[Stored]) -> list[Stored]:
        value = json.loads(records[index].value or b"")
        records[index] = replace(records[index], value=json.dumps({**value, **fields}).encode())
        return records

    return spoil


def foreign(index: int) -> Spoil:
    """Return a spoil that adds a record of an event that does not exist."""

    def spoil(records: list[Stored]) -> list[Stored]:
        value = (records[index].value or b"").replace(b"events-0-", b"events-0-99999")
        headers = tuple((name, b"999999" if name == "offset" else text) for name, text in records[index].headers)
        return [*records, replace(records[index], value=value, headers=headers)]

    return spoil


def repeated(index: int, suffix: bytes = b"") -> Spoil:
    """Return a spoil that writes a record again, with a suffix."""

    def spoil(records: list[Stored]) -> list[Stored]:
        value = records[index].value
        return [*records, replace(records[index], value=(value or b"") + suffix if suffix else value)]

    return spoil


def user_snapshots(records: Sequence[Stored], user: bytes) -> list[int]:
    return [index for index, record in enumerate(records) if record.key == user]


def older_snapshot_again(records: list[Stored]) -> list[Stored]:
    """Write a user's snapshot but one again at the end, as a stalled worker does."""
    return [*records, records[user_snapshots(records, b"user-1")[-2]]]


def older_tombstone_again(records: list[Stored], *, over_tombstone: bool) -> list[Stored]:
    """Write a user's tombstone again at the end, over a newer tombstone or over a newer state."""
    for key in dict.fromkeys(record.key for record in records if record.key):
        indices = user_snapshots(records, key)
        tombstones = [index for index in indices if not records[index].value]
        if tombstones and (tombstones[-1] == indices[-1]) == over_tombstone and tombstones[0] < indices[-1]:
            return [*records, records[tombstones[0]]]
    message = "no user was forgotten and came again"
    raise LookupError(message)


def last_snapshot_lost(records: list[Stored]) -> list[Stored]:
    return without(user_snapshots(records, b"user-1")[-1])(records)


def tombstone_lost(records: list[Stored]) -> list[Stored]:
    last = {record.key: index for index, record in enumerate(records)}
    return without(next(index for index in last.values() if not records[index].value))(records)


def partition_snapshot_lost(records: list[Stored]) -> list[Stored]:
    return without(user_snapshots(records, b"")[-1])(records)


def changed_state(position: int, content: object) -> Spoil:
    """Return a spoil that changes a field in the middle snapshot of a user."""

    def spoil(records: list[Stored]) -> list[Stored]:
        indices = [index for index in user_snapshots(records, b"user-1") if records[index].value]
        index = indices[len(indices) // 2]
        fields = msgspec.msgpack.decode(records[index].value or b"")
        fields[position] = content
        records[index] = replace(records[index], value=msgspec.msgpack.encode(fields))
        return records

    return spoil


PLANTED: dict[str, tuple[str, Spoil, str]] = {
    "decision dropped": ("recommendations", without(700), "missing"),
    "ad dropped": ("ads", without(700), "missing"),
    "closed session dropped": ("closed_sessions", without(30), "missing"),
    "dead letter dropped": ("dead_letters", without(5), "missing"),
    "all dropped": ("recommendations", lambda _: [], "missing"),
    "receipt dropped": ("receipts", without(1), "missing"),
    "receipt of nothing": ("receipts", foreign(1), "unexpected"),
    "wrong receipt": ("receipts", changed(1, user_id="other"), "wrong"),
    "consent overlooked": ("recommendations", changed(700, withheld=["ads"]), "wrong"),
    "wrong consent": ("snapshots", changed_state(12, [1, 0, 0, 0, b"", False]), "wrong state"),
    "decision of nothing": ("recommendations", foreign(700), "unexpected"),
    "ad of nothing": ("ads", foreign(700), "unexpected"),
    "closed session of nothing": ("closed_sessions", foreign(3), "unexpected"),
    "dead letter of nothing": ("dead_letters", foreign(3), "unexpected"),
    "wrong session": ("recommendations", changed(700, session_id="other"), "wrong"),
    "wrong length": ("recommendations", changed(700, session_length=99), "wrong"),
    "wrong lateness": ("recommendations", changed(700, late=True), "wrong"),
    "wrong user": ("recommendations", changed(700, user_id="other"), "wrong"),
    "wrong event": ("recommendations", changed(700, event_id="other"), "wrong"),
    "wrong ad": ("ads", changed(700, user_id="other"), "wrong"),
    "wrong key": ("recommendations", lambda records: [replace(records[0], key=b"other"), *records[1:]], "wrong"),
    "wrong outcome": ("closed_sessions", changed(30, purchased="perhaps"), "wrong"),
    "wrong events": ("closed_sessions", changed(30, events=[]), "wrong"),
    "wrong dead letter": ("dead_letters", lambda records: [replace(records[0], value=b"other"), *records[1:]], "wrong"),
    "unequal decision": ("recommendations", repeated(700, b" "), "unequal duplicate"),
    "unequal ad": ("ads", repeated(700, b" "), "unequal duplicate"),
    "unequal closed session": ("closed_sessions", repeated(30, b" "), "unequal duplicate"),
    "unequal dead letter": ("dead_letters", repeated(5, b" "), "unequal duplicate"),
    "stale key": ("snapshots", older_snapshot_again, "stale key"),
    "snapshot lost": ("snapshots", last_snapshot_lost, "wrong state"),
    "tombstone lost": ("snapshots", tombstone_lost, "wrong state"),
    "state of the partition lost": ("snapshots", partition_snapshot_lost, "missing"),
    "no state": ("snapshots", lambda _: [], "missing"),
    "wrong newest time": ("snapshots", changed_state(4, 1), "wrong state"),
    "wrong state length": ("snapshots", changed_state(5, 77), "wrong state"),
    "wrong bought items": ("snapshots", changed_state(11, ["other"]), "wrong state"),
    "wrong offset": ("snapshots", changed_state(0, 1), "wrong state"),
}


PLANTED_MONEY: dict[str, tuple[str, Spoil, str]] = {
    "outcome dropped": ("decision_outcomes", without(300), "missing"),
    "outcome of nothing": ("decision_outcomes", foreign(300), "unexpected"),
    "wrong lines": ("decision_outcomes", changed(300, lines=[{"item_id": "item-1", "placement": "list"}]), "wrong"),
    "unequal outcome": ("decision_outcomes", repeated(300, b" "), "unequal duplicate"),
    "revision of nothing": ("decision_outcomes", changed(300, revision=7), "unexpected"),
    "charge dropped": ("ad_charges", without(5), "missing"),
    "charge of nothing": ("ad_charges", changed(5, charge_id="other"), "unexpected"),
    "wrong amount": ("ad_charges", changed(5, net=7.77), "wrong"),
    "wrong campaign": ("ad_charges", changed(5, campaign_id="other"), "wrong"),
}


def test_judge_accepts_outcomes_and_charges_and_their_equal_repeats(settled: Topics) -> None:
    again = spoiled(spoiled(settled, "ad_charges", repeated(3)), "decision_outcomes", repeated(3))
    verdict = judged(again)
    assert (verdict.examples, verdict.duplicates) == ([], 2)
    assert verdict.joined > 10
    assert verdict.charged > 0


@pytest.mark.parametrize("name", PLANTED_MONEY)
def test_planted_error_of_outcomes_and_charges_is_found(settled: Topics, name: str) -> None:
    topic, spoil, kind = PLANTED_MONEY[name]
    assert judged(spoiled(settled, topic, spoil)).faults[kind] > 0


def with_handed(topics: Topics, spoil: Callable[[list[Any]], bool]) -> Topics:
    """Return topics with a spoiled hand-over.

    Args:
        topics: Topics with hand-overs.
        spoil: Spoils the decoded open decisions of a hand-over; returns whether anything was to be spoiled.
    """
    records = list(topics.events[0])
    for index, record in enumerate(records):
        if (record.value or b"").startswith(b'{"type":"handover"'):
            value = json.loads(record.value or b"")
            ledger = msgspec.msgpack.decode(
                b64decode(value.get("ledger") or b64encode(msgspec.msgpack.encode([[], []])))
            )
            if spoil(ledger):
                value["ledger"] = b64encode(msgspec.msgpack.encode(ledger)).decode()
                spoiled_value = json.dumps(value, separators=(",", ":")).encode()
                records[index] = Stored(record.offset, record.timestamp, record.key, spoiled_value)
                return topics._replace(events={0: records})
    message = "no hand-over has what is to be spoiled"
    raise AssertionError(message)


def drop_reactions(ledger: list[Any]) -> bool:
    pages = [page for page in ledger[0] if len(page) > 7 and page[7]]
    for page in pages:
        page[7] = []
    return bool(pages)


def drop_orders(ledger: list[Any]) -> bool:
    had_orders, ledger[1] = bool(ledger[1]), []
    return had_orders


def drop_page(ledger: list[Any]) -> bool:
    had_pages = len(ledger[0]) > 1
    del ledger[0][:1]
    return had_pages


@pytest.mark.parametrize("spoil", [drop_reactions, drop_orders, drop_page])
def test_handover_that_drops_open_decisions_is_a_fault(handing: Topics, spoil: Callable[[list[Any]], bool]) -> None:
    verdict = judged(with_handed(handing, spoil))
    assert any(example.startswith("wrong: hand-over") for example in verdict.examples)


def test_judge_accepts_handovers_of_open_decisions(handing: Topics) -> None:
    assert judged(handing).examples == []


def test_older_tombstone_over_a_tombstone_hides_nothing(good: Topics) -> None:
    topics = spoiled(good, "snapshots", partial(older_tombstone_again, over_tombstone=True))
    assert judged(topics).examples == []


def test_older_tombstone_over_a_state_is_a_fault(good: Topics) -> None:
    topics = spoiled(good, "snapshots", partial(older_tombstone_again, over_tombstone=False))
    assert judged(topics).faults["stale key"] == 1


def test_judge_accepts_what_the_pipeline_writes(good: Topics) -> None:
    verdict = judged(good)
    assert (verdict.examples, verdict.duplicates, verdict.events) == ([], 0, len(good.events[0]))
    assert verdict.users > 20
    assert verdict.closed_sessions > 30


@pytest.mark.parametrize("name", ["recommendations", "ads", "closed_sessions", "dead_letters", "receipts"])
def test_equal_duplicate_is_counted_and_is_no_fault(good: Topics, name: str) -> None:
    verdict = judged(spoiled(good, name, repeated(3)))
    assert (verdict.examples, verdict.duplicates) == ([], 1)


def test_stale_key_that_is_written_again_is_no_fault(good: Topics) -> None:
    repaired = spoiled(good, "snapshots", lambda records: [*older_snapshot_again(records), *records[-1:]])
    newest = user_snapshots(repaired.snapshots[0], b"user-1")[-2]
    rewritten = spoiled(repaired, "snapshots", lambda records: [*records, records[newest]])
    assert judged(rewritten).examples == []


@pytest.mark.parametrize("name", PLANTED)
def test_planted_error_is_found(good: Topics, name: str) -> None:
    topic, spoil, kind = PLANTED[name]
    verdict = judged(spoiled(good, topic, spoil))
    assert verdict.faults[kind] > 0
    assert any(example.startswith(kind) for example in verdict.examples)
