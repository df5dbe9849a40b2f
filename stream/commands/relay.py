"""`clickscore relay`: map a live topic of another system onto the topic of events."""

import asyncio
import signal

import click

from clickscore.schemas.topics import EVENTS
from clickscore.stream.commands.options import FormatName, with_settings
from clickscore.stream.event_files.formats.mapping_files import SHIPPED_MAPPINGS, read_mapping
from clickscore.stream.event_files.relay import RelayTally
from clickscore.stream.event_files.relay import relay as relay_topic
from clickscore.stream.settings import Settings
from clickscore.stream.worker.logs import write_logs


@click.command()
@click.option("--from-topic", "source", required=True, help="Full name of the topic to read.")
@click.option(
    "--format",
    "mapping_name",
    type=FormatName(SHIPPED_MAPPINGS),
    metavar="MAPPING",
    required=True,
    help="Shipped mapping (`clickscore events formats` lists all), or the path of a mapping of your own (.toml).",
)
@click.option(
    "--group", help="Consumer group; relays of one group share the partitions. Default: clickscore-relay-TOPIC."
)
@with_settings("topic_prefix", "broker_wait_ms", "max_event_bytes", "schema_registry")
def relay(*, settings: Settings, source: str, mapping_name: str, group: str | None) -> None:
    """Map the records of a live topic onto the topic of events, at least once, until Ctrl-C.

    A record that cannot be mapped goes to the dead letters with the reason. Event ids are stable: the id of the source,
    or else topic, partition and offset. So the worker counts a record that is relayed twice only once.

    Records in Avro and Protobuf are decoded by the schemas of `--schema-registry`, and then mapped like JSON.

    \b
    Example:
      clickscore relay --from-topic segment-events --format segment
      clickscore relay --from-topic shop-avro --format shop-events --schema-registry http://127.0.0.1:8081
      clickscore tail dead-letters --from-beginning

    \f
    Args:
        settings: Settings of the broker and the topics.
        source: Topic to read, without prefix.
        mapping_name: Name of a shipped mapping, or path of a mapping.
        group: Consumer group; None for the default.
    """  # noqa: D301
    write_logs(settings.worker.log_format)
    mapping = read_mapping(mapping_name)
    tally = RelayTally()
    target = settings.kafka.topic(EVENTS.name)

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ready() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop.set)
            click.echo(f"Relaying {source} to {target}; Ctrl-C ends it", err=True)

        await relay_topic(
            settings.kafka,
            source,
            mapping,
            tally,
            group=group or f"{settings.kafka.topic_prefix}clickscore-relay-{source}",
            max_event_bytes=settings.sessions.max_event_bytes,
            stop=stop,
            on_ready=ready,
        )

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        return
    finally:
        _print_summary(tally, target)


def _print_summary(tally: RelayTally, target: str) -> None:
    click.echo(
        f"Relayed {tally.read:,} records as {tally.sent:,} events to {target}, ignored {tally.ignored:,}, "
        f"{tally.dead.total:,} dead letters"
    )
    for sentence in tally.dead.report():
        click.echo(f"  {sentence.replace('(line', '(offset')}")
