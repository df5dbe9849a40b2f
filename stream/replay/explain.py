"""Explain: read the logs of past decisions from Kafka, and explain each decision."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

from aiokafka import TopicPartition

from clickscore.schemas.explanations import Explanation
from clickscore.schemas.topics import ADS, EVENTS, RECOMMENDATIONS
from clickscore.stream.decision_ids import DecisionId, parse_decision_id
from clickscore.stream.errors import SettingsError
from clickscore.stream.kafka.availability import wait_for_broker
from clickscore.stream.kafka.log_reader import OpenReader, open_reader
from clickscore.stream.kafka.topics import count_partitions, list_topics
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.policy_file import load_policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.deciding_versions import BundleFinder, DeciderFinder, PolicyFinder
from clickscore.stream.replay.explainer import Explainer
from clickscore.stream.replay.lost_values import LostValues
from clickscore.stream.replay.published_decisions import DecisionRecords, find_published
from clickscore.stream.replay.recompute import DecisionCase, recompute_cases
from clickscore.stream.replay.reference_log import start_pipeline
from clickscore.stream.replay.source import OffsetRange, Source
from clickscore.stream.replay.task import ReplayProgress
from clickscore.stream.replay.topic_reference import kept_since, read_reference_log
from clickscore.stream.replay.topic_source import TopicRangeSpec
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.settings import KafkaSettings, Settings

OnProgress = Callable[[ReplayProgress], None]
Offsets = Mapping[int, tuple[int, int]]
"""First offset of each partition, and the offset after its last record."""
Targets = Mapping[int, Mapping[int, Sequence[DecisionId]]]
"""Ids of the decisions to explain, by partition and offset of their events."""


class DecisionLog:
    """The topics of an installation, as far as past decisions need them."""

    def __init__(self, topic: str, bounds: Offsets) -> None:
        """Describe the topic of events.

        Args:
            topic: Name of the topic, with its prefix.
            bounds: Offsets of each partition.
        """
        self.topic = topic
        self.bounds = bounds

    def problem(self, decision_id: DecisionId) -> str | None:
        """Return in words why the event of a decision cannot be read; None where it can."""
        topic, partition, offset, _ = decision_id
        if topic != self.topic:
            return (
                f"it belongs to an event of the topic {topic}, and the events of this installation are in {self.topic} "
                "(topic_prefix)"
            )
        if partition not in self.bounds:
            return f"{topic} has no partition {partition}: the topic has {len(self.bounds)} partitions"
        begin, end = self.bounds[partition]
        if offset >= end:
            return f"it does not exist: partition {partition} of {topic} ends before offset {end:,}"
        if offset < begin:
            return (
                f"its event was deleted by retention: partition {partition} of {topic} begins at offset {begin:,}. "
                "retention_ms says how long events stay"
            )
        return None

    def absence(self, decision_id: DecisionId) -> str:
        """Return in words why the log has no record at an offset within its bounds."""
        return (
            f"partition {decision_id.partition} of {self.topic} has no record at offset {decision_id.offset:,}: it is "
            "the mark of a transaction, or its transaction was aborted"
        )

    def read_from(self, partition: int, offset: int, warm_up: int | None) -> int:
        """Return the offset from which on a partition is read.

        Args:
            partition: Number of the partition.
            offset: Offset of the first event to explain.
            warm_up: Number of records to read before; None for all.
        """
        begin, _ = self.bounds[partition]
        return begin if warm_up is None else max(begin, offset - warm_up)

    def missing(self, partition: int, begin: int) -> list[str]:
        """Return in words what is not known where the reading of a partition begins at an offset."""
        if not begin:
            return []
        is_deleted = begin == self.bounds[partition][0]
        reason = "the log begins there" if is_deleted else "a longer --warm-up reads more"
        return [
            f"partition {partition} was read from offset {begin:,} on ({reason}), so sessions that were open before, "
            "earlier purchases and popularity are not known"
        ]


async def open_decision_log(settings: KafkaSettings, open_log: OpenReader) -> DecisionLog:
    """Return the bounds of the topic of events.

    Args:
        settings: Address of the broker, and names of topics.
        open_log: Opens a reader.

    Raises:
        BrokerError: Kafka cannot be reached.
        TopicMissingError: The topic of events does not exist.
    """
    await wait_for_broker(settings)
    topic = settings.topic(EVENTS.name)
    count = await count_partitions(settings, topic)
    partitions = [TopicPartition(topic, number) for number in range(count)]
    async with open_log() as reader:
        begins, ends = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
    return DecisionLog(topic, {tp.partition: (begins[tp], ends[tp]) for tp in partitions})


async def read_published(
    settings: KafkaSettings, open_log: OpenReader, offsets: Mapping[int, Iterable[int]], existing: Mapping[str, int]
) -> DecisionRecords:
    """Return the published recommendations and ads on some events.

    Args:
        settings: Names of topics.
        open_log: Opens a reader.
        offsets: Offsets of the events, by partition.
        existing: Number of partitions of every topic of the broker.
    """
    published = DecisionRecords()
    async with open_log() as reader:
        for topic in (RECOMMENDATIONS, ADS):
            name = settings.topic(topic.name)
            for partition, events in offsets.items():
                if partition < existing.get(name, 0):
                    await find_published(reader, TopicPartition(name, partition), sorted(events), published)
    return published


@contextmanager
def open_explainer(
    settings: Settings, *, bundles: Iterable[Path] = (), policies: Iterable[str] = (), what_if: Sequence[str] = ()
) -> Generator[Explainer]:
    """Open an explainer that finds bundles and policies in the settings, in the bundle store and under given names.

    Args:
        settings: Settings of the worker, with its bundle, its policy and the bundle store.
        bundles: Folders of bundles that are also tried in place of others.
        policies: Names of shipped policies and paths of files that were in use.
        what_if: Names and paths of policies to try in place of the decision's own.

    Raises:
        BundleError: A folder has no bundle that can be served, or the bundle store has a wrong address.
        PolicyError: A policy does not exist, is wrong, or needs a setting that is off.
    """
    scoring = settings.scoring
    own_folders = [Path(scoring.bundle)] if scoring.bundle else []
    store = BundleStore(scoring.bundle_store) if scoring.bundle_store else None
    other_policies = [load_policy(name) for name in what_if]
    for policy in other_policies:
        policy.check_settings(settings.sessions)
    policy_finder = PolicyFinder((settings.policy.policy, *policies, *what_if), scoring.bundle_store)
    with BundleFinder(own_folders, bundles, store) as bundle_finder:
        yield Explainer(
            DeciderFinder(bundle_finder, policy_finder, settings.policy),
            bundle_finder,
            settings_hash=settings.identity_hash,
            other_policies=other_policies,
        )


def explain_decisions(
    settings: Settings,
    explainer: Explainer,
    texts: Sequence[str],
    on_progress: OnProgress,
    *,
    warm_up: int | None = None,
) -> Iterator[Explanation]:
    """Yield the explanation of each decision, those of a partition in the order of its log.

    Ids that cannot be explained come first.

    Args:
        settings: Connection, and the settings of the worker.
        explainer: Explains a decision.
        texts: Ids of the decisions.
        on_progress: Receives the progress now and then.
        warm_up: Number of records to read before the first decision of a partition; None for all.

    Raises:
        ClickscoreError: Kafka cannot be read.
    """
    kafka = settings.kafka
    open_log: OpenReader = partial(open_reader, kafka)
    log = asyncio.run(open_decision_log(kafka, open_log))
    targets: dict[int, dict[int, list[DecisionId]]] = defaultdict(lambda: defaultdict(list))
    for text in dict.fromkeys(texts):
        try:
            decision_id = parse_decision_id(text)
            problem = log.problem(decision_id)
        except SettingsError as exc:
            yield Explanation(decision_id=text, verdict="not recomputed", problem=str(exc))
            continue
        if problem:
            yield Explanation(decision_id=text, verdict="not recomputed", problem=problem)
        else:
            targets[decision_id.partition][decision_id.offset].append(decision_id)
    if targets:
        yield from _explain_targets(settings, explainer, log, targets, on_progress, warm_up=warm_up)


def _explain_targets(
    settings: Settings,
    explainer: Explainer,
    log: DecisionLog,
    targets: Targets,
    on_progress: OnProgress,
    *,
    warm_up: int | None,
) -> Iterator[Explanation]:
    """Yield the explanations of decisions on existing events.

    Args:
        settings: Connection, and the settings of the worker.
        explainer: Explains a decision.
        log: The topic of events.
        targets: Ids by partition and offset.
        on_progress: Receives the progress now and then.
        warm_up: Number of records to read before the first decision of a partition; None for all.
    """
    kafka = settings.kafka
    existing = asyncio.run(list_topics(kafka))
    published = asyncio.run(read_published(kafka, partial(open_reader, kafka), targets, existing))
    ranges: dict[int, OffsetRange] = {}
    for partition, offsets in targets.items():
        begin = log.read_from(partition, min(offsets), warm_up)
        ranges[partition] = OffsetRange(begin, max(offsets) + 1, begin, begin)
    spec = TopicRangeSpec(topic=log.topic, begin="earliest", end="", warm_up="earliest", ranges=ranges)
    reference = asyncio.run(read_reference_log(kafka, log.topic, ranges))
    lost = LostValues(reference, kept_since(kafka, time.time() * 1000))
    pipeline = Pipeline(settings.sessions, settings.policy, log.topic, Catalogue())
    start_pipeline(pipeline, reference, ranges, {})

    def explain_case(decision_id: DecisionId, case: DecisionCase) -> Explanation:
        missing = [*log.missing(case.partition, ranges[case.partition].begin), *lost.describe(case.epoch)]
        return explainer.explain(decision_id, case, published, missing)

    with spec.open(settings, list(ranges), None) as source:
        yield from explain_cases(log, explain_case, _read_cases(source, pipeline, targets, on_progress), targets)


def _read_cases(
    source: Source, pipeline: Pipeline, targets: Targets, on_progress: OnProgress
) -> Iterator[DecisionCase]:
    """Yield the events of decisions as the source is read.

    Args:
        source: The topic of events, from the first needed record on.
        pipeline: Pipeline with the state before the source.
        targets: Ids of the decisions.
        on_progress: Receives the progress after each batch.
    """
    count = 0
    for batches in source.batches():
        yield from recompute_cases(pipeline, batches, targets)
        count += sum(len(records) for _, records in batches)
        on_progress(ReplayProgress(source.completed, source.total, count))


def explain_cases(
    log: DecisionLog,
    explain: Callable[[DecisionId, DecisionCase], Explanation],
    cases: Iterable[DecisionCase],
    targets: Targets,
) -> Iterator[Explanation]:
    """Yield an explanation for each id: as its event is read, or at the end where its offset holds no record.

    Args:
        log: The topic of events.
        explain: Explains a decision on an event.
        cases: Events of the decisions, each once.
        targets: Ids of the decisions.
    """
    remaining = {partition: dict(offsets) for partition, offsets in targets.items()}
    for case in cases:
        for decision_id in remaining[case.partition].pop(case.offset):
            yield explain(decision_id, case)
    for offsets in remaining.values():
        for decision_id in chain.from_iterable(offsets.values()):
            yield Explanation(decision_id=str(decision_id), verdict="not recomputed", problem=log.absence(decision_id))
