"""`clickscore sessions`: write the sessions of recorded events, the input of training."""

import click

from clickscore.stream.commands.options import with_settings
from clickscore.stream.commands.replay_command import replay_with_progress
from clickscore.stream.commands.source_options import with_replay_options
from clickscore.stream.replay.run import ReplayOptions
from clickscore.stream.replay.source_options import SourceOptions
from clickscore.stream.settings import Settings


@click.command()
@with_replay_options(content="closed sessions, as JSON lines,", needs_output=True)
@click.option(
    "--close-open", is_flag=True, help="Add the sessions that are still open at the end, marked with ended: false."
)
@with_settings(
    "partitions",
    "gap_ms",
    "lateness_ms",
    "late_events",
    "max_events",
    "topic_prefix",
    "broker_wait_ms",
)
def sessions(
    *, settings: Settings, source_options: SourceOptions, replay_options: ReplayOptions, close_open: bool
) -> None:
    """Divide recorded events into sessions, with the code of the worker: training and serving see equal sessions.

    SOURCE is a file (JSON lines, or --format; plain, gzip, Zstandard or Parquet) or a topic, kafka:NAME. The output is
    the closed-sessions topic of a worker: the sessions of partition 0 first, in the order of closing. A session closes
    when gap_ms and lateness_ms have passed after the last event, in event time.

    \b
    Example:
      clickscore sessions events.csv.gz --format rees46 --out sessions.jsonl.gz --close-open
      clickscore train sessions.jsonl.gz --out checkpoint

    \f
    Args:
        settings: Settings of sessions.
        source_options: Options that name the source.
        replay_options: Options of the run and its output.
        close_open: Whether open sessions are written, too.
    """  # noqa: D301 (\\b is click's mark for lines without wrapping)
    output = "sessions, open ones too" if close_open else "sessions"
    replay_with_progress(settings, source_options, output, replay_options)
