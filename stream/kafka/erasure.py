"""Erasure: send consent and erase events, wait for the receipts of workers, and list what remains in topics.

A decision's id follows from its event, but no worker remembers the ids: they would be a history of users who want none.
So the ids are read from the topics, after the receipt of a worker, and cover exactly what lies there.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from aiokafka import ConsumerRecord

from clickscore.schemas.erasure import MAX_IDS, Erased, Remains, decode_receipt, encode_receipt
from clickscore.schemas.events import PrivacyRecord, encode_event
from clickscore.schemas.json_depth import bounded_depth
from clickscore.schemas.topics import ADS, CLOSED_SESSIONS, ERASURE_RECEIPTS, RECOMMENDATIONS
from clickscore.stream.decision_ids import AD_SUFFIX
from clickscore.stream.kafka.log_reader import LogReader, PartitionReader, read_to_end
from clickscore.stream.kafka.producer import EventSender
from clickscore.stream.kafka.topic_reader import open_partitions
from clickscore.stream.settings import KafkaSettings

_RECORD_ID = re.compile(r".+-[0-9]{1,9}-[0-9]{1,18}")
"""`TOPIC-PARTITION-OFFSET` of an `erase` event."""

RECEIPT_WAIT_MS = 200
"""Longest wait for the next receipt, ms: the delay until a timeout is noticed."""


@dataclass(slots=True)
class Erasure:
    """An `erase` event, and the offset at which each partition came to it."""

    event_id: str
    user_id: str
    offsets: dict[int, int] = field(default_factory=dict[int, int])
    """Offset of the event in each partition with a receipt."""


@dataclass(slots=True)
class RemainingIds:
    """Ids of a user's records in topics, oldest first in each partition."""

    decisions: list[str] = field(default_factory=list[str])
    ads: list[str] = field(default_factory=list[str])
    sessions: list[str] = field(default_factory=list[str])


class _RecordHead(msgspec.Struct):
    """The id of a decision or of a closed session."""

    decision_id: str = ""
    id: str = ""


_decode_head = bounded_depth(msgspec.json.Decoder(_RecordHead).decode)


async def send_records(settings: KafkaSettings, records: Iterable[PrivacyRecord], *, everywhere: bool) -> int:
    """Send consent and erase events; return the number of partitions of the topic.

    Args:
        settings: Connection, and names of topics.
        records: The events.
        everywhere: Whether each event goes to all partitions, and not only to the partition of the user id by murmur2.

    Raises:
        TopicMissingError: The topic of events is missing.
        BrokerError: The broker cannot be reached, or did not store an event.
    """
    async with EventSender(settings) as sender:
        for record in records:
            key, value = record.user_id.encode(), encode_event(record)
            for partition in range(sender.partitions) if everywhere else (None,):
                await sender.add(value, key, partition=partition)
        return sender.partitions


@asynccontextmanager
async def following_receipts(settings: KafkaSettings) -> AsyncGenerator[LogReader]:
    """Yield a reader of the receipts that come from now on.

    Raises:
        TopicMissingError: The topic of receipts is missing.
        BrokerError: The broker cannot be reached.
    """
    async with open_partitions(settings, [ERASURE_RECEIPTS]) as (reader, partitions):
        reader.assign(partitions)
        for partition, end in (await reader.end_offsets(partitions)).items():
            reader.seek(partition, end)
        yield reader


async def await_receipts(
    reader: PartitionReader, erasures: Mapping[str, Erasure], partitions: int, timeout_s: float
) -> list[str]:
    """Add the receipts of workers to erasures; return the ids of the events without a receipt of every partition.

    Args:
        reader: Reader from `following_receipts`, opened before the events were sent.
        erasures: Erasures by event id.
        partitions: Number of partitions that each event was sent to.
        timeout_s: Longest time to wait, s.
    """
    pending = set(erasures)
    try:
        async with asyncio.timeout(timeout_s):
            while pending:
                for records in (await reader.getmany(timeout_ms=RECEIPT_WAIT_MS)).values():
                    for record in records:
                        _add_receipt(erasures, record)
                pending = {event_id for event_id in pending if len(erasures[event_id].offsets) < partitions}
    except TimeoutError:
        pass
    return sorted(pending)


async def pending_erasures(settings: KafkaSettings) -> dict[str, Erasure]:
    """Return the erasures of the topic of receipts whose remaining ids are not listed yet, by event id.

    Raises:
        TopicMissingError: The topic of receipts is missing.
        BrokerError: The broker cannot be reached.
    """
    erasures, listed = await _read_erasures(settings)
    return {event_id: erasure for event_id, erasure in erasures.items() if event_id not in listed}


async def read_erased_users(settings: KafkaSettings) -> dict[str, dict[int, int]]:
    """Return the users who were erased, each with the offset of the newest `erase` event by partition.

    Raises:
        TopicMissingError: The topic of receipts is missing.
        BrokerError: The broker cannot be reached.
    """
    users: dict[str, dict[int, int]] = defaultdict(dict)
    for erasure in (await _read_erasures(settings))[0].values():
        offsets = users[erasure.user_id]
        for partition, offset in erasure.offsets.items():
            offsets[partition] = max(offset, offsets.get(partition, -1))
    return dict(users)


async def _read_erasures(settings: KafkaSettings) -> tuple[dict[str, Erasure], set[str]]:
    """Return the erasures of the topic of receipts by event id, and the ids of those whose remaining ids are listed."""
    erasures: dict[str, Erasure] = {}
    listed: set[str] = set()
    async with open_partitions(settings, [ERASURE_RECEIPTS]) as (reader, partitions):
        async for _, records in read_to_end(reader, partitions):
            for record in records:
                receipt = _read_receipt(record)
                if isinstance(receipt, Remains):
                    listed.add(receipt.event_id)
                elif receipt is not None:
                    erasures.setdefault(receipt.event_id, Erasure(receipt.event_id, receipt.user_id))
                    _add_receipt(erasures, record)
    return erasures, listed


async def list_remains(settings: KafkaSettings, erasures: Iterable[Erasure]) -> dict[str, RemainingIds]:
    """Read the topics of decisions, ads and closed sessions, and return the ids from before each erasure, by event id.

    Args:
        settings: Connection, and names of topics.
        erasures: Erasures with the receipts of their partitions.

    Raises:
        TopicMissingError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    by_user: dict[bytes, list[Erasure]] = defaultdict(list)
    for erasure in erasures:
        by_user[erasure.user_id.encode()].append(erasure)
    remains = {erasure.event_id: RemainingIds() for users in by_user.values() for erasure in users}
    topics: dict[str, Callable[[RemainingIds], list[str]]] = {
        settings.topic(RECOMMENDATIONS.name): lambda ids: ids.decisions,
        settings.topic(ADS.name): lambda ids: ids.ads,
        settings.topic(CLOSED_SESSIONS.name): lambda ids: ids.sessions,
    }
    async with open_partitions(settings, [RECOMMENDATIONS, ADS, CLOSED_SESSIONS]) as (reader, partitions):
        async for tp, records in read_to_end(reader, partitions):
            for record in records:
                for erasure in by_user.get(record.key or b"", ()):
                    record_id = _id_before(record, erasure.offsets.get(tp.partition, -1))
                    ids = topics[tp.topic](remains[erasure.event_id])
                    if record_id and record_id not in ids[-1:]:
                        ids.append(record_id)
    for ids in remains.values():
        for listed in (ids.decisions, ids.ads, ids.sessions):
            listed[:] = dict.fromkeys(listed)  # a record that was published twice counts once
    return remains


async def publish_remains(
    settings: KafkaSettings, erasures: Iterable[Erasure], remains: Mapping[str, RemainingIds]
) -> None:
    """Write the remaining ids of each erasure to the topic of receipts, in parts.

    Args:
        settings: Connection, and names of topics.
        erasures: The erasures.
        remains: Remaining ids by event id.

    Raises:
        TopicMissingError: The topic of receipts is missing.
        BrokerError: The broker cannot be reached, or did not store a record.
    """
    async with EventSender(settings, ERASURE_RECEIPTS.name) as sender:
        for erasure in erasures:
            for receipt in remains_parts(erasure, remains[erasure.event_id]):
                await sender.add(encode_receipt(receipt), erasure.user_id.encode())


def remains_parts(erasure: Erasure, ids: RemainingIds) -> list[Remains]:
    """Return the receipts that list the remaining ids of an erasure, at most `MAX_IDS` ids each.

    Args:
        erasure: The erasure.
        ids: The remaining ids.
    """
    listed = [
        *(("decisions", record_id) for record_id in ids.decisions),
        *(("ads", record_id) for record_id in ids.ads),
        *(("sessions", record_id) for record_id in ids.sessions),
    ]
    chunks = [listed[start : start + MAX_IDS] for start in range(0, len(listed), MAX_IDS)] or [[]]
    parts: list[Remains] = []
    for number, chunk in enumerate(chunks, start=1):
        fields: dict[str, list[str]] = defaultdict(list)
        for kind, record_id in chunk:
            fields[kind].append(record_id)
        parts.append(
            Remains(
                event_id=erasure.event_id,
                user_id=erasure.user_id,
                part=number,
                parts=len(chunks),
                decisions=tuple(fields["decisions"]),
                ads=tuple(fields["ads"]),
                sessions=tuple(fields["sessions"]),
            )
        )
    return parts


def _add_receipt(erasures: Mapping[str, Erasure], record: "ConsumerRecord[bytes, bytes]") -> None:
    """Note the offset of a worker's receipt; other records are passed over."""
    receipt = _read_receipt(record)
    erasure = erasures.get(receipt.event_id) if receipt else None
    if isinstance(receipt, Erased) and erasure is not None:
        _, partition, offset = receipt.record_id.rsplit("-", 2)
        erasure.offsets[int(partition)] = max(int(offset), erasure.offsets.get(int(partition), -1))


def _read_receipt(record: "ConsumerRecord[bytes, bytes]") -> Erased | Remains | None:
    """Return the receipt in a record of `erasure-receipts`; None for a record that nobody of ours has written."""
    try:
        receipt = decode_receipt(record.value or b"")
    except ValueError:  # the errors of msgspec and of UTF-8 are ValueErrors
        return None
    if isinstance(receipt, Erased) and not _RECORD_ID.fullmatch(receipt.record_id):
        return None
    return receipt


def _id_before(record: "ConsumerRecord[bytes, bytes]", erased_at: int) -> str | None:
    """Return the id of a decision or a closed session on an event before an offset; None for another record.

    Args:
        record: Record of a topic of decisions or of closed sessions.
        erased_at: Offset of the `erase` event in the same partition; -1 where the partition has no receipt.
    """
    try:
        head = _decode_head(record.value or b"")
        record_id = head.decision_id or head.id
        return record_id if int(record_id.removesuffix(AD_SUFFIX).rpartition("-")[2]) < erased_at else None
    except ValueError:  # the errors of msgspec are ValueErrors; a foreign record has no such id
        return None
