"""Published decisions: find the decisions on some events in the topics of decisions."""

from collections.abc import Collection, Sequence

import msgspec
from aiokafka import ConsumerRecord, TopicPartition

from clickscore.schemas.json_depth import bounded_depth
from clickscore.stream.decision_ids import DecisionId, parse_decision_id
from clickscore.stream.errors import SettingsError
from clickscore.stream.kafka.log_reader import PartitionReader

FETCH_MS = 500
"""Longest wait of a fetch, ms."""
REPEAT_EVENTS = 10_000
"""Events by which a decision may be repeated after a later one: a crash repeats at most a few batches."""
SEARCHED_RECORDS = 20_000
"""Records that are read in order rather than searched by halves."""
FETCH_RECORDS = 5_000
"""Records of a fetch: a bound of the memory."""


class DecisionRecords:
    """Decisions found in topics, by id. A repeat with equal bytes is no second decision."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        """First published record of each id."""
        self.contradictions: dict[str, bytes] = {}
        """A later record of an id with other bytes."""
        self.repeats: dict[str, int] = {}
        """Number of later records of an id with the same bytes."""

    def add(self, decision_id: str, value: bytes) -> None:
        """Add a published record."""
        first = self.values.setdefault(decision_id, value)
        if first is not value:
            if first == value:
                self.repeats[decision_id] = self.repeats.get(decision_id, 0) + 1
            else:
                self.contradictions.setdefault(decision_id, value)


class _Head(msgspec.Struct):
    decision_id: str


_decode_head = bounded_depth(msgspec.json.Decoder(_Head).decode)


def read_decision_id(value: bytes | None) -> DecisionId | None:
    """Return the id of a published decision; None for any other record."""
    try:
        return parse_decision_id(_decode_head(value or b"").decision_id)
    except (msgspec.DecodeError, UnicodeDecodeError, SettingsError):
        return None


async def find_published(
    reader: PartitionReader, tp: TopicPartition, offsets: Collection[int], published: DecisionRecords
) -> None:
    """Add the decisions on some events of a partition.

    The decisions of a partition are in the order of their events, except for repeats after a crash. So the beginning is
    searched by halves, and the reading ends some events after the last event.

    Args:
        reader: An open reader.
        tp: Partition of a topic of decisions.
        offsets: Offsets of the events.
        published: Receives the decisions.
    """
    reader.assign([tp])
    begin, end = (await reader.beginning_offsets([tp]))[tp], (await reader.end_offsets([tp]))[tp]
    begin = await _search(reader, tp, (begin, end), min(offsets) - REPEAT_EVENTS)
    event_offsets, last = frozenset(offsets), max(offsets) + REPEAT_EVENTS
    reader.seek(tp, begin)
    while await reader.position(tp) < end:
        for record in await _fetch(reader, tp, FETCH_RECORDS):
            decision = read_decision_id(record.value)
            if decision is None:
                continue
            if decision.offset in event_offsets:
                published.add(str(decision), record.value or b"")
            elif decision.offset > last:
                return


async def _search(reader: PartitionReader, tp: TopicPartition, bounds: tuple[int, int], event_offset: int) -> int:
    """Return an offset before which no decision is on the event or on a later one.

    Args:
        reader: An open reader.
        tp: Partition of a topic of decisions.
        bounds: First offset, and the offset after the last record.
        event_offset: Offset of the event.
    """
    begin, end = bounds
    while end - begin > SEARCHED_RECORDS:
        middle = (begin + end) // 2
        reader.seek(tp, middle)
        decision = read_decision_id(next((record.value for record in await _fetch(reader, tp, 1)), None))
        if decision is not None and decision.offset < event_offset:
            begin = middle
        else:
            end = middle
    return begin


async def _fetch(reader: PartitionReader, tp: TopicPartition, limit: int) -> Sequence["ConsumerRecord[bytes, bytes]"]:
    return (await reader.getmany(tp, timeout_ms=FETCH_MS, max_records=limit)).get(tp, ())
