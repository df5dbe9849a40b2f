# pyright: basic
"""Engine: runs the pipeline beside the event loop, and keeps its state and Kafka's assignment in step.

Batch n+1 is computed in a thread (ONNX Runtime lets go of the interpreter's lock) while batch n is made durable. All
that touches the pipeline runs in that one thread: batches, updates of the catalogue, restored state.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import faust
import msgspec
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from clickscore.schemas.events import Tick
from clickscore.schemas.topics import EVENTS
from clickscore.stream.errors import ClickscoreError
from clickscore.stream.pipeline import Output, PendingBatch, Pipeline
from clickscore.stream.reference.feed import Reference
from clickscore.stream.settings import Settings
from clickscore.stream.worker.metrics import Metrics
from clickscore.stream.worker.publisher import Publisher, Work
from clickscore.stream.worker.restore import changelog_ends, restore_partitions
from clickscore.stream.worker.transport import BatchProducer

log = logging.getLogger(__name__)

LIVE_MS = 3_600_000  # a stream whose newest event is older than this is a backfill, in which no time passes
TICK_CHECK_S = 1.0
INBOX = 8
"""Batches that wait to be computed: enough to score the partitions of a fetch together."""
FULL = 64
"""Records, from which batches are worth beginning before those ahead of them are finished: it costs a trickle time."""
REST_S = 0.005
"""How long the rest of a fetch may take to come through Faust; a rebalance may drop it."""


class _Ahead(NamedTuple):
    """Batches that have begun."""

    events: list[Any]
    began: float
    begun: PendingBatch


class Engine:
    """One worker's pipeline at work under a Faust app."""

    def __init__(self, app: faust.App, settings: Settings, pipeline: Pipeline, metrics: Metrics) -> None:
        self.failure: BaseException | None = None
        self.last_batch_at: float | None = None
        self._app = app
        self._settings = settings
        self._events = settings.topic(EVENTS.name)
        self._pipeline = pipeline
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._reference = Reference(settings, pipeline.catalogue)
        self._following: asyncio.Task[None] | None = None
        self._joined = False  # whether the group has ever told us which partitions are ours, if any
        self._generation_of: dict[int, int] = {}  # the group's generation in which a partition's state was restored
        self._seen_at: dict[int, float] = {}
        self._in_hand: Counter[int] = Counter()  # batches of a partition that are taken and not released
        self._inbox: asyncio.Queue[Any] = asyncio.Queue(INBOX)
        self._worker = f"{socket.gethostname()}-{os.getpid()}"
        self._publisher = Publisher(settings, self._sender, self._generation, self._abandon, metrics)

    # Batches

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Compute, publish and keep time in the background of a block; what fails there stops the worker."""
        work = (
            self._compute(),
            self._publisher.publish_decisions(),
            self._publisher.publish_states(),
            self._tick(),
        )
        tasks = [asyncio.create_task(self._or_stop(part)) for part in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def take(self, event: Any) -> None:
        """Take a batch to compute; waits while there are too many."""
        self._in_hand[event.message.partition] += 1
        await self._inbox.put(event)

    async def _release(self, event: Any) -> None:
        """Let go of a batch, published or given up: tells Faust, whose rebalance or shutdown waits for it."""
        self._in_hand[event.message.partition] -= 1
        event.ack()

    async def _compute(self) -> None:
        """Compute what waits, batches of several partitions in one go, until cancelled.

        Where more waits behind, it is begun before what is ahead is finished: so the model always has work.
        """
        ahead: _Ahead | None = None
        while True:
            events = [] if ahead and self._inbox.empty() else await self._take_waiting()
            began = time.time()
            batches = [(event.message.partition, event.message.value) for event in events]
            records = sum(len(batch) for _, batch in batches)
            alone = self._inbox.empty() or records < FULL or not self._pipeline.has_model
            if ahead is None and alone:
                await self._publish(events, began, await self._in_thread(self._pipeline.process_all, batches))
                continue
            begun, outputs = await self._in_thread(self._step, batches, ahead and ahead.begun)
            if ahead:
                await self._publish(ahead.events, ahead.began, outputs)
            ahead = _Ahead(events, began, begun) if begun else None

    def _step(
        self, batches: list[tuple[int, Any]], ahead: PendingBatch | None
    ) -> tuple[PendingBatch | None, list[Output]]:
        """Begin batches, then finish those ahead of them."""
        begun = self._pipeline.begin(batches) if batches else None
        return begun, self._pipeline.finish(ahead) if ahead else []

    async def _publish(self, events: list[Any], began: float, outputs: list[Output]) -> None:
        self.last_batch_at = time.time()
        self._metrics.compute_seconds.observe(self.last_batch_at - began)
        for event, output in zip(events, outputs, strict=True):
            self._seen_at[event.message.partition] = self.last_batch_at
            self._metrics.batch_records.observe(len(event.message.value))
            await self._publisher.put(self._work(event, output, began))

    async def _take_waiting(self) -> list[Any]:
        """Wait for batches; return those that are ours, and let go of the others."""
        mine: list[Any] = []
        for event in await self._next_events():
            if self._is_current(event.message):
                mine.append(event)
            else:
                await self._release(event)
        return mine

    async def _next_events(self) -> list[Any]:
        """Wait for a batch; return it, those of the same fetch, and what else waits, as far as it is scored at once."""
        events = [await self._inbox.get()]
        left = self._settings.max_batch - len(events[0].message.value)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REST_S):  # Faust drops what is left of a fetch when a rebalance begins
                while left > 0 and not (self._inbox.empty() and events[-1].message.ends_fetch):
                    events.append(await self._inbox.get())
                    left -= len(events[-1].message.value)
        return events

    def _is_current(self, message: Any) -> bool:
        """Return whether a batch was fetched in the group's present generation, in which its state was restored."""
        return message.generation_id == self._generation() == self._generation_of.get(message.partition)

    def _work(self, event: Any, output: Output, began: float) -> Work:
        message, now = event.message, time.time()
        facts = {"worker": self._worker, "at": int(now * 1000), "took_ms": round((now - began) * 1000, 2)}

        def done() -> None:
            message.done = True

        return Work(
            partition=message.partition,
            output=output,
            generation=message.generation_id,
            facts=[("scored", msgspec.json.encode(facts))],
            done=done,
            release=lambda: self._release(event),
        )

    async def stop_on(self, exc: BaseException) -> None:
        """Stop the worker because of an error; the event that met it stays uncommitted."""
        self.fail(exc)
        self._app.conf.stream_wait_empty = False  # what is in hand will not be published any more
        await self._app.crash(exc)

    def fail(self, exc: BaseException) -> None:
        """Note why the worker stops; the first reason counts."""
        self.failure = self.failure or exc

    # Assignment

    async def on_assigned(self, app: faust.App, **_: Any) -> None:
        """Restore what is newly ours and drop what is no longer: before the first event of an assignment is read."""
        await self._or_stop(self._restore(self._assigned()))

    async def _restore(self, mine: list[int]) -> None:
        await self._start_reference()
        began, generation = time.monotonic(), self._generation()
        self._metrics.rebalances.inc()
        ends = await changelog_ends(self._settings, mine) if mine else {}
        written = self._publisher.written
        # What we have in memory is still the newest state if nobody wrote after us and nothing of ours is on its way.
        kept = [p for p in mine if p in self._generation_of and not self._in_hand[p] and written.get(p) == ends[p]]
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
        next_offsets = {TP(self._events, p): self._pipeline.partitions[p].offset + 1 for p in mine}
        self._app.consumer.expect(next_offsets)  # pyright: ignore[reportAttributeAccessIssue]  (the transport's own)
        self._generation_of = dict.fromkeys(mine, generation)
        self._seen_at = dict.fromkeys(mine, time.time()) | {p: self._seen_at[p] for p in kept if p in self._seen_at}
        self._joined = True
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
            take = self._reference.take
            following = self._reference.follow(positions, lambda records: self._in_thread(take, records))
            self._following = asyncio.create_task(self._or_stop(following))

    # Time

    async def _tick(self) -> None:
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
                    await self._sender().publish(self._events, partition, [(None, value, [])])

    # Reports

    def health(self) -> dict[str, Any]:
        """Return what /health says, and bring the gauges up to date."""
        lags, assigned, metrics = self._lags(), self._assigned(), self._metrics
        states = {p: self._pipeline.partitions[p] for p in assigned if p in self._pipeline.partitions}
        partitions = states.values()
        metrics.users.set(sum(len(state) for state in partitions))
        metrics.open_sessions.set(sum(state.open_sessions for state in partitions))
        metrics.catalogue_version.set(self._pipeline.catalogue.version)
        metrics.lag.clear()  # of partitions that are another worker's by now
        metrics.watermark.clear()
        for partition, lag in lags.items():
            metrics.lag.labels(str(partition)).set(lag)
        for partition, state in states.items():
            metrics.watermark.labels(str(partition)).set(state.watermark)
        age = None if self.last_batch_at is None else round(time.time() - self.last_batch_at, 3)
        return {
            "alive": self.failure is None,
            "restored": self._joined and all(p in self._generation_of for p in assigned),
            "rebalancing": bool(self._app.rebalancing),
            "lag": sum(lags.values()),
            "last_batch_age_s": age,
            "partitions": assigned,
            "open_sessions": sum(state.open_sessions for state in partitions),
            "users": sum(len(state) for state in partitions),
        }

    def _lags(self) -> dict[int, int]:
        lags: dict[int, int] = {}
        for partition in self._assigned():
            state = self._pipeline.partitions.get(partition)
            highwater = self._app.consumer.highwater(TP(self._events, partition))
            if highwater is not None and state is not None:
                lags[partition] = max(0, highwater - 1 - state.offset)
        return lags

    # Faust

    async def _or_stop(self, work: Awaitable[None]) -> None:
        try:
            await work
        except ClickscoreError as exc:
            await self.stop_on(exc)
        except Exception as exc:
            log.exception("the worker stops")
            await self.stop_on(exc)

    def _sender(self) -> BatchProducer:
        return self._app.producer  # pyright: ignore[reportReturnType]  (the transport's own)

    def _generation(self) -> int:
        return self._app.consumer_generation_id

    def _assigned(self) -> list[int]:
        try:
            assignment = self._app.consumer.assignment()
        except ConsumerNotStarted:  # the web server, which asks too, starts before it
            return []
        return sorted(tp.partition for tp in assignment if tp.topic == self._events)

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
