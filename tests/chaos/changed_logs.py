"""Changed logs: the topic of events is cut at its start or at its end, made anew, or grown, under running workers."""

import asyncio
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from click.testing import CliRunner

from clickscore.schemas.topics import EVENTS, SNAPSHOTS
from clickscore.stream.__main__ import cli
from clickscore.stream.kafka.topics import create_topics, delete_topics
from clickscore.stream.settings import environment_of
from tests.chaos.frail_broker import frail_broker
from tests.chaos.judge import Records, Topics
from tests.chaos.stage import Result, Stage, stage
from tests.integration.event_log import event_log

EVENTS_BEFORE = 4_000
EVENTS_AFTER = 4_000
RATE = 500
PARTITIONS, GROWN = 4, 6


def run_retention(folder: Path, seed: int) -> Result:
    """Remove events that a held worker has not read, as retention does; the worker must report the loss.

    Args:
        folder: An empty folder for the broker and the logs.
        seed: Seed of the events.
    """
    started_at = time.monotonic()
    log = event_log(EVENTS_BEFORE + EVENTS_AFTER, seed)
    with frail_broker(folder / "kafka") as broker, stage(broker.bootstrap_servers, folder, seed) as scene:
        scene.live.produce(log[:EVENTS_BEFORE])
        worker = scene.live.start_worker()
        scene.live.wait_finished()
        worker.stop()
        decided = scene.live.read(EVENTS)
        scene.live.produce(log[EVENTS_BEFORE : EVENTS_BEFORE + EVENTS_AFTER // 2])
        starts = {number: end + 100 for number, end in _ends(decided).items()}
        asyncio.run(_delete_before(scene, starts))
        scene.deeds["events taken by retention"] = 100 * len(starts)
        scene.live.produce(log[EVENTS_BEFORE + EVENTS_AFTER // 2 :])
        scene.start_workers(1)
        scene.live.wait_finished()
        lost = scene.running[0].health().get("lost")
        if lost != 100 * len(starts):
            scene.complaints.append(("silence", f"/health says that {lost} events are lost"))
        scene.live.stop_workers()
        topics = scene.topics()
        all_events = {number: [*decided[number], *records] for number, records in topics.events.items()}
        scene.judged = scene.verdict_on(topics._replace(events=all_events))
        return Result("retention", seed, scene.verdict(), scene.deeds, time.monotonic() - started_at)


def run_cut_log(folder: Path, seed: int) -> Result:
    """Cut the newest events off a log on disk, as an unclean election does, under a running worker.

    Args:
        folder: An empty folder for the broker and the logs.
        seed: Seed of the events.
    """
    started_at = time.monotonic()
    log = event_log(EVENTS_BEFORE + EVENTS_AFTER, seed)
    with frail_broker(folder / "kafka") as broker, stage(broker.bootstrap_servers, folder, seed) as scene:
        worker = scene.live.start_worker()
        for start in range(0, EVENTS_BEFORE, 200):  # in many record batches, so that a cut leaves some
            scene.live.produce(log[start : start + 200])
        scene.live.wait_finished()
        earlier = scene.topics()
        broker.kill()
        _cut_half(broker.data / "logs" / f"{scene.live.settings.kafka.topic(EVENTS.name)}-0")
        broker.start()
        scene.deeds["log cut back"] += 1
        scene.expect_refusal(worker, "an unclean leader election has lost")
        scene.expect_refusal(scene.live.start_worker(), "an unclean leader election has lost")
        _begin_anew(scene)
        scene.live.produce(log[EVENTS_BEFORE:])
        scene.start_workers(1)
        scene.finish()
        _judge_rest(scene, earlier)
        return Result("log cut back", seed, scene.verdict(), scene.deeds, time.monotonic() - started_at)


def run_new_topic(folder: Path, seed: int) -> Result:
    """Delete the topic of events and make it anew under a running worker.

    Args:
        folder: An empty folder for the broker and the logs.
        seed: Seed of the events.
    """
    started_at = time.monotonic()
    log = event_log(EVENTS_BEFORE + EVENTS_AFTER, seed)
    with frail_broker(folder / "kafka") as broker, stage(broker.bootstrap_servers, folder, seed) as scene:
        worker = scene.live.start_worker()
        scene.live.produce(log[:EVENTS_BEFORE])
        scene.live.wait_finished()
        earlier = scene.topics()
        asyncio.run(delete_topics(scene.live.settings.kafka, [EVENTS]))
        asyncio.run(create_topics(scene.live.settings.kafka))
        scene.deeds["topic made anew"] += 1
        scene.live.produce(log[EVENTS_BEFORE:])
        scene.expect_refusal(worker, "the topic was deleted and created again")
        scene.expect_refusal(scene.live.start_worker(), "the topic was deleted and created again")
        _begin_anew(scene)
        scene.start_workers(1)
        scene.finish()
        _judge_rest(scene, earlier)
        return Result("topic made anew", seed, scene.verdict(), scene.deeds, time.monotonic() - started_at)


def run_growth(folder: Path, seed: int) -> Result:
    """Add partitions under load with `clickscore topics grow`; new workers must serve all of them.

    Args:
        folder: An empty folder for the broker and the logs.
        seed: Seed of the events.
    """
    started_at = time.monotonic()
    log = event_log(60 * RATE, seed)
    with frail_broker(folder / "kafka") as broker, stage(broker.bootstrap_servers, folder, seed) as scene:
        scene.start_workers(2)
        workers = scene.running
        with scene.load(log, RATE):
            scene.pause(3, 4)
            environment = environment_of(scene.live.settings)
            grow = ["topics", "grow", "--partitions", str(GROWN)]
            result = CliRunner().invoke(cli, grow, env=environment, catch_exceptions=False)
            assert result.exit_code == 0, result.output
            scene.deeds["grown by partitions"] = GROWN - PARTITIONS
            scene.live.settings = scene.live.settings.replace(partitions=GROWN)
            for worker in workers:
                scene.expect_refusal(worker, f"has grown from {PARTITIONS} to {GROWN} partitions")
            scene.start_workers(2)
        # Users move to other partitions, and begin anew there.
        scene.live.produce(event_log(EVENTS_AFTER, seed + 1), RATE)
        scene.finish()
        return Result("partitions grown", seed, scene.verdict(), scene.deeds, time.monotonic() - started_at)


def _begin_anew(scene: Stage) -> None:
    """Delete the topic of snapshots and make it anew, as the worker's last line says."""
    asyncio.run(delete_topics(scene.live.settings.kafka, [SNAPSHOTS]))
    asyncio.run(create_topics(scene.live.settings.kafka))


def _judge_rest(scene: Stage, earlier: Topics) -> None:
    """Judge what was written after the state was removed: the ids of the earlier log are used again."""
    topics = scene.topics()
    outputs = {
        field: _after(getattr(topics, field), getattr(earlier, field))
        for field in Topics._fields
        if field not in ("source", "events", "snapshots")
    }
    verdict = scene.verdict_on(earlier)
    verdict.add(scene.verdict_on(topics._replace(**outputs)))
    scene.judged = verdict


def _after(records: Records, earlier: Records) -> Records:
    return {number: list(of_partition)[len(earlier[number]) :] for number, of_partition in records.items()}


def _ends(records: Records) -> dict[int, int]:
    return {number: of_partition[-1].offset + 1 for number, of_partition in records.items() if of_partition}


async def _delete_before(scene: Stage, starts: dict[int, int]) -> None:
    """Remove the events of each partition before an offset, and wait until they are gone."""
    kafka = scene.live.settings.kafka
    cuts = {TopicPartition(kafka.topic(EVENTS.name), number): start for number, start in starts.items()}
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({tp: RecordsToDelete(start) for tp, start in cuts.items()})
    finally:
        await admin.close()
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers) as consumer:
        while await consumer.beginning_offsets(list(cuts)) != cuts:  # noqa: ASYNC110 (the broker sets no event)
            await asyncio.sleep(0.05)


def _cut_half(log: Path) -> None:
    """Cut a partition's only segment to half its bytes; the broker drops the batch that is cut in two."""
    segment = log / f"{0:020}.log"
    with segment.open("r+b") as file:
        file.truncate(segment.stat().st_size // 2)
    for file in log.iterdir():
        if file.suffix in (".index", ".timeindex", ".snapshot"):  # the broker makes them again from the segment
            file.unlink()
