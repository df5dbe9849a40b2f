"""`clickscore worker`: score events as they arrive."""

import asyncio
from functools import partial
from pathlib import Path

import click

from clickscore.schemas.topics import EVENTS, ROLLOUTS, TOPICS
from clickscore.stream.commands.options import with_settings
from clickscore.stream.kafka.availability import wait_for_broker
from clickscore.stream.kafka.topics import check_topics, check_worker_rights
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.policy_file import PolicyFile, configured_policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.scoring.stored_bundles import load_stored_bundle
from clickscore.stream.settings import Settings
from clickscore.stream.stored_policies import load_stored_policy
from clickscore.stream.worker.rollouts import RolloutParts


@click.command()
@with_settings(
    "bundle",
    "policy",
    "bundle_store",
    "rollout",
    "group",
    "instance_id",
    "topic_prefix",
    "gap_ms",
    "lateness_ms",
    "late_events",
    "max_seen",
    "k",
    "reasons",
    "control_share",
    "reserve",
    "max_batch",
    "fetch_wait_ms",
    "web_host",
    "web_port",
    "broker_wait_ms",
)
def worker(settings: Settings) -> None:
    """Score events as they arrive: a recommendation for each event, and an ad while campaigns run.

    Workers of a group share the partitions: start as many workers as the traffic needs. SIGTERM and Ctrl-C end a worker
    cleanly. With a bundle store, workers take the bundles of the rollout from it, without a restart
    (`clickscore rollout --help`).

    \b
    Example:
      clickscore worker --bundle demo --web-port 6066
      curl http://127.0.0.1:6066/health
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    # Bundle and policy come first: a wrong one must not cost the group a rebalance.
    policy_file, scorer = configured_policy(settings), None
    has_reasons = policy_file.max_reasons(settings.policy) > 0
    if settings.scoring.bundle:
        bundle = load_bundle(
            Path(settings.scoring.bundle), settings.scoring.score_threads, settings.scoring.min_overlap
        )
        scorer = Scorer(bundle, settings.scoring.score_batch, reasons=has_reasons)
    asyncio.run(_ready(settings))
    from clickscore.stream.worker.app import run_worker  # noqa: PLC0415 (Faust takes half a second to import, after checks that may fail)

    bundles: dict[str, Scorer] = {}
    policies: dict[str, PolicyFile] = {}
    topic = settings.kafka.topic(EVENTS.name)
    pipeline = Pipeline(
        settings.sessions,
        settings.policy,
        topic,
        Catalogue(),
        scorer,
        bundles=bundles,
        policies=policies,
        policy_file=policy_file,
    )
    store = settings.scoring.bundle_store
    rollout_parts = RolloutParts(
        load_bundle=partial(load_stored_bundle, settings.scoring, reasons=has_reasons),
        load_policy=partial(load_stored_policy, store, settings=settings.sessions),
        bundles=bundles,
        policies=policies,
    )
    run_worker(settings, pipeline, rollout_parts if store else None)


async def _ready(settings: Settings) -> None:
    await wait_for_broker(settings.kafka)
    has_rollouts = bool(settings.scoring.bundle_store)
    await check_worker_rights(settings.kafka, settings.worker.group, rollouts=has_rollouts)
    await check_topics(settings.kafka, [topic for topic in TOPICS if has_rollouts or topic is not ROLLOUTS])
