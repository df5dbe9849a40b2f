# pyright: basic
"""Engine: runs the pipeline beside the event loop, and keeps its state and Kafka's assignment in step.

Batch n+1 is computed in a thread (ONNX Runtime lets go of the interpreter's lock) while batch n is made durable. All
that touches the pipeline runs in that one thread: batches, updates of the catalogue, restored state.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faust
import msgspec

from schemas.events import Tick
from schemas.topics import EVENTS
from stream.monitoring import Metrics
from stream.pipeline import Output, Pipeline
from stream.publisher import Publisher, Work
from stream.reference import Records, Reference
from stream.restore import changelog_ends, restore_partitions
from stream.settings import Settings
from stream.transport import BatchProducer

log = logging.getLogger(__name__)

LIVE_MS = 3_600_000  # a stream whose newest event is older than this is a backfill, in which no time passes
TICK_CHECK_S = 1.0


class Engine:
    """One worker's pipeline at work under a Faust app."""

    def __init__(self, app: faust.App, settings: Settings, pipeline: Pipeline, metrics: Metrics) -> None:
        self.failure: BaseException | None = None
        self.last_batch_at: float | None = None
        self._app = app
        self._settings = settings
        self._pipeline = pipeline
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._reference = Reference(settings, pipeline.catalogue)
        self._following: asyncio.Task[None] | None = None
        self._generation_of: dict[int, int] = {}  # the group's generation in which a partition's state was restored
        self._seen_at: dict[int, float] = {}
        self._computing = False
        self._worker = f"{socket.gethostname()}-{os.getpid()}"
        self._publisher = Publisher(settings, self._sender, self._generation, self._abandon, metrics)

    # Batches

    async def publish(self, more: Callable[[], bool]) -> None:
        """Publish what was computed until cancelled; a failure stops the worker, with nothing of it committed."""
        try:
            await self._publisher.run(lambda: self._computing or more())
        except Exception as exc:
            await self.stop_on(exc)

    async def compute(self, partition: int, records: Records, generation: int) -> Output | None:
        """Return what a batch comes to; none where its partition may belong to another worker by now.

        A bug in the pipeline stops the worker, and none is returned.
        """
        if not generation == self._generation() == self._generation_of.get(partition):
            return None
        self._computing, began = True, time.perf_counter()
        try:
            output = await self._in_thread(self._pipeline.process, partition, records)
        except Exception as exc:
            log.exception("a batch of partition %d, offsets %d to %d", partition, records[0].offset, records[-1].offset)
            await self.stop_on(exc)
            return None
        finally:
            self._computing = False
        self._metrics.compute_seconds.observe(time.perf_counter() - began)
        self.last_batch_at = self._seen_at[partition] = time.time()
        self._metrics.batch_records.observe(len(records))
        return output

    async def hand_over(self, event: Any, output: Output, began: float) -> None:
        """Queue a computed batch to be published, committed and acknowledged; waits while there are too many."""
        message = event.message
        facts = {
            "worker": self._worker,
            "at": int(time.time() * 1000),
            "took_ms": round((time.time() - began) * 1000, 2),
        }

        def done() -> None:
            message.done = True

        await self._publisher.put(
            Work(
                partition=message.partition,
                output=output,
                records=len(message.value),
                generation=message.generation_id,
                facts=[("scored", msgspec.json.encode(facts))],
                done=done,
                release=lambda: release(event),
            )
        )

    async def stop_on(self, exc: BaseException) -> None:
        """Stop the worker because of an error; the event that met it stays uncommitted."""
        self.failure = self.failure or exc
        await self._app.crash(exc)

    # Assignment

    async def on_assigned(self, app: faust.App, **_: Any) -> None:
        """Restore what is newly ours and drop what is no longer: before the first event of an assignment is read."""
        try:
            await self._start_reference()
            await self._restore(self._assigned())
        except Exception as exc:
            await self.stop_on(exc)

    async def _restore(self, mine: list[int]) -> None:
        began, generation = time.monotonic(), self._generation()
        self._metrics.rebalances.inc()
        ends = await changelog_ends(self._settings, mine) if mine else {}
        written = self._publisher.written
        kept = [p for p in mine if p in self._generation_of and written.get(p, -1) == ends[p]]
        fresh = [p for p in mine if p not in kept]
        restored = await restore_partitions(self._settings, fresh) if fresh else {}
        if generation != self._generation():
            return  # another rebalance has begun, and will call again
        for partition, found in restored.items():
            if found.repairs:
                log.warning("partition %d: wrote %d overlaid snapshots again", partition, len(found.repairs))
                self._metrics.repaired.inc(len(found.repairs))
                written[partition] = await self._publisher.write(partition, found.repairs)
            else:
                written[partition] = found.end
        await self._in_thread(self._adopt, mine, {p: found.state for p, found in restored.items()})
        self._generation_of = dict.fromkeys(mine, generation)
        seconds = time.monotonic() - began
        users = sum(len(found.state) for found in restored.values())
        self._metrics.restore_seconds.set(seconds)
        self._metrics.restored_users.set(users)
        log.info("partitions %s: restored %s with %d users in %.2f s", mine, fresh, users, seconds)

    def _adopt(self, mine: list[int], states: dict[int, Any]) -> None:
        partitions = self._pipeline.partitions
        for partition in set(partitions) - set(mine):
            del partitions[partition]
        partitions.update(states)

    def _abandon(self, work: Work) -> None:
        """Forget a partition whose batch was given up: its state is ahead of the log. It is restored when assigned."""
        if self._generation_of.get(work.partition) == work.generation:
            del self._generation_of[work.partition]
            self._pipeline.partitions.pop(work.partition, None)

    async def _start_reference(self) -> None:
        if self._following is None:
            positions = await self._reference.load()
            self._following = asyncio.create_task(self._follow(positions))

    async def _follow(self, positions: Any) -> None:
        try:
            await self._reference.follow(positions, lambda records: self._in_thread(self._reference.take, records))
        except Exception as exc:
            await self.stop_on(exc)

    # Time

    async def tick(self) -> None:
        """Until cancelled, write a tick into each live partition that has open sessions and has fallen idle."""
        if not self._settings.tick_after_ms:
            return
        while True:
            await asyncio.sleep(TICK_CHECK_S)
            now = time.time()
            for partition, seen_at in list(self._seen_at.items()):
                state = self._pipeline.partitions.get(partition)
                idle = (now - seen_at) * 1000 >= self._settings.tick_after_ms
                if idle and state and state.open_sessions and now * 1000 - state.max_ts < LIVE_MS:
                    self._seen_at[partition] = now
                    value = msgspec.json.encode(Tick(ts=int(now * 1000)))
                    await self._sender().publish(self._settings.topic(EVENTS.name), partition, [(None, value, [])])

    # Reports

    def health(self) -> dict[str, Any]:
        """Return what /health says, and bring the gauges up to date."""
        lags = self._lags()
        partitions = [self._pipeline.partitions[p] for p in lags if p in self._pipeline.partitions]
        metrics = self._metrics
        metrics.users.set(sum(len(state) for state in partitions))
        metrics.open_sessions.set(sum(state.open_sessions for state in partitions))
        metrics.catalogue_version.set(self._pipeline.catalogue.version)
        for partition, lag in lags.items():
            metrics.lag.labels(str(partition)).set(lag)
        age = None if self.last_batch_at is None else round(time.time() - self.last_batch_at, 3)
        return {
            "alive": self.failure is None,
            "restored": bool(lags) and all(p in self._generation_of for p in lags),
            "rebalancing": bool(self._app.rebalancing),
            "lag": sum(lags.values()),
            "last_batch_age_s": age,
            "partitions": sorted(lags),
            "open_sessions": sum(state.open_sessions for state in partitions),
            "users": sum(len(state) for state in partitions),
        }

    def _lags(self) -> dict[int, int]:
        lags: dict[int, int] = {}
        for tp in self._app.consumer.assignment():
            state = self._pipeline.partitions.get(tp.partition)
            highwater = self._app.consumer.highwater(tp)
            if highwater is not None and state is not None:
                lags[tp.partition] = max(0, highwater - 1 - state.offset)
        return lags

    # Faust

    def _sender(self) -> BatchProducer:
        return self._app.producer  # pyright: ignore[reportReturnType]  (the transport's own)

    def _generation(self) -> int:
        return self._app.consumer_generation_id

    def _assigned(self) -> list[int]:
        topic = self._settings.topic(EVENTS.name)
        return sorted(tp.partition for tp in self._app.consumer.assignment() if tp.topic == topic)

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


async def release(event: Any) -> None:
    """Tell Faust that a batch is out of our hands, so that a rebalance or a shutdown need not wait for it."""
    event.ack()
