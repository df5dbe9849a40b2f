"""`clickscore events`: check a file of events before sending."""

import datetime
import sys
from pathlib import Path

import click

from clickscore.stream.commands.options import format_option, with_settings
from clickscore.stream.commands.progress import progress_bar
from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.formats.registry import Format
from clickscore.stream.event_files.summary import EventFileSummary
from clickscore.stream.settings import Settings


@click.group()
def events() -> None:
    """Check files of events.

    \b
    Example:
      clickscore events check events.csv.gz --format rees46
    """  # noqa: D301


@events.command()
@click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
@format_option
@click.option(
    "--show", type=click.IntRange(0), default=5, show_default=True, help="Line numbers to print for each kind of error."
)
@with_settings("max_event_bytes")
def check(*, settings: Settings, file: Path, file_format: Format, show: int) -> None:
    """Count the events of FILE and report errors. The exit code is 1 if FILE has errors. Needs no broker.

    The command keeps about 60 bytes for each event in memory, to count repeated event ids.

    \b
    Example:
      clickscore events check events.jsonl
      clickscore events check events.csv.gz --format rees46 --show 20
    """  # noqa: D301
    summary = EventFileSummary(settings.sessions.max_event_bytes, show)
    with EventFile(file, file_format) as lines, progress_bar() as bar:
        task = bar.add_task(file.name, total=lines.size or None)
        for chunk in lines.chunks():
            for line in chunk:
                summary.add(line)
            bar.update(task, completed=lines.bytes_read)
    _print_summary(summary)
    if summary.errors.total:
        sys.exit(1)


def _print_summary(summary: EventFileSummary) -> None:
    click.echo(f"{summary.types.total():,} good events")
    for event_type, count in summary.types.most_common():
        click.echo(f"  {count:>12,}  {event_type}")
    if summary.first_ts is not None and summary.last_ts is not None:
        click.echo(f"from {_utc_text(summary.first_ts)} to {_utc_text(summary.last_ts)}")
    click.echo(f"{summary.repeats:,} events repeat an earlier event id (the worker counts each id of a user once)")
    click.echo(f"{summary.errors.total:,} lines have errors")
    for sentence in summary.errors.report():
        click.echo(f"  {sentence}")


def _utc_text(ts: int) -> str:
    return datetime.datetime.fromtimestamp(ts / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
