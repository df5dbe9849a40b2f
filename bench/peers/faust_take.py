"""Faust at its best without internal changes: `take_events(64)`, one call of the graph, four tuned settings."""

import asyncio
from typing import Any

import faust
import uvloop

from bench.peers.work import Work
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS
from clickscore.stream.settings import load

settings, _ = load()
work = Work(settings)
uvloop.install()
app = faust.App(
    settings.worker.group,
    broker=f"kafka://{settings.kafka.bootstrap_servers}",
    value_serializer="raw",
    key_serializer="raw",
    topic_partitions=settings.kafka.partitions,
    web_enabled=False,
    cython_optimizations=True,
    producer_linger=0.01,  # seconds
    producer_max_batch_size=128 * 1024,
)
decisions = app.topic(settings.kafka.topic(RECOMMENDATIONS.name))


@app.agent(app.topic(settings.kafka.topic(EVENTS.name)))
async def decide(stream: Any) -> None:
    async for events in stream.take_events(64, within=0.01):
        records = [(event.message.partition, event.message.offset, event.value) for event in events]
        for key, body in work.decide_all(records):
            await decisions.send(key=key, value=body)


if __name__ == "__main__":
    faust.Worker(app, loglevel="warn", loop=asyncio.new_event_loop()).execute_from_commandline()
