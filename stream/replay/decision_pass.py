"""Decision pass: put recorded events through the worker's pipeline, and watch every decision being made."""

from pathlib import Path

from clickscore.stream.due_decisions import DecisionWatch
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.file_source import FileSpec
from clickscore.stream.replay.reference_log import start_pipeline
from clickscore.stream.replay.source import handover_batches
from clickscore.stream.replay.task import OnTaskProgress, ReplayProgress
from clickscore.stream.replay.topic_source import TopicRangeSpec
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.scoring.stored_bundles import StoredBundles
from clickscore.stream.settings import Settings
from clickscore.stream.stored_policies import StoredPolicies


def load_scorer(settings: Settings) -> Scorer | None:
    """Return the scorer of the bundle of the settings; None without a bundle.

    Raises:
        BundleError: The bundle cannot be served.
    """
    scoring = settings.scoring
    if not scoring.bundle:
        return None
    return Scorer(load_bundle(Path(scoring.bundle), scoring.score_threads, scoring.min_overlap), scoring.score_batch)


def make_pipeline(
    settings: Settings,
    source_spec: FileSpec | TopicRangeSpec,
    deciding: tuple[PolicyFile, Scorer | None],
    *,
    follows_rollouts: bool,
) -> Pipeline:
    """Return a pipeline that decides as a replay does; budgets do not count in a file, which has no leases.

    Args:
        settings: Settings of the worker.
        source_spec: Recorded events.
        deciding: Policy and model for epochs without a rollout.
        follows_rollouts: Whether policy and model of a rollout decide in its epochs.
    """
    policy_file, scorer = deciding
    pipeline = Pipeline(
        settings.sessions,
        settings.policy,
        source_spec.topic_name(settings.kafka),
        Catalogue(),
        scorer,
        bundles=StoredBundles(settings.scoring, reasons=False) if follows_rollouts else {},
        policies=StoredPolicies(settings.scoring.bundle_store) if follows_rollouts else {},
        policy_file=policy_file,
    )
    pipeline.applies_budgets = not isinstance(source_spec, FileSpec)
    return pipeline


def watch_decisions(
    settings: Settings,
    source_spec: FileSpec | TopicRangeSpec,
    deciding: tuple[PolicyFile, Scorer | None],
    watch: DecisionWatch,
    on_progress: OnTaskProgress,
    *,
    follows_rollouts: bool = True,
) -> None:
    """Decide on recorded events, as a replay does, and let a function see every decision.

    Args:
        settings: Settings of the worker.
        source_spec: Recorded events; decisions of a warm-up are made, and not watched.
        deciding: Policy and model for epochs without a rollout.
        watch: Receives each request with scores and decision.
        on_progress: Receives the progress after each batch.
        follows_rollouts: Whether policy and model of a rollout decide in its epochs.

    Raises:
        ClickscoreError: The source cannot be read to the end.
    """
    partitions = list(range(source_spec.partitions))
    pipeline = make_pipeline(settings, source_spec, deciding, follows_rollouts=follows_rollouts)
    start_pipeline(pipeline, source_spec.read_reference(settings.kafka), partitions, {})
    pipeline.watch = watch
    count = 0
    with source_spec.open(settings, partitions, None) as source:
        for batches in source.batches():
            warm_up, replayed = source_spec.split_warm_up(batches)
            if warm_up:
                pipeline.watch = None
                pipeline.process_all(warm_up)  # budgets need its decisions
                pipeline.watch = watch
            outputs = pipeline.process_all(replayed)
            handovers = [message for output in outputs for message in output.handovers]
            pipeline.process_all(handover_batches(source.slot, handovers))
            count += sum(len(records) for _, records in batches)
            on_progress(ReplayProgress(source.completed, source.total, count))
