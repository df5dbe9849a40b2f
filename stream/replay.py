"""Replay: recorded events through the very pipeline that runs live, with no Kafka in between."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stream.adapters import Line
from stream.partitioner import partition_of
from stream.pipeline import Output, Pipeline

CHUNK = 4096
"""Lines that are processed at once: bounds the memory, and changes no decision."""


class Recorded(NamedTuple):
    """A line of a file as the record that a topic would hold."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Replay:
    """Feeds lines to a pipeline as `produce` would lay them out: the same partitions, the same offsets.

    A file knows no append time, so an event of the far future is not found out: its `ts` is believed.
    """

    def __init__(self, pipeline: Pipeline, partitions: int) -> None:
        self.outcomes: Counter[str] = Counter()
        """Events by what became of them; `unreadable` are lines that no event could be made of."""
        self.lines = 0
        self._pipeline = pipeline
        self._partitions = partitions
        self._next_offset = [0] * partitions

    def run(self, lines: Iterable[Line]) -> Iterator[Output]:
        """Yield what the lines come to, chunk by chunk, the partitions of a chunk in order."""
        chunk: list[Line] = []
        for line in lines:
            chunk.append(line)
            if len(chunk) == CHUNK:
                yield from self.process(chunk)
                chunk = []
        yield from self.process(chunk)

    def process(self, chunk: Iterable[Line]) -> Iterator[Output]:
        """Yield what a chunk of lines comes to, a partition at a time."""
        records: dict[int, list[Recorded]] = {}
        for line in chunk:
            self.lines += 1
            if line.error is not None:
                self.outcomes["unreadable"] += 1
                continue
            partition = partition_of(line.routing, self._partitions)
            record = Recorded(self._next_offset[partition], -1, line.key, line.value)
            self._next_offset[partition] += 1
            records.setdefault(partition, []).append(record)
        for partition in sorted(records):
            output = self._pipeline.process(partition, records[partition])
            self.outcomes += output.outcomes
            yield output
