"""Crashing workers: what the product's pipeline writes for a log of two partitions, with a crash at any point."""

import random
from collections import defaultdict
from collections.abc import Sequence

from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Message
from clickscore.stream.settings import Settings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.changelog_record import ChangelogRecord
from tests.chaos.judge import Topics
from tests.chaos.reactions import reactions_to
from tests.chaos.written_topics import APPENDED_AT, TOPIC, Stored, output_records, reference
from tests.integration.event_log import Sent

PARTITIONS = 2
MAX_BATCH = 20
CRASH_SHARE = 0.2
"""Share of batches whose worker dies after the outputs are stored, and before the snapshots are."""


SNAPSHOTS = Topics._fields[2:].index("snapshots")
"""Index of the changelog among the output topics."""
LATE_SHARE = 0.1
"""Share of batches after which a stalled worker wakes up, and writes an old hand-over."""


class CrashingWorkers:
    """Two partitions, each with a worker that may die between any two writes."""

    def __init__(self, settings: Settings, seed: int) -> None:
        """Start with empty topics.

        Args:
            settings: Settings of sessions and policy.
            seed: Seed of the order of batches and of the crashes.
        """
        self.crashes = 0
        self._settings = settings
        self._dice = random.Random(seed)
        self._pipeline = Pipeline(settings.sessions, settings.policy, TOPIC, reference())
        self._events: dict[int, list[Stored]] = {partition: [] for partition in range(PARTITIONS)}
        self._outputs: list[dict[int, list[Stored]]] = [defaultdict(list) for _ in Topics._fields[2:]]
        self._waiting: list[Sent] = []
        self._handovers: list[Message] = []
        self._changes: dict[int, list[ChangelogRecord]] = defaultdict(list)

    def run(self, log: Sequence[Sent]) -> Topics:
        """Append a log in parts, process batches of both partitions in any order, and return all topics."""
        self._waiting = waiting = list(log)
        while waiting or any(map(self._pending, self._events)):
            part = self._dice.randrange(MAX_BATCH)
            for value, key, _ in waiting[:part]:
                self._append(partition_of(key or b"", PARTITIONS), key, value)
            del waiting[:part]
            self._process(self._dice.randrange(PARTITIONS))
        return Topics(TOPIC, self._events, *self._outputs)

    def _append(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        events = self._events[partition]
        events.append(Stored(len(events), APPENDED_AT, key, value))

    def _pending(self, partition: int) -> list[Stored]:
        return self._events[partition][self._pipeline.state(partition).offset + 1 :]

    def _process(self, partition: int) -> None:
        """Process a batch; after a crash, the successor begins with the stored state."""
        batch = self._pending(partition)[: self._dice.randrange(1, MAX_BATCH)]
        if not batch:
            return
        output = self._pipeline.process(partition, batch)
        stored = output_records(output, self._settings, partition)
        snapshots, stored[SNAPSHOTS] = stored[SNAPSHOTS], []
        self._handovers += output.handovers
        late = self._dice.choices(self._handovers, k=self._dice.random() < LATE_SHARE) if self._handovers else []
        for message in [*output.handovers, *late]:
            self._append(partition_of(message.key or b"", PARTITIONS), message.key, message.value)
        for topic, records in zip(self._outputs, stored, strict=True):
            topic[partition] += [Stored(len(topic[partition]) + row, APPENDED_AT, *r) for row, r in enumerate(records)]
        for message in (*output.recommendations, *output.ads):
            self._waiting[:0] = reactions_to(message.value)
        if self._dice.random() < CRASH_SHARE:
            self.crashes += 1
            state = restore(self._changes[partition], f"{TOPIC}-{partition}", self._settings.sessions)
            self._pipeline.load({partition: state})
            return
        self._changes[partition] += output.changes
        changelog = self._outputs[SNAPSHOTS][partition]
        changelog += [Stored(len(changelog) + row, APPENDED_AT, *record) for row, record in enumerate(snapshots)]
