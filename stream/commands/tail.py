"""`clickscore tail`: show the records of a topic in words."""

import asyncio
import re
import sys
import time
from datetime import UTC, datetime

import click

from clickscore.schemas.topics import RECOMMENDATIONS, TOPICS
from clickscore.stream.commands.options import with_settings
from clickscore.stream.kafka.tail import describe
from clickscore.stream.kafka.tail import tail as follow
from clickscore.stream.settings import Settings
from clickscore.stream.terminal_text import safe_json
from clickscore.stream.worker.logs import write_logs

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _parse_since(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Return a time, or a duration before now, in ms since the epoch."""
    if text is None:
        return None
    if duration := re.fullmatch(r"([0-9]+)([smhd])", text):
        return int((time.time() - int(duration[1]) * _UNIT_SECONDS[duration[2]]) * 1000)
    if text.isascii() and text.isdigit() and len(text) >= 12:  # 12 digits: the year 1973 in ms, or 5138 in s
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is neither a time like 2026-03-01T08:00 (UTC), nor ms since 1970, nor a duration like 15m"
        raise click.BadParameter(message) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


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
@click.option(
    "--since",
    "since_ms",
    metavar="TIME",
    callback=_parse_since,
    help="Begin with the records that Kafka received since a time (2026-03-01T08:00, UTC) or a duration (15m, 2h, 7d).",
)
@click.option(
    "--until-end",
    is_flag=True,
    help="End with the newest record of now. Without --since, begin with the oldest record.",
)
@click.option("--user", metavar="ID", help="Show the records of this user only. TOPIC must be keyed by user.")
@with_settings("topic_prefix", "broker_wait_ms")
def tail(
    *,
    settings: Settings,
    topic: str,
    count: int | None,
    as_json: bool,
    from_beginning: bool,
    since_ms: int | None,
    until_end: bool,
    user: str | None,
) -> None:
    """Show the records of TOPIC in words as they arrive.

    TOPIC is a name without the prefix; the default is the topic of the recommendations. The
    command joins no consumer group, so workers do not notice. Ctrl-C ends the command.

    \b
    Example:
      clickscore tail recommendation-decisions
      clickscore tail ad-decisions --count 10 --from-beginning
      clickscore tail recommendation-decisions --user anna --since 15m
      clickscore tail closed-sessions --json --until-end > sessions.jsonl
    """  # noqa: D301
    if from_beginning and since_ms is not None:
        raise click.UsageError("--from-beginning and --since cannot be combined: leave out one of them")
    if user is not None and topic in {other.name for other in TOPICS if not other.per_user}:
        raise click.UsageError(f"--user needs a topic that is keyed by user, and {topic} is not: leave out --user")
    write_logs()

    def ready() -> None:
        name = settings.kafka.topic(topic)
        click.echo(
            f"Reading {name} to its newest record" if until_end else f"Listening to {name}; Ctrl-C ends it", err=True
        )

    async def show() -> None:
        records = follow(
            settings.kafka,
            topic,
            from_beginning=from_beginning or (until_end and since_ms is None),
            since_ms=since_ms,
            until_end=until_end,
            key=None if user is None else user.encode(),
            count=count,
            on_ready=ready,
        )
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
