"""`clickscore events`: check a file of events before sending."""

import datetime
import sys
from pathlib import Path

import click

from clickscore.stream.commands.options import format_option, print_ignored, with_settings
from clickscore.stream.commands.progress import progress_bar
from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.formats.mapping_files import SHIPPED_MAPPINGS, mapping_text, read_mapping
from clickscore.stream.event_files.formats.registry import FORMATS
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
def check(*, settings: Settings, file: Path, file_format: str, show: int) -> None:
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
    print_ignored(lines)
    if summary.errors.total:
        sys.exit(1)


@events.command()
def formats() -> None:
    """List the formats of event files: those of the program, and the mappings that come with the package.

    A mapping is a TOML file that makes events of any JSON or CSV source; `clickscore events mapping NAME` prints it.

    \b
    Example:
      clickscore events formats
      clickscore events check dump.jsonl --format segment
    """  # noqa: D301
    names = {**FORMATS, **{name: read_mapping(name).mapping.description for name in SHIPPED_MAPPINGS}}
    width = max(map(len, names))
    for name, description in names.items():
        click.echo(f"{name:<{width}}  {description}")


@events.command()
@click.argument("name", type=click.Choice(SHIPPED_MAPPINGS), metavar="NAME")
def mapping(*, name: str) -> None:
    """Print the mapping NAME, which comes with the package, as the beginning of a mapping of your own.

    \b
    Example:
      clickscore events mapping segment > shop.toml
      clickscore events check dump.jsonl --format shop.toml
    """  # noqa: D301
    click.echo(mapping_text(name), nl=False)


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
