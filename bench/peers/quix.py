"""Quix Streams: `apply(stateful=True)`, sessions in RocksDB with a changelog topic, then `to_topic`."""

from typing import Any

from quixstreams import Application, State, message_context

from bench.peers.work import Work
from clickscore.schemas.events import decode_record
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS
from clickscore.stream.settings import load


def main() -> None:
    settings, _ = load()
    work = Work(settings)
    app = Application(
        broker_address=settings.kafka.bootstrap_servers,
        consumer_group=settings.worker.group,
        auto_offset_reset="earliest",
        state_dir=f"{settings.kafka.topic_prefix}state",
        loglevel="WARNING",
    )
    events = app.topic(settings.kafka.topic(EVENTS.name), key_deserializer="bytes", value_deserializer="bytes")
    decisions = app.topic(settings.kafka.topic(RECOMMENDATIONS.name), key_serializer="bytes", value_serializer="bytes")

    def decide(value: bytes, state: State[Any, Any]) -> bytes:
        context, event = message_context(), decode_record(value)
        session = work.enter(event, state.get("session"), f"{context.partition}-{context.offset}")
        state.set("session", session)
        return work.answer([work.ask(context.partition, context.offset, event, session)])[0][1]

    app.dataframe(events).apply(decide, stateful=True).to_topic(decisions)
    app.run()


if __name__ == "__main__":
    main()
