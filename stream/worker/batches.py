"""Batches: the loop from fetched batches to outputs: schedule, run the pipeline, pass the outputs on.

The loop computes batch n+1 in a thread while the publisher stores the output of batch n. ONNX Runtime releases the
interpreter's lock, so the event loop stays free.
"""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from clickscore.stream.pipeline import PendingBatch, Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.worker.compute import ComputeThread
from clickscore.stream.worker.group import FetchedBatch
from clickscore.stream.worker.outgoing import PublishJob
from clickscore.stream.worker.ownership import Ownership
from clickscore.stream.worker.prometheus_metrics import Metrics
from clickscore.stream.worker.publisher import Publisher
from clickscore.stream.worker.ticks import IdleTicks
from clickscore.stream.worker.traces import ComputedBatch, PassOn, Tracer

INBOX_BATCHES = 8
"""Capacity of the queue of fetched batches: enough to score all partitions of a fetch together."""
OVERLAP_RECORDS = 64
"""Smallest number of records of a batch for overlap with the previous batch. Overlap delays light traffic."""
OVERLAP_SWITCH_S = 0.0005
"""Python's switch interval while batches overlap, s: the longest wait of ONNX Runtime's thread between two calls of
some 15 ms. With the usual 5 ms that thread rests for a fifth of the time. Light traffic keeps the usual interval: there
a shorter one only interrupts decisions for other threads (`docs/performance.md`)."""
IDLE_OUTCOMES = {"epoch"}
"""Outcomes of records that let no time pass: a busy catalogue must not keep an idle partition from its ticks."""
FETCH_REST_S = 0.005
"""Longest wait for the other batches of a fetch, s. A rebalance may drop these batches, so the wait has an end."""


class InFlightBatch(NamedTuple):
    """Fetched batches between `begin` and `finish` of the pipeline."""

    batches: list[FetchedBatch]
    started_at: float
    """Wall-clock time of the start, s."""
    pending: PendingBatch


class Schedule(NamedTuple):
    """Work of a step of the loop."""

    batches: list[FetchedBatch]
    """Batches to begin, scored together; empty when the step only finishes the batch in flight."""
    overlap: bool
    """Whether the batches stay in flight until the next step, to keep the model busy."""


class BatchLoop:
    """Moves fetched batches through the pipeline, at most a batch ahead of the publisher."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        ownership: Ownership,
        publisher: Publisher,
        ticks: IdleTicks,
        compute: ComputeThread,
        metrics: Metrics,
        max_batch: int,
        clock: Callable[[], float],
        observe: Callable[[Sequence[FetchedBatch], Sequence[Output]], None] | None = None,
        tracer: Tracer | None = None,
        fetch_rest_s: float = FETCH_REST_S,
    ) -> None:
        """Build the loop.

        Args:
            pipeline: Turns records into outputs, in the compute thread only.
            ownership: Separates current batches from stale batches.
            publisher: Stores the outputs.
            ticks: Learns of busy partitions.
            compute: Thread of the pipeline.
            metrics: Counts batches and compute time.
            max_batch: Largest number of records to score at once.
            clock: Returns the wall-clock time, s.
            observe: Called in the compute thread with finished batches and their outputs.
            tracer: Follows events to their decisions; by default their traces are passed on.
            fetch_rest_s: Longest wait for the other batches of a fetch, s.
        """
        self.last_batch_at: float | None = None
        """Wall-clock time of the last computed batch, s; unset before the first batch."""
        self._pipeline = pipeline
        self._ownership = ownership
        self._publisher = publisher
        self._ticks = ticks
        self._compute = compute
        self._metrics = metrics
        self._max_batch = max_batch
        self._clock = clock
        self._observe = observe
        self._tracer = tracer or PassOn()
        self._fetch_rest_s = fetch_rest_s
        self._usual_switch_s = sys.getswitchinterval()
        self._inbox: asyncio.Queue[FetchedBatch] = asyncio.Queue(INBOX_BATCHES)
        self._worker = f"{socket.gethostname()}-{os.getpid()}"

    async def put(self, batch: FetchedBatch) -> None:
        """Queue a fetched batch; wait while the queue is full."""
        self._ownership.hold(batch)
        await self._inbox.put(batch)

    async def run(self) -> None:
        """Repeat until cancelled: choose work, run the pipeline in the compute thread, pass the outputs on."""
        in_flight: InFlightBatch | None = None
        while True:
            schedule = await self._schedule(in_flight)
            in_flight, finished, outputs = await self._compute.call(self._run, schedule, in_flight)
            if finished:
                await self._postprocess(finished, outputs)

    async def _schedule(self, in_flight: InFlightBatch | None) -> Schedule:
        """Choose the next batches; wait for some unless a batch in flight can be finished meanwhile."""
        if in_flight and self._inbox.empty():
            return Schedule([], overlap=False)
        batches = await self._next_current()
        records = sum(len(batch.records) for batch in batches)
        more = not self._inbox.empty() and records >= OVERLAP_RECORDS
        return Schedule(batches, overlap=more and self._pipeline.has_model)

    def _run(
        self, schedule: Schedule, in_flight: InFlightBatch | None
    ) -> tuple[InFlightBatch | None, InFlightBatch | None, list[Output]]:
        """Begin the scheduled batches, then finish the batch in flight, or the new batch without overlap.

        Returns:
            The batch in flight from now on, the finished batch, and the outputs of the finished batch.
        """
        sys.setswitchinterval(OVERLAP_SWITCH_S if schedule.overlap else self._usual_switch_s)
        started = self._begin(schedule.batches) if schedule.batches else None
        finished = in_flight or (None if schedule.overlap else started)
        outputs = self._pipeline.finish(finished.pending) if finished else []
        if finished and self._observe:
            self._observe(finished.batches, outputs)
        return (None if finished is started else started), finished, outputs

    def _begin(self, batches: list[FetchedBatch]) -> InFlightBatch:
        started_at = self._clock()
        return InFlightBatch(
            batches, started_at, self._pipeline.begin([(batch.partition, batch.records) for batch in batches])
        )

    async def _postprocess(self, finished: InFlightBatch, outputs: list[Output]) -> None:
        """Book the results of a finished batch and queue the outputs for the publisher."""
        now = self.last_batch_at = self._clock()
        self._metrics.compute_seconds.observe(now - finished.started_at)
        headers = self._decision_headers(finished.started_at, now)
        for batch, output in zip(finished.batches, outputs, strict=True):
            if output.outcomes.keys() - IDLE_OUTCOMES:
                self._ticks.note_batch(batch.partition, now)
            if batch.records:  # the batch of a repair has none
                self._metrics.batch_records.observe(len(batch.records))
            traces = self._tracer.start(ComputedBatch(batch, output, finished.started_at, now))
            await self._publisher.put(PublishJob(batch, output, headers, traces))

    def _decision_headers(self, started_at: float, now: float) -> list[tuple[str, bytes]]:
        """Return the wall-clock facts of decisions, as headers: decisions must not depend on the clock."""
        facts = {"worker": self._worker, "at": int(now * 1000), "took_ms": round((now - started_at) * 1000, 2)}
        return [("scored", msgspec.json.encode(facts))]

    async def _next_current(self) -> list[FetchedBatch]:
        """Wait for batches; return the current batches, and release the stale batches."""
        current: list[FetchedBatch] = []
        for batch in await self._next_batches():
            if self._ownership.is_current(batch):
                current.append(batch)
            else:
                self._ownership.release(batch)
        return current

    async def _next_batches(self) -> list[FetchedBatch]:
        """Wait for a batch; return the batch, the rest of the fetch and waiting batches, up to `max_batch` records."""
        batches = [await self._inbox.get()]
        room = self._max_batch - len(batches[0].records)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._fetch_rest_s):
                while room > 0 and not (self._inbox.empty() and batches[-1].ends_fetch):
                    batches.append(await self._inbox.get())
                    room -= len(batches[-1].records)
        return batches
