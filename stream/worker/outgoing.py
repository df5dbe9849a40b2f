"""Outgoing: the records of computed batches, by topic and partition."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from clickscore.schemas.snapshots import OFFSET_HEADER, PARTITION_KEY
from clickscore.schemas.topics import (
    AD_CHARGES,
    ADS,
    CLOSED_SESSIONS,
    DEAD_LETTERS,
    DECISION_OUTCOMES,
    ERASURE_RECEIPTS,
    EVENTS,
    MAX_ERROR_CHARACTERS,
    MAX_RECORD_BYTES,
    RECOMMENDATIONS,
)
from clickscore.stream.cut_bytes import full_size
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.pipeline_records import MAX_KEY_BYTES, DeadLetter, Message, Output
from clickscore.stream.settings import KafkaSettings
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.worker.group import FetchedBatch, Headers, OutgoingRecord
from clickscore.stream.worker.traces import PassedOn, Traces

DEAD_LETTER_BYTES = MAX_RECORD_BYTES // 2
"""Largest value of a dead letter whatever `max_event_bytes` says, bytes: the topic takes no larger record."""

OutgoingRecords = dict[tuple[str, int], list[OutgoingRecord]]
"""Records by topic, without the prefix, and partition."""


@dataclass
class PublishJob:
    """A computed batch with output to store."""

    batch: FetchedBatch
    output: Output
    headers: Headers
    """Headers of the decisions: wall-clock facts."""
    traces: Traces = field(default_factory=lambda: PassedOn({}))
    """Traces of the events."""

    @property
    def snapshot_bytes(self) -> int:
        """Size of the snapshots, bytes."""
        return sum([len(change.value or b"") for change in self.output.changes])

    def headers_of(self, message: Message) -> Headers:
        """Return the headers of a record to publish: those of all decisions, and the trace of the event."""
        traces = self.traces.headers
        trace = traces.get(message.event_offset) if traces and message.event_offset is not None else None
        return [*self.headers, *trace] if trace else self.headers

    def event_times(self) -> list[int]:
        """Return the append time (ms, negative where unknown) of the event of each recommendation."""
        times = {record.offset: record.timestamp for record in self.batch.records}
        return [times[message.event_offset] for message in self.output.recommendations if message.event_offset in times]


def outputs(kafka: KafkaSettings, jobs: Sequence[PublishJob], max_letter_bytes: int) -> OutgoingRecords:
    """Return decisions, their outcomes, charges, closed sessions and dead letters.

    Args:
        kafka: Names of topics.
        jobs: Jobs in the order of their batches.
        max_letter_bytes: Largest value of a dead letter, bytes.
    """
    outgoing: OutgoingRecords = defaultdict(list)
    for job in jobs:
        output, partition = job.output, job.batch.partition
        for topic, messages in (
            (RECOMMENDATIONS, output.recommendations),
            (ADS, output.ads),
            (DECISION_OUTCOMES, output.decision_outcomes),
            (AD_CHARGES, output.charges),
            (CLOSED_SESSIONS, output.closed_sessions),
        ):
            if messages:
                outgoing[topic.name, partition] += [
                    (message.key, message.value, job.headers_of(message)) for message in messages
                ]
        if output.dead_letters:
            letters = [dead_letter(kafka, partition, letter, max_letter_bytes) for letter in output.dead_letters]
            outgoing[DEAD_LETTERS.name, partition] += letters
    return outgoing


def receipts(jobs: Sequence[PublishJob]) -> OutgoingRecords:
    """Return the erasure receipts. A receipt says that the decisions before it are stored."""
    outgoing: OutgoingRecords = defaultdict(list)
    for job in jobs:
        for receipt in job.output.receipts:
            outgoing[ERASURE_RECEIPTS.name, job.batch.partition].append((receipt.key, receipt.value, []))
    return outgoing


def handovers(jobs: Sequence[PublishJob], partitions: int) -> OutgoingRecords:
    """Return the hand-overs, each for the partition of its user, and the reports and leases of budgets.

    Args:
        jobs: Jobs in the order of their batches.
        partitions: Number of partitions of the topic of events.
    """
    outgoing: OutgoingRecords = defaultdict(list)
    for job in jobs:
        for message in job.output.handovers:
            outgoing[EVENTS.name, partition_of(message.key or b"", partitions)].append((message.key, message.value, []))
        for partition, message in job.output.budget_records:
            outgoing[EVENTS.name, partition].append((message.key, message.value, []))
    return outgoing


def newest_changes(jobs: Sequence[PublishJob]) -> list[ChangelogRecord]:
    """Return the last change of each key of a partition, with the partition's own record last."""
    newest = {change.key: change for job in jobs for change in job.output.changes}
    # A key keeps its first position, but the partition's record must be last: it says up to where the others go.
    partition = newest.pop(PARTITION_KEY, None)
    return [*newest.values(), *([partition] if partition else [])]


def snapshots(changes: Sequence[ChangelogRecord]) -> list[OutgoingRecord]:
    """Return the records of changes."""
    return [(change.key, change.value, tombstone_headers(change) if change.value is None else []) for change in changes]


def tombstone_headers(change: ChangelogRecord) -> Headers:
    """Return the headers of a tombstone: the event offset. Other records have the offset in the value."""
    return [(OFFSET_HEADER, str(change.offset).encode())]


def dead_letter(kafka: KafkaSettings, partition: int, letter: DeadLetter, max_bytes: int) -> OutgoingRecord:
    """Return a rejected record with the source position and the reason as headers.

    A value or a key that is too long is cut, and a header gives the full length.

    Args:
        kafka: Names of topics.
        partition: Source partition of the record.
        letter: The record and the reason of the rejection.
        max_bytes: Largest value, bytes.
    """
    key, value = letter.record.key, letter.record.value
    headers = [
        ("topic", kafka.topic(EVENTS.name).encode()),
        ("partition", str(partition).encode()),
        ("offset", str(letter.record.offset).encode()),
        ("error", letter.error[:MAX_ERROR_CHARACTERS].encode()),
    ]
    if value is not None and len(value) > max_bytes:
        headers.append(("cut-from-bytes", str(full_size(value)).encode()))
        value = value[:max_bytes]
    if key is not None and len(key) > MAX_KEY_BYTES:
        headers.append(("key-cut-from-bytes", str(full_size(key)).encode()))
        key = key[:MAX_KEY_BYTES]
    return key, value, headers
