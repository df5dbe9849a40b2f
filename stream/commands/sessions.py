"""`clickscore sessions`: recorded events as the closed sessions that training reads, cut by the live session code."""

import click

from clickscore.stream.commands.options import with_settings
from clickscore.stream.commands.recorded import Asked, recorded, run
from clickscore.stream.settings import Settings


@click.command()
@recorded(output="Closed sessions, as JSON lines", needs_output=True)
@click.option("--close-open", is_flag=True, help="Also write the sessions that are open at the end, with ended: false.")
@with_settings(
    "partitions",
    "gap_ms",
    "lateness_ms",
    "late_events",
    "max_events",
    "topic_prefix",
    "broker_wait_ms",
)
def sessions(*, settings: Settings, asked: Asked, close_open: bool) -> None:
    """Cut recorded events into sessions by the code that serves, so that a model learns from what it will meet.

    SOURCE is a file (JSON lines, or --format; plain, gzip, Zstandard or Parquet) or a topic, kafka:NAME. What is
    written is what a worker would put on closed-sessions: those of partition 0 first, in the order in which they
    closed. A session is closed once gap_ms and lateness_ms have passed after it, in event time.

    \b
    Example:
      clickscore sessions events.csv.gz --format rees46 --out sessions.jsonl.gz --close-open
      clickscore train sessions.jsonl.gz --out checkpoint
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    run(settings, asked, "sessions, open ones too" if close_open else "sessions")
