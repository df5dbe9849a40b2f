"""`clickscore events`: look at a file of events before it is sent."""

import datetime
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import click
import xxhash
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from clickscore.schemas.events import Tick, decode_record
from clickscore.stream.commands.options import with_settings
from clickscore.stream.event_files.formats import Format, Line
from clickscore.stream.event_files.line_errors import Faults
from clickscore.stream.event_files.reader import EventFile
from clickscore.stream.settings import Settings


class Findings:
    """What a file holds: events by type, repeats, the span of time, and what is wrong."""

    def __init__(self, max_event_bytes: int, show: int) -> None:
        self.types: Counter[str] = Counter()
        self.faults = Faults(show)
        self.repeats = 0
        """Events whose id their user has sent before: the worker counts each id once."""
        self.first_ts: int | None = None
        self.last_ts: int | None = None
        self._max_event_bytes = max_event_bytes
        self._seen: set[int] = set()

    def add(self, line: Line) -> None:
        """Look at one line, as strictly as the worker does."""
        if line.error is not None:
            self.faults.add(line.error, line.number)
            return
        if len(line.value) > self._max_event_bytes:
            self.faults.add(f"more than max_event_bytes ({self._max_event_bytes})", line.number)
            return
        try:
            record = decode_record(line.value)
        except (ValueError, RecursionError) as exc:  # msgspec's and UTF-8's errors are ValueErrors
            self.faults.add(str(exc) or type(exc).__name__, line.number)
            return
        self.types[str(record.__struct_config__.tag)] += 1
        self.first_ts = record.ts if self.first_ts is None else min(self.first_ts, record.ts)
        self.last_ts = record.ts if self.last_ts is None else max(self.last_ts, record.ts)
        if not isinstance(record, Tick):
            identity = xxhash.xxh3_64_intdigest(f"{len(record.user_id)}:{record.user_id}{record.event_id}".encode())
            self.repeats += identity in self._seen
            self._seen.add(identity)


@click.group()
def events() -> None:
    """Look at files of events.

    \b
    Example:
      clickscore events check events.csv.gz --format rees46
    """  # noqa: D301


@events.command()
@click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
@click.option("--format", "file_format", type=click.Choice(get_args(Format)), default="clickscore", show_default=True)
@click.option("--show", type=click.IntRange(0), default=5, show_default=True, help="Line numbers said of each fault.")
@with_settings("max_event_bytes")
def check(*, settings: Settings, file: Path, file_format: Format, show: int) -> None:
    """Say what FILE holds and what is wrong with it; exit code 1 where something is. Needs no broker.

    Remembers an id of every event (about 60 bytes each) to count repeats.

    \b
    Example:
      clickscore events check events.jsonl
      clickscore events check events.csv.gz --format rees46 --show 20
    """  # noqa: D301
    findings = Findings(settings.max_event_bytes, show)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with (
        EventFile(file, file_format) as lines,
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task(file.name, total=lines.size or None)
        for chunk in lines.chunks():
            for line in chunk:
                findings.add(line)
            bar.update(task, completed=lines.position)
    _report(findings)
    if findings.faults.total:
        sys.exit(1)


def _report(findings: Findings) -> None:
    good = findings.types.total()
    click.echo(f"{good:,} good events")
    for kind, count in findings.types.most_common():
        click.echo(f"  {count:>12,}  {kind}")
    if findings.first_ts is not None and findings.last_ts is not None:
        click.echo(f"from {_utc(findings.first_ts)} to {_utc(findings.last_ts)}")
    click.echo(f"{findings.repeats:,} repeat the id of an earlier one (the worker counts each id of a user once)")
    click.echo(f"{findings.faults.total:,} lines are wrong")
    for line in findings.faults.report():
        click.echo(f"  {line}")


def _utc(ts: int) -> str:
    return datetime.datetime.fromtimestamp(ts / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
