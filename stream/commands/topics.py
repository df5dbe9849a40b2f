"""`clickscore topics`: create, grow and list the topics of an installation."""

import asyncio
from collections.abc import Mapping

import click

from clickscore.model.json_output import JsonOutput, json_options
from clickscore.schemas.topics import TOPICS
from clickscore.stream.commands.options import with_settings
from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.topics import create_topics, grow_topics, list_topics, topic_advice
from clickscore.stream.settings import Settings


@click.group()
def topics() -> None:
    """Create, grow and list the topics of an installation.

    \b
    Example:
      clickscore topics create --partitions 8
      clickscore topics list
    """  # noqa: D301


@topics.command()
@with_settings("partitions", "replication", "retention_ms", "topic_prefix", "broker_wait_ms")
def create(settings: Settings) -> None:
    """Create the missing topics; existing topics stay unchanged.

    \b
    Example:
      clickscore topics create --bootstrap-servers 127.0.0.1:9092 --partitions 8
    """  # noqa: D301
    outcomes = asyncio.run(create_topics(settings.kafka))
    width = max(len(outcome.name) for outcome in outcomes)
    for outcome in outcomes:
        click.echo(f"{outcome.name:<{width}}  {outcome.partitions:>4} partitions  {outcome.outcome}")
    _print_advice({outcome.name: outcome.advice for outcome in outcomes})
    differing = [f"{outcome.name} {difference}" for outcome in outcomes for difference in outcome.differences]
    if differing:
        message = (
            f"topics exist but differ: {'; '.join(differing)}. They were not changed. Either ask for their number of "
            "partitions with --partitions, or add partitions with `clickscore topics grow`, or change the configs with "
            "Kafka's own tools"
        )
        raise BrokerError(message)


@topics.command()
@with_settings("partitions", "topic_prefix", "broker_wait_ms")
def grow(settings: Settings) -> None:
    """Add partitions to all user-keyed topics, the outputs first and the events last.

    More partitions let more workers share the load. Most users move to another partition and begin a new session
    there, without what they have bought; the state of their earlier partition stays until it is forgotten. Running
    workers notice within seconds and stop: start them again.

    \b
    Example:
      clickscore topics grow --partitions 16
    """  # noqa: D301
    counts = asyncio.run(grow_topics(settings.kafka))
    width = max(map(len, counts))
    for name, count in counts.items():
        click.echo(f"{name:<{width}}  {count:>4} -> {settings.kafka.partitions} partitions")


@topics.command("list")
@json_options
@with_settings("topic_prefix", "broker_wait_ms")
def list_command(*, settings: Settings, json_output: JsonOutput) -> None:
    """List the topics of the installation with the number of partitions, and show missing topics (null in JSON).

    \b
    Example:
      clickscore topics list
    """  # noqa: D301
    partitions = asyncio.run(list_topics(settings.kafka))
    names = [settings.kafka.topic(topic.name) for topic in TOPICS]
    width = max(map(len, names))
    for name in names:
        state = f"{partitions[name]:>4} partitions" if name in partitions else "   missing"
        json_output.echo(f"{name:<{width}}  {state}")
    json_output.write({name: partitions.get(name) for name in names})
    _print_advice(asyncio.run(topic_advice(settings.kafka)))


def _print_advice(advice: Mapping[str, tuple[str, ...]]) -> None:
    """Print the topics whose configs let removed values stay on disk for longer than the docs say."""
    for name, sentences in advice.items():
        if sentences:
            click.echo(
                f"{name}: removed records stay on disk longer than docs/operations.md says: {', '.join(sentences)}. "
                "Lower these configs with kafka-configs.sh --alter",
                err=True,
            )
