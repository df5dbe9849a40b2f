"""Engine: the worker's parts, put together: batches, publisher, assignment, ticks, catalogue feed and health."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from aiokafka.errors import KafkaError

from clickscore.schemas.errors import ClickscoreError
from clickscore.schemas.topics import EVENTS, ROLLOUTS, SNAPSHOTS
from clickscore.stream.errors import BrokerError, TopicMissingError
from clickscore.stream.kafka.log_reader import OpenReader
from clickscore.stream.kafka.rights import RIGHT_ERRORS, is_lacking_right
from clickscore.stream.kafka.rollout_log import RolloutLog
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.feed import CatalogueFeed
from clickscore.stream.settings import Settings
from clickscore.stream.worker.assignment import Assignment
from clickscore.stream.worker.batches import BatchLoop
from clickscore.stream.worker.compute import ComputeThread
from clickscore.stream.worker.epoch_gate import EpochGate
from clickscore.stream.worker.epochs import EpochWriter
from clickscore.stream.worker.group import ConsumerGroup, FetchedBatch, Transactions
from clickscore.stream.worker.health import HealthCheck, HealthReport
from clickscore.stream.worker.losses import Losses
from clickscore.stream.worker.ownership import Ownership
from clickscore.stream.worker.prometheus_metrics import Metrics
from clickscore.stream.worker.publisher import Publisher
from clickscore.stream.worker.reference import ReferenceData
from clickscore.stream.worker.repair import OverlayRepair
from clickscore.stream.worker.restore import sent_back_message
from clickscore.stream.worker.rollout_watch import RolloutWatch
from clickscore.stream.worker.rollouts import RolloutKeeper, RolloutParts
from clickscore.stream.worker.ticks import IdleTicks
from clickscore.stream.worker.topic_watch import TopicWatch
from clickscore.stream.worker.traces import Tracer

log = logging.getLogger(__name__)


REFERENCE_WAIT_MS = 8_000
"""Longest wait for records of catalogue or campaigns that an epoch names, ms. The wait holds a rebalance up, and Kafka
gives a member 10 s for a rebalance."""
BUNDLE_WAIT_MS = 60_000
"""Longest wait for a bundle that an epoch names, ms. A bundle is fetched, checked and loaded in some seconds."""


class Engine:
    """The pipeline at work, as a member of a consumer group."""

    def __init__(
        self,
        *,
        group: ConsumerGroup,
        settings: Settings,
        pipeline: Pipeline,
        metrics: Metrics,
        open_reader: OpenReader,
        transactions: Transactions | None = None,
        rollout_parts: RolloutParts | None = None,
        tracer: Tracer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Put the parts together.

        Args:
            group: Consumer group: assigns partitions and delivers batches.
            settings: All settings.
            pipeline: Turns records into outputs.
            metrics: Metrics of this worker.
            open_reader: Opens a reader of topics without a group, for the restore and the catalogue.
            transactions: Transactions for delivery exactly once; None for delivery at least once.
            rollout_parts: Loads bundles and policies of the rollout; None for a worker without a bundle store.
            tracer: Follows events to their decisions; by default their traces are passed on.
            clock: Returns the wall-clock time, s.
        """
        self.failure: BaseException | None = None
        """First error; unset while the worker is alive."""
        self.metrics = metrics
        """Metrics of this worker; `health` sets the gauges."""
        events = settings.kafka.topic(EVENTS.name)
        self._group = group
        self._settings = settings
        self._transactions = transactions
        self._open_reader = open_reader
        self._pipeline = pipeline
        if pipeline.has_model or rollout_parts is not None:
            metrics.expect_model_items()
        self._compute = ComputeThread()
        self._has_catalogue = False
        self._reference = ReferenceData(
            feed=CatalogueFeed(settings.kafka, open_reader),
            pipeline=pipeline,
            compute=self._compute,
            metrics=metrics,
            start=lambda work: asyncio.create_task(self._stop_on_error(work)),
            wait_ms=REFERENCE_WAIT_MS,
        )
        self._rollouts = (
            None
            if rollout_parts is None
            else RolloutKeeper(
                name=settings.scoring.rollout,
                rollout_log=RolloutLog(settings.kafka, open_reader),
                parts=rollout_parts,
                pipeline=pipeline,
                metrics=metrics,
                start=lambda work: asyncio.create_task(self._stop_on_error(work)),
                clock=clock,
                wait_ms=BUNDLE_WAIT_MS,
            )
        )
        self._rollout_watch = (
            None
            if self._rollouts is None
            else RolloutWatch(
                rollouts=self._rollouts,
                pipeline=pipeline,
                group=group,
                compute=self._compute,
                topic=settings.kafka.topic(ROLLOUTS.name),
                clock=clock,
                metrics=metrics,
            )
        )
        self._ownership = Ownership(group, pipeline)
        self._ticks = IdleTicks(
            pipeline, group, topic=events, tick_after_ms=settings.worker.tick_after_ms, clock=clock, metrics=metrics
        )
        self._epochs = EpochWriter(
            pipeline,
            group,
            self._reference,
            topic=events,
            settings_hash=settings.identity_hash,
            gather_ms=settings.worker.epoch_ms,
            clock=clock,
            metrics=metrics,
            rollouts=self._rollouts,
        )
        self._stopping: asyncio.Task[None] | None = None
        self._losses = Losses(events, metrics, self._stop_after_cut_back)
        self._watch = TopicWatch(
            topic=events,
            changelog=settings.kafka.topic(SNAPSHOTS.name),
            open_reader=open_reader,
            group=group,
            pipeline=pipeline,
            group_name=settings.worker.group,
        )
        self._publisher = Publisher(
            settings.kafka,
            group,
            self._ownership,
            metrics,
            max_event_bytes=settings.sessions.max_event_bytes,
            log_share=settings.worker.log_decisions,
            transactions=transactions,
        )
        self._assignment = Assignment(
            settings=settings,
            open_reader=open_reader,
            group=group,
            pipeline=pipeline,
            ownership=self._ownership,
            publisher=self._publisher,
            ticks=self._ticks,
            compute=self._compute,
            metrics=metrics,
            losses=self._losses,
            reference=self._reference,
            epochs=self._epochs,
            rollouts=self._rollouts,
        )
        self._batches = BatchLoop(
            pipeline=pipeline,
            ownership=self._ownership,
            publisher=self._publisher,
            ticks=self._ticks,
            compute=self._compute,
            metrics=metrics,
            max_batch=settings.worker.max_batch,
            clock=clock,
            observe=self._rollout_watch.observe if self._rollout_watch else None,
            tracer=tracer,
        )
        self._gate = EpochGate(self._reference, self._batches.put, self._rollouts)
        self._repair = OverlayRepair(
            kafka=settings.kafka,
            open_reader=open_reader,
            group=group,
            pipeline=pipeline,
            compute=self._compute,
            overlays=self._publisher.overlays,
            put=self._batches.put,
            metrics=metrics,
        )
        self._health = HealthCheck(
            group,
            pipeline,
            self._ownership,
            metrics,
            losses=self._losses,
            unserved=lambda: self._watch.unserved,
            clock=clock,
            rollouts=self._rollouts,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Compute, publish and write ticks in the background of a block; an error stops the worker."""
        loops = (
            self._batches.run,
            *self._publisher.loops,
            self._ticks.run,
            self._epochs.run,
            self._repair.run,
            self._watch.run,
            *([self._rollouts.run] if self._rollouts else []),
            *([self._rollout_watch.run, self._rollout_watch.run_shadow] if self._rollout_watch else []),
        )
        tasks = [asyncio.create_task(self._stop_on_error(loop)) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            if self._transactions:
                await self._transactions.take_over([])

    async def prepare(self) -> None:
        """Load the bundles of the rollout, before the worker joins the group."""
        if self._rollouts is not None:
            await self._rollouts.prepare()

    async def put(self, batch: FetchedBatch) -> None:
        """Queue a fetched batch to be computed; wait while too many are queued."""
        await self._gate.put(batch)

    async def on_assigned(self) -> None:
        """Restore the partitions of a new assignment; the group reads their first event after this returns."""
        await self._stop_on_error(self._restore)

    def health(self) -> HealthReport:
        """Return the report of /health, and set the gauges to the same values."""
        return self._health.report(alive=self.failure is None, last_batch_at=self._batches.last_batch_at)

    def fail(self, exc: BaseException) -> None:
        """Note why the worker stops; the first reason counts."""
        self.failure = self.failure or exc

    async def _restore(self) -> None:
        await self._assignment.restore()
        coverage = self._pipeline.describe_catalogue()
        if coverage and not self._has_catalogue:
            log.info("%s", coverage)
        self._has_catalogue = True

    async def _stop_on_error(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work; an error stops the worker, and the batches in work stay uncommitted."""
        try:
            await work()
        except (ClickscoreError, *RIGHT_ERRORS) as exc:
            reason: Exception = exc
        except Exception as exc:
            log.exception("the worker stops")
            reason = exc
        else:
            return
        await self._stop(await self._with_right(reason))

    async def _with_right(self, error: Exception) -> Exception:
        """Return an error that names the missing right, where a missing right is the cause; else the same error."""
        if is_lacking_right(error):
            try:
                async with self._open_reader() as reader:
                    await reader.check_worker_rights(self._settings.worker.group)
            except BrokerError as named:
                return named
            except (KafkaError, OSError) as exc:
                log.warning("the rights cannot be looked up: %s", exc)
            return error if isinstance(error, ClickscoreError) else BrokerError(str(error))
        return error

    def _stop_after_cut_back(self, partition: int, offset: int, start: int) -> None:
        """Stop: the log of a partition was cut back.

        Args:
            partition: Partition of the topic of events.
            offset: Last offset that was read.
            start: Offset from which the log was read again.
        """
        kafka = self._settings.kafka
        source = f"{kafka.topic(EVENTS.name)}-{partition}"
        message = sent_back_message(kafka.topic(SNAPSHOTS.name), source, offset, start)
        self._stopping = asyncio.create_task(self._stop(TopicMissingError(message)))

    async def _stop(self, exc: Exception) -> None:
        self.fail(exc)
        await self._group.crash(exc)
