"""Rollout watch: count what the decisions of champion and challenger lead to, report, and let the guard judge.

Each worker counts its own partitions and reports the counts on the topic of rollouts. The worker that owns partition 0
judges over the reports of all partitions.
"""

import asyncio
import copy
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from aiokafka.errors import KafkaError

from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.events import Event, decode_record
from clickscore.schemas.outcome_counts import PartitionReport, ShadowCounts, encode_report
from clickscore.schemas.rollouts import Rollout, encode_rollout
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.policy.experiments import CHALLENGER, MODEL
from clickscore.stream.policy.outcomes import OutcomeCounter
from clickscore.stream.policy.rollout_guard import add_up, judge
from clickscore.stream.policy.rollout_steps import advance, roll_back
from clickscore.stream.policy.shadow import compare_scores
from clickscore.stream.request import Request, Scores
from clickscore.stream.worker.compute import ComputeThread
from clickscore.stream.worker.group import ConsumerGroup, FetchedBatch
from clickscore.stream.worker.prometheus_metrics import Metrics
from clickscore.stream.worker.rollouts import RolloutKeeper

log = logging.getLogger(__name__)

REPORT_S = 5.0
"""Time between two reports, and between two looks of the guard, s: a rollback must come within a minute."""
SHADOW_S = 0.05
"""Pause between two calls of the challenger for events that it does not decide on, s."""
SHADOW_CALL = 32
"""Events of such a call, at most: with the pause, some 600 events a second."""
SHADOW_WAITING = 256
"""Events that may wait for the challenger; later ones are dropped and counted, so that no decision waits."""
GUARD_PARTITION = 0
"""Partition whose worker judges: exactly one worker, and a successor after its death."""


class RolloutWatch:
    """Counts outcomes while a challenger decides for a share of the users."""

    def __init__(
        self,
        *,
        rollouts: RolloutKeeper,
        pipeline: Pipeline,
        group: ConsumerGroup,
        compute: ComputeThread,
        topic: str,
        clock: Callable[[], float],
        metrics: Metrics,
        report_s: float = REPORT_S,
    ) -> None:
        """Build the watch.

        Args:
            rollouts: Knows the rollout, the reports and the loaded bundles.
            pipeline: Knows the epoch of each partition.
            group: Knows the assigned partitions, and has the producer.
            compute: Thread in which the counts change.
            topic: Full name of the topic of rollouts.
            clock: Returns the wall-clock time, s.
            metrics: Counts rollbacks.
            report_s: Time between two reports, s.
        """
        self._rollouts = rollouts
        self._pipeline = pipeline
        self._group = group
        self._compute = compute
        self._topic = topic
        self._clock = clock
        self._metrics = metrics
        self._report_s = report_s
        self._changed_at: int | None = None
        self._counters: dict[int, OutcomeCounter] = {}
        self._call_marks: dict[str, tuple[int, float]] = {}  # calls and seconds of a scorer that are counted already
        self._judged: Rollout | None = None
        self._shadowed: deque[tuple[Request, Scores]] = deque()
        self._shadow = ShadowCounts()

    def observe(self, batches: Sequence[FetchedBatch], outputs: Sequence[Output]) -> None:
        """Count the outcomes in computed batches. Runs in the compute thread."""
        rollout = self._begin_state()
        if rollout is None:
            return
        for batch, output in zip(batches, outputs, strict=True):
            if not self._is_deciding(rollout, batch.partition):
                continue
            room = SHADOW_WAITING - len(self._shadowed)
            self._shadowed.extend(output.shadowed[:room])
            self._shadow.dropped += len(output.shadowed[room:])
            if rollout.deciding.challenger is not None:
                self._observe(rollout, batch, output)

    def _begin_state(self) -> Rollout | None:
        """Return the newest rollout; where it has changed, drop the counts of its former state.

        Runs in the compute thread.
        """
        rollout = self._rollouts.rollout
        changed_at = rollout.changed_at if rollout is not None else None
        if changed_at != self._changed_at:
            self._counters.clear()
            self._call_marks.clear()
            self._shadowed = deque()
            self._shadow = ShadowCounts()
            self._changed_at = changed_at
        return rollout

    def _is_deciding(self, rollout: Rollout, partition: int) -> bool:
        """Return whether a partition decides by a rollout: an earlier epoch goes on until new bundles are loaded.

        Args:
            rollout: The rollout.
            partition: Number of the partition.
        """
        state = self._pipeline.partitions.get(partition)
        return state is not None and state.epoch is not None and state.epoch.rollout == rollout.deciding

    def _counter(self, rollout: Rollout, partition: int) -> OutcomeCounter:
        """Return the counter of a partition, which goes on from the report of an earlier owner."""
        counter = self._counters.get(partition)
        if counter is None:
            report = copy.deepcopy(self._rollouts.reports(rollout).get(partition))  # the counter changes the counts
            counter = self._counters[partition] = (
                OutcomeCounter(report.champion, report.challenger) if report else OutcomeCounter()
            )
        return counter

    def _observe(self, rollout: Rollout, batch: FetchedBatch, output: Output) -> None:
        """Count the outcomes in a batch. A decision of another bundle than the variant's own does not count.

        Args:
            rollout: The rollout, with a challenger that decides.
            batch: The batch.
            output: Output of the batch.
        """
        counter = self._counter(rollout, batch.partition)
        scorers = {
            MODEL: self._rollouts.scorer(rollout.champion),
            CHALLENGER: self._rollouts.scorer(rollout.challenger),
        }
        counter.forget(receipt.key.decode() for receipt in output.receipts if receipt.key)
        counter.challenger.failed += output.failed
        values = {record.offset: record.value for record in batch.records}
        for message in output.recommendations:
            decision = decode_decision(message.value or b"")
            offset = int(decision.decision_id.rpartition("-")[2])
            event = decode_record(values.get(offset) or b"")
            if not isinstance(decision, Recommendation) or not isinstance(event, Event):
                continue
            scorer = scorers.get(decision.variant)
            if scorer is not None and decision.bundle in (None, scorer.version):  # a fallback names no bundle
                counter.add(event, decision)

    async def run(self) -> None:
        """Report and judge until cancelled."""
        while True:
            await asyncio.sleep(self._report_s)
            await self.look()

    async def run_shadow(self) -> None:
        """Let the challenger score the sampled events until cancelled."""
        while True:
            await asyncio.sleep(SHADOW_S)
            await self.score_shadowed()

    async def score_shadowed(self) -> None:
        """Let the challenger score some waiting events, in a thread beside the decisions."""
        rollout = self._rollouts.rollout
        scorer = self._rollouts.scorer(rollout.challenger) if rollout is not None else None
        shadow, waiting = self._shadow, self._shadowed  # the compute thread replaces both where the rollout changes
        pairs = [waiting.popleft() for _ in range(min(SHADOW_CALL, len(waiting)))]
        if scorer is None or not pairs:
            return
        started_at = time.perf_counter()
        try:
            results = await asyncio.to_thread(scorer.score, [request for request, _ in pairs])
        except Exception as exc:  # noqa: BLE001 (ONNX Runtime's exceptions share no base class that it exports)
            log.warning("the challenger fails on an event that it does not decide on: %s", exc)
            results = [None] * len(pairs)
        counts = ShadowCounts(calls=1, seconds=time.perf_counter() - started_at)
        for (_, usual), tried in zip(pairs, results, strict=True):
            counts.add(compare_scores(usual, tried))
        shadow.add(counts)
        self._metrics.shadow_events.inc(counts.events)
        self._metrics.shadow_agreement.inc(counts.agreement)
        self._metrics.shadow_rank_correlation.inc(counts.rank_correlation)

    async def look(self) -> None:
        """Report on the assigned partitions; judge where partition 0 is among them."""
        rollout = self._rollouts.rollout
        if rollout is None:
            return
        assigned = self._group.assignment()
        try:
            reports = await self._compute.call(self._reports, assigned)
            if reports:
                await self._write(reports)
            if GUARD_PARTITION in assigned:
                await self._judge(rollout)
        except (KafkaError, ValueError) as exc:
            log.warning("no report on the rollout %s can be written: %s", rollout.name, str(exc) or type(exc).__name__)

    def _reports(self, assigned: Sequence[int]) -> list[tuple[bytes, bytes]]:
        """Return key and value of the reports that differ from the topic's. Runs in the compute thread."""
        rollout = self._begin_state()
        if rollout is None:
            return []
        for partition in set(self._counters).difference(assigned):
            del self._counters[partition]
        self._count_calls(rollout)
        present = self._rollouts.reports(rollout)
        empty = PartitionReport(changed_at=rollout.changed_at)
        reports: list[tuple[bytes, bytes]] = []
        for partition in assigned:
            counter, former = self._counters.get(partition), present.get(partition, empty)
            report = PartitionReport(
                changed_at=rollout.changed_at,
                refused=dict(self._rollouts.refused),
                champion=former.champion if counter is None else counter.champion,
                challenger=former.challenger if counter is None else counter.challenger,
                shadow=self._shadow if partition == min(assigned) else ShadowCounts(),
            )
            if report != former:
                reports.append((f"{rollout.name}/{partition}".encode(), encode_report(report)))
        return reports

    def _count_calls(self, rollout: Rollout) -> None:
        """Add the calls of the graphs since the last report to the counts of one partition."""
        if not self._counters:
            return
        counter = self._counters[min(self._counters)]
        for bundle, counts in ((rollout.champion, counter.champion), (rollout.challenger, counter.challenger)):
            scorer = self._rollouts.scorer(bundle)
            if bundle is None or scorer is None:
                continue
            calls, seconds = self._call_marks.get(bundle, (scorer.calls, scorer.call_seconds))
            self._call_marks[bundle] = scorer.calls, scorer.call_seconds
            counts.calls += scorer.calls - calls
            counts.call_seconds += scorer.call_seconds - seconds

    async def _judge(self, rollout: Rollout) -> None:
        """Change the rollout where the guard says so, once for each state of the rollout."""
        reports = self._rollouts.reports(rollout)
        is_stale = rollout != self._rollouts.rollout  # a command has changed it meanwhile, and the command counts
        if is_stale or rollout.deciding.challenger is None or not reports or rollout == self._judged:
            return
        champion, challenger = add_up(reports.values())
        now_ms = int(self._clock() * 1000)
        verdict = judge(rollout, champion, challenger, now_ms)
        if verdict.action == "wait":
            return
        is_rollback = verdict.action == "roll back"
        changed = roll_back(rollout, now_ms, verdict.reason) if is_rollback else advance(rollout, now_ms)
        await self._write([(rollout.name.encode(), encode_rollout(changed))])
        self._judged = rollout
        self._metrics.rollbacks.inc(is_rollback)
        log.log(logging.ERROR if is_rollback else logging.INFO, "rollout %s: %s", rollout.name, changed.reason)

    async def _write(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        await self._group.producer.publish(self._topic, 0, [(key, value, []) for key, value in records])
