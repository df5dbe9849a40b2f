"""Verify: a replay compared with published decisions, on a log in memory."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from clickscore.schemas.topics import ADS, EVENTS, RECOMMENDATIONS
from clickscore.stream.errors import TopicMissingError
from clickscore.stream.pipeline_records import Message, Output
from clickscore.stream.replay.source import OffsetRange
from clickscore.stream.replay.verify import MAX_SHOWN, DecisionDiff, DiffSummary
from clickscore.stream.settings import Settings
from tests.memory_kafka import MemoryLog

EVENT_COUNT = 40
FIRST = 100
"""Offset of the first replayed event."""


def decision(offset: int, text: str = "", suffix: str = "") -> bytes:
    return msgspec.json.encode({"decision_id": f"{EVENTS.name}-0-{offset}{suffix}", "text": text})


def compared(
    folder: Path, published: Sequence[bytes | None], replayed: Sequence[bytes], topic: str = RECOMMENDATIONS.name
) -> DiffSummary:
    """Return how a replay compares with what a topic holds."""

    async def run() -> DiffSummary:
        log = MemoryLog()
        for value in published:
            log.append(topic, 0, None, value)
        diff = DecisionDiff(Settings().kafka, topic, EVENTS.name, folder, log.open_reader)
        await diff.read_published({0: OffsetRange(FIRST, FIRST + EVENT_COUNT, warm_up=FIRST, log_begin=0)}, {topic: 1})
        messages = [Message(None, value) for value in replayed]
        diff.compare(0, Output(recommendations=messages, ads=messages))
        return await diff.summarise()

    return asyncio.run(run())


def test_equal_decisions_are_identical(tmp_path: Path):
    decisions = [decision(FIRST), decision(FIRST + 1)]
    summary = compared(tmp_path, decisions, decisions)
    assert (summary.identical, summary.equal) == (True, 2)


def test_order_of_publication_does_not_matter(tmp_path: Path):
    decisions = [decision(FIRST), decision(FIRST + 1)]
    assert compared(tmp_path, decisions[::-1], decisions).identical


def test_decision_with_other_bytes_is_shown_with_both(tmp_path: Path):
    summary = compared(tmp_path, [decision(FIRST, "a")], [decision(FIRST, "b")])
    assert (summary.identical, summary.different) == (False, 1)
    (shown,) = summary.differences
    assert (shown.published, shown.replayed) == (decision(FIRST, "a"), decision(FIRST, "b"))


def test_unpublished_decision_is_missing(tmp_path: Path):
    summary = compared(tmp_path, [], [decision(FIRST)])
    assert (summary.identical, summary.missing, summary.missing_ids) == (False, 1, [f"{EVENTS.name}-0-{FIRST}"])


def test_decision_that_is_not_replayed_is_extra(tmp_path: Path):
    summary = compared(tmp_path, [decision(FIRST)], [])
    assert (summary.identical, summary.extra, summary.extra_ids) == (False, 1, [f"{EVENTS.name}-0-{FIRST}"])


def test_repeat_with_equal_bytes_is_no_difference(tmp_path: Path):
    summary = compared(tmp_path, [decision(FIRST), decision(FIRST)], [decision(FIRST)])
    assert (summary.identical, summary.equal, summary.repeats) == (True, 1, 1)


def test_second_decision_with_other_bytes_is_a_difference(tmp_path: Path):
    summary = compared(tmp_path, [decision(FIRST, "a"), decision(FIRST, "b")], [decision(FIRST, "a")])
    assert (summary.identical, summary.different) == (False, 1)
    assert summary.differences[0].published == decision(FIRST, "b")


def test_decisions_on_events_outside_of_the_replay_do_not_count(tmp_path: Path):
    outside = [decision(FIRST - 1), decision(FIRST + EVENT_COUNT)]
    assert compared(tmp_path, outside, []) == DiffSummary()


@pytest.mark.parametrize("value", [b"broken", b"\xff", None, b'{"decision_id":"another-0-100"}'])
def test_record_that_is_no_decision_on_an_event_of_the_partition_is_unreadable(tmp_path: Path, value: bytes | None):
    summary = compared(tmp_path, [value], [])
    assert (summary.identical, summary.unreadable) == (False, 1)


def test_ads_are_compared_by_the_id_of_their_event(tmp_path: Path):
    ads = [decision(FIRST, suffix="-ad")]
    assert compared(tmp_path, ads, ads, ADS.name).equal == 1


def test_only_the_first_differences_are_shown(tmp_path: Path):
    offsets = range(FIRST, FIRST + MAX_SHOWN + 1)
    different = compared(tmp_path, [decision(n, "a") for n in offsets], [decision(n, "b") for n in offsets])
    assert (different.different, len(different.differences)) == (MAX_SHOWN + 1, MAX_SHOWN)


def test_only_the_first_missing_and_extra_ids_are_shown(tmp_path: Path):
    offsets = range(FIRST, FIRST + MAX_SHOWN + 1)
    missing = compared(tmp_path, [], [decision(n) for n in offsets])
    assert (missing.missing, len(missing.missing_ids)) == (MAX_SHOWN + 1, MAX_SHOWN)
    extra = compared(tmp_path, [decision(n) for n in offsets], [])
    assert (extra.extra, len(extra.extra_ids)) == (MAX_SHOWN + 1, MAX_SHOWN)


def test_summaries_of_two_processes_add_up(tmp_path: Path):
    equal = compared(tmp_path, [decision(FIRST)], [decision(FIRST)])
    missing = compared(tmp_path, [], [decision(FIRST + 1)])
    total = equal + missing
    assert (total.equal, total.missing, total.missing_ids) == (1, 1, missing.missing_ids)


def test_topic_with_too_few_partitions_is_refused(tmp_path: Path):
    diff = DecisionDiff(Settings().kafka, RECOMMENDATIONS.name, EVENTS.name, tmp_path, MemoryLog().open_reader)
    ranges = {3: OffsetRange(0, 1, warm_up=0, log_begin=0)}
    with pytest.raises(TopicMissingError, match="is missing or has fewer partitions"):
        asyncio.run(diff.read_published(ranges, {RECOMMENDATIONS.name: 3}))
