"""`clickscore topics`: the topics that workers need."""

import asyncio

import click

from clickscore.schemas.topics import TOPICS
from clickscore.stream.commands.options import with_settings
from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.topics import create_topics, list_topics
from clickscore.stream.settings import Settings


@click.group()
def topics() -> None:
    """Make the topics that workers need, and look at them.

    \b
    Example:
      clickscore topics create --partitions 8
      clickscore topics list
    """  # noqa: D301


@topics.command()
@with_settings("partitions", "replication", "retention_ms", "topic_prefix", "broker_wait_ms")
def create(settings: Settings) -> None:
    """Make the topics that are not there yet; those that are stay as they are.

    \b
    Example:
      clickscore topics create --bootstrap-servers 127.0.0.1:9092 --partitions 8
    """  # noqa: D301
    outcomes = asyncio.run(create_topics(settings.kafka))
    width = max(len(outcome.name) for outcome in outcomes)
    for outcome in outcomes:
        click.echo(f"{outcome.name:<{width}}  {outcome.partitions:>4} partitions  {outcome.outcome}")
    differing = [f"{each.name} {difference}" for each in outcomes for difference in each.differences]
    if differing:
        message = (
            f"topics exist and are otherwise: {'; '.join(differing)}. Nothing of them was changed. Ask for their "
            "partitions with --partitions (a user's partition changes with the number), and set what else differs "
            "with Kafka's own tools"
        )
        raise BrokerError(message)


@topics.command("list")
@with_settings("topic_prefix", "broker_wait_ms")
def list_command(settings: Settings) -> None:
    """List our topics with their partitions, and say which are missing.

    \b
    Example:
      clickscore topics list
    """  # noqa: D301
    there = asyncio.run(list_topics(settings.kafka))
    names = [settings.kafka.topic(topic.name) for topic in TOPICS]
    width = max(map(len, names))
    for name in names:
        state = f"{there[name]:>4} partitions" if name in there else "   missing"
        click.echo(f"{name:<{width}}  {state}")
