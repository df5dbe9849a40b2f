"""Faust as in its guide: `async for` over events, one event a call, default settings."""

from typing import Any

import faust

from bench.peers.work import Work
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS
from clickscore.stream.settings import load

settings, _ = load()
work = Work(settings)
app = faust.App(
    settings.worker.group,
    broker=f"kafka://{settings.kafka.bootstrap_servers}",
    value_serializer="raw",
    key_serializer="raw",
    topic_partitions=settings.kafka.partitions,
    web_enabled=False,
)
decisions = app.topic(settings.kafka.topic(RECOMMENDATIONS.name))


@app.agent(app.topic(settings.kafka.topic(EVENTS.name)))
async def decide(stream: Any) -> None:
    async for event in stream.events():
        message = event.message
        key, body = work.decide(message.partition, message.offset, event.value)
        await decisions.send(key=key, value=body)


if __name__ == "__main__":
    faust.Worker(app, loglevel="warn").execute_from_commandline()
