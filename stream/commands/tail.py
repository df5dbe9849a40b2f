"""`clickscore tail`: show the records of a topic in words."""

import asyncio
import sys

import click

from clickscore.schemas.topics import RECOMMENDATIONS, TOPICS
from clickscore.stream.commands.options import with_settings
from clickscore.stream.kafka.tail import describe
from clickscore.stream.kafka.tail import tail as follow
from clickscore.stream.settings import Settings
from clickscore.stream.terminal_text import safe_json
from clickscore.stream.worker.logs import write_logs


@click.command()
@click.argument("topic", default=RECOMMENDATIONS.name)
@click.option("--count", type=click.IntRange(min=1), help="End after this number of records.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the value of each record in a line; on a terminal, control characters are escaped.",
)
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest record instead of the next record.")
@with_settings("topic_prefix", "broker_wait_ms")
def tail(*, settings: Settings, topic: str, count: int | None, as_json: bool, from_beginning: bool) -> None:
    """Show the records of TOPIC in words as they arrive.

    TOPIC is a name without the prefix; the default is the topic of the recommendations. The
    command joins no consumer group, so workers do not notice. Ctrl-C ends the command.

    \b
    Example:
      clickscore tail recommendation-decisions
      clickscore tail ad-decisions --count 10 --from-beginning
      clickscore tail dead-letters --json --from-beginning > dead.jsonl
    """  # noqa: D301
    write_logs()

    def ready() -> None:
        click.echo(f"Listening to {settings.kafka.topic(topic)}; Ctrl-C ends it", err=True)

    async def show() -> None:
        records = follow(settings.kafka, topic, from_beginning=from_beginning, count=count, on_ready=ready)
        async for record in records:
            if as_json and sys.stdout.isatty():
                click.echo(safe_json(record.value or b"null"))
            elif as_json:
                sys.stdout.buffer.write((record.value or b"null") + b"\n")
                sys.stdout.buffer.flush()
            else:
                click.echo(describe(topic, record))

    try:
        asyncio.run(show())
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # the reader of the pipe has ended, as `head` does
        sys.stderr.close()


tail.help = (tail.help or "") + "\n\n    \b\n    Topics:\n" + "".join(f"      {topic.name}\n" for topic in TOPICS)
