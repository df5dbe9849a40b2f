"""`clickscore replay`: write the decisions of the worker on recorded events, and compare published decisions."""

import dataclasses
import sys

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clickscore.stream.commands.options import with_settings
from clickscore.stream.commands.replay_command import replay_with_progress
from clickscore.stream.commands.source_options import with_reference_files, with_replay_options
from clickscore.stream.replay.field_differences import find_differences
from clickscore.stream.replay.run import ReplayOptions
from clickscore.stream.replay.source_options import SourceOptions, topic_in
from clickscore.stream.replay.verify import DifferingDecision, DiffSummary
from clickscore.stream.settings import Settings
from clickscore.stream.terminal_text import safe_text

MAX_FIELDS = 20
"""Limit of differing fields in a table: the table of a decision fits a terminal."""


@click.command()
@with_replay_options(content="decisions, as JSON lines,", needs_output=False)
@with_reference_files
@click.option("--check", metavar="kafka:TOPIC", help="Compare with the decisions that live workers have published.")
@with_settings(
    "bundle",
    "policy",
    "bundle_store",
    "partitions",
    "gap_ms",
    "lateness_ms",
    "late_events",
    "k",
    "reasons",
    "control_share",
    "reserve",
    "topic_prefix",
    "broker_wait_ms",
)
def replay(
    *, settings: Settings, source_options: SourceOptions, replay_options: ReplayOptions, check: str | None
) -> None:
    """Put recorded events through the worker's pipeline, as fast as possible, and write the decisions.

    SOURCE is a file (JSON lines, or --format; plain, gzip, Zstandard or Parquet) or a topic, kafka:NAME. The same
    events, bundle, policy and settings give the same decisions as live, byte for byte. The decisions of partition 0
    come first, in the order of the log. A replay of a topic takes catalogue and campaigns from their topics, as of the
    epoch of each event, and the bundles of a rollout from --bundle-store. For a file, --catalogue and --campaigns name
    files whose lines hold from their ts on.

    --check compares the decisions with published decisions; the exit code is 1 if any decision differs.

    \b
    Example:
      clickscore replay events.csv.gz --format rees46 --bundle demo --out decisions.jsonl.gz
      clickscore replay kafka:clickstream-events --from 2026-03-01T08:00 --warm-up-from earliest --out decisions.jsonl
      clickscore replay kafka:clickstream-events --bundle DIR --check kafka:recommendation-decisions

    \f
    Args:
        settings: All settings.
        source_options: Options that name the source.
        replay_options: Options of the run and its output.
        check: Topic of published decisions to compare with; None compares nothing.
    """  # noqa: D301 (\\b is click's mark for lines without wrapping)
    if not (replay_options.out or check):
        raise click.UsageError("the command has nothing to do: give --out, --check or both")
    if check is not None and not (topic_in(check) and topic_in(source_options.source)):
        raise click.UsageError("--check compares a topic with a topic: give kafka:NAME for both")
    if replay_options.resume and (check or not replay_options.out):
        raise click.UsageError("--resume needs --out, and cannot be combined with --check: leave out --check")
    replay_options = dataclasses.replace(replay_options, check=topic_in(check) if check else None)
    result = replay_with_progress(settings, source_options, "decisions", replay_options)
    if result.diff:
        _print_diff(result.diff)
        if not result.diff.identical:
            sys.exit(1)


def _print_diff(diff: DiffSummary) -> None:
    click.echo(f"{diff.equal:>12,}  equal")
    click.echo(f"{diff.different:>12,}  different")
    click.echo(f"{diff.missing:>12,}  missing: replayed, not published{_first_ids(diff.missing_ids)}")
    click.echo(f"{diff.extra:>12,}  extra: published, not replayed{_first_ids(diff.extra_ids)}")
    click.echo(f"{diff.repeats:>12,}  published again, with equal bytes")
    if diff.unreadable:
        click.echo(f"{diff.unreadable:>12,}  published records are not decisions on these events")
    console = Console(markup=False)
    for difference in diff.differences:
        click.echo(f"\n{safe_text(difference.decision_id)}")
        console.print(_difference_table(difference))


def _first_ids(ids: list[str]) -> str:
    return f" ({safe_text(', '.join(ids))}{', ...' if len(ids) > 1 else ''})" if ids else ""


def _difference_table(difference: DifferingDecision) -> Table:
    """Return the differing fields of a decision, published and replayed side by side."""
    table = Table("field", "published", "replayed")
    fields = find_differences(difference.published, difference.replayed)
    for field in fields[:MAX_FIELDS]:
        table.add_row(*map(_cell, (field.field, field.published, field.recomputed)))
    if len(fields) > MAX_FIELDS:
        table.add_row(f"{len(fields) - MAX_FIELDS} more", "", "")
    if not fields:
        published_text, replayed_text = (
            value.decode(errors="replace") for value in (difference.published, difference.replayed)
        )
        table.add_row(*map(_cell, ("only the bytes", published_text, replayed_text)))
    return table


def _cell(text: str) -> Text:
    """Return a cell of a table; a text without markup, whatever the data contain."""
    return Text(safe_text(text))
