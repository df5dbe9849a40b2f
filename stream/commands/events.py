"""`clickscore events`: check a file of events before sending."""

import datetime
import sys
from pathlib import Path

import click
import msgspec

from clickscore.model.bundle_folder import BundleFolder
from clickscore.model.json_output import JsonOutput, json_options
from clickscore.stream.commands.options import format_option, print_ignored, with_settings
from clickscore.stream.commands.progress import progress_bar
from clickscore.stream.errors import BundleError
from clickscore.stream.event_files.formats.mapping_files import SHIPPED_MAPPINGS, mapping_text, read_mapping
from clickscore.stream.event_files.formats.registry import FORMATS
from clickscore.stream.event_files.summary import JUMP_MS, EventFileSummary
from clickscore.stream.event_files.time_order import OrderedEventFile, plan_reading
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
@click.option(
    "--bundle",
    type=BundleFolder(),
    help="Count the events on items that the model of this bundle does not know.",
)
@json_options
@with_settings("max_event_bytes", "lateness_ms", "partitions")
def check(
    *, settings: Settings, file: Path, file_format: str, show: int, bundle: Path | None, json_output: JsonOutput
) -> None:
    """Count the events of FILE, and report errors, late events, jumps in time and unknown items. Needs no broker.

    The exit code is 1 if FILE has errors or late events, or if the bundle knows less than half of the items.

    The command keeps about 60 bytes for each event in memory, to count repeated event ids.

    \b
    Example:
      clickscore events check events.jsonl
      clickscore events check events.csv.gz --format rees46 --show 20
      clickscore events check events.jsonl --json
    """  # noqa: D301
    summary = EventFileSummary(
        max_event_bytes=settings.sessions.max_event_bytes,
        show=show,
        lateness_ms=settings.sessions.lateness_ms,
        partitions=settings.kafka.partitions,
        known_items=_read_items(bundle) if bundle else None,
    )
    file_format, plan = plan_reading(file, file_format, settings.sessions.lateness_ms, requires_event=False)
    plan = msgspec.structs.replace(plan, sorts=False)
    with OrderedEventFile(file, file_format, plan) as lines, progress_bar() as bar:
        task = bar.add_task(file.name, total=lines.size or None)
        for chunk in lines.chunks():
            for line in chunk:
                summary.add(line)
            bar.update(task, completed=lines.bytes_read)
    json_output.write(summary.as_document() | {"ignored": lines.ignored})
    if not json_output.to_stdout:
        _print_summary(summary)
        print_ignored(lines)
    lines.require_event()
    if not summary.fit:
        sys.exit(1)


def _read_items(bundle: Path) -> frozenset[str]:
    """Return the item ids of a bundle."""
    try:
        return frozenset((bundle / "items.txt").read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as exc:
        message = f"{bundle} is no bundle: its items.txt cannot be read: {exc}"
        raise BundleError(message) from exc


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
    click.echo(f"{summary.out_of_order:,} events are older than the event before")
    if summary.jumps:
        days = summary.longest_jump_ms / JUMP_MS
        click.echo(
            f"{summary.jumps:,} times the newest event time jumps by more than a day, at most by {days:,.1f} days "
            f"(line {summary.longest_jump_line})"
        )
    if summary.unknown_items is not None:
        unknown = summary.unknown_items.total()
        share = unknown / max(1, summary.item_events)
        click.echo(
            f"{unknown:,} of {summary.item_events:,} events on items ({share:.1%}) are on "
            f"{len(summary.unknown_items):,} items that the bundle does not know"
        )
    click.echo(f"{summary.late.total:,} events are late in the order of the file")
    for sentence in summary.late.report():
        click.echo(f"  {sentence}")
    if summary.late.total:
        click.echo(
            "  clickscore produce, replay, sessions and backtest sort the file; another sender must sort it, too"
        )
    click.echo(f"{summary.errors.total:,} lines have errors")
    for sentence in summary.errors.report():
        click.echo(f"  {sentence}")


def _utc_text(ts: int) -> str:
    return datetime.datetime.fromtimestamp(ts / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
