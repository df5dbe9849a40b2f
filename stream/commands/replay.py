"""`clickscore replay`: what the worker would decide on recorded events, and whether that is what it did decide."""

import sys
from collections.abc import Iterator

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clickscore.stream.commands.options import with_settings
from clickscore.stream.commands.recorded import Asked, recorded, run, topic_of
from clickscore.stream.replay.verify import Difference, Findings
from clickscore.stream.settings import Settings

ROWS = 20
"""Differing fields of a decision that are shown."""


@click.command()
@recorded(output="Decisions, as JSON lines", needs_output=False)
@click.option("--check", metavar="kafka:TOPIC", help="Compare with the decisions that a live worker has published.")
@with_settings(
    "bundle",
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
def replay(*, settings: Settings, asked: Asked, check: str | None) -> None:
    """Put recorded events through the worker's pipeline as fast as it goes, and write its decisions.

    SOURCE is a file (JSON lines, or --format; plain, gzip, Zstandard or Parquet) or a topic, kafka:NAME. The same
    events, bundle and settings give the same decisions as live, byte for byte: those of partition 0 first, in the
    order of its log. A topic's decisions are made with the catalogue and campaigns as they stand now; a file has none.

    --check compares them with what was published; exit code 1 where any differs.

    \b
    Example:
      clickscore replay events.csv.gz --format rees46 --bundle stream/bundles/demo --out decisions.jsonl.gz
      clickscore replay kafka:clickstream-events --from 2026-03-01T08:00 --warm-from earliest --out decisions.jsonl
      clickscore replay kafka:clickstream-events --bundle DIR --check kafka:recommendation-decisions
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    if not (asked.out or check):
        raise click.UsageError("nothing to do: give --out, --check or both")
    if check is not None and not (topic_of(check) and topic_of(asked.source)):
        raise click.UsageError("--check compares a topic with a topic: kafka:NAME")
    result = run(settings, asked, "decisions", topic_of(check) if check else None)
    if result.findings:
        show_findings(result.findings)
        if not result.findings.faithful:
            sys.exit(1)


def show_findings(findings: Findings) -> None:
    """Print how a replay and what was published compare."""
    click.echo(f"{findings.equal:>12,}  equal")
    click.echo(f"{findings.different:>12,}  different")
    click.echo(f"{findings.missing:>12,}  missing: replayed, not published{_first(findings.missing_ids)}")
    click.echo(f"{findings.extra:>12,}  extra: published, not replayed{_first(findings.extra_ids)}")
    click.echo(f"{findings.repeats:>12,}  published again, with equal bytes")
    if findings.unreadable:
        click.echo(f"{findings.unreadable:>12,}  published records are no decisions on these events")
    console = Console()
    for difference in findings.differences:
        click.echo(f"\n{difference.decision_id}")
        console.print(_side_by_side(difference))


def _first(ids: list[str]) -> str:
    return f" ({', '.join(ids)}{', ...' if len(ids) > 1 else ''})" if ids else ""


def _side_by_side(difference: Difference) -> Table:
    table = Table("field", "published", "replayed")
    published, replayed = (dict(_fields("", _decoded(value))) for value in (difference.published, difference.replayed))
    names = [name for name in {**replayed, **published} if published.get(name) != replayed.get(name)]
    for name in names[:ROWS]:
        table.add_row(*map(Text, (name, published.get(name, "(none)"), replayed.get(name, "(none)"))))
    if len(names) > ROWS:
        table.add_row(f"{len(names) - ROWS} more", "", "")
    if not names:
        table.add_row(*map(Text, ("the bytes alone", difference.published.decode(), difference.replayed.decode())))
    return table


def _decoded(value: bytes) -> object:
    return msgspec.json.decode(value) if value else {}


def _fields(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield the leaves of a JSON value, by their paths."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _fields(f"{name}.{key}" if name else str(key), part)
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from _fields(f"{name}[{at}]", part)
    else:
        yield name, msgspec.json.encode(value).decode()
