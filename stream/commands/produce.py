"""`clickscore produce`: put a file of events on a topic."""

import asyncio
import time
from pathlib import Path
from typing import get_args

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from clickscore.schemas.topics import EVENTS
from clickscore.stream.commands.options import with_settings
from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.formats import Format
from clickscore.stream.event_files.produce import Tally, at_rate, at_speed
from clickscore.stream.event_files.produce import produce as send
from clickscore.stream.event_files.reader import EventFile
from clickscore.stream.settings import Settings
from clickscore.stream.worker.logs import write_logs


@click.command()
@click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
@click.option("--format", "file_format", type=click.Choice(get_args(Format)), default="clickscore", show_default=True)
@click.option("--topic", default=EVENTS.name, show_default=True, help="Where to, without the prefix.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second.")
@click.option("--speed", type=click.FloatRange(min=0, min_open=True), help="By event time: 1 as it happened.")
@with_settings("topic_prefix", "broker_wait_ms")
def produce(
    *, settings: Settings, file: Path, file_format: Format, topic: str, rate: float | None, speed: float | None
) -> None:
    """Put the events of FILE on a topic, as fast as it goes; every user's stay in order. `-` reads stdin.

    Rows that are no events are skipped and said; lines of a `clickscore` file go out as they are.

    \b
    Example:
      clickscore produce events.csv.gz --format rees46
      clickscore produce events.jsonl --speed 60
      tail -f events.jsonl | clickscore produce -
    """  # noqa: D301
    if rate and speed:
        message = "--rate and --speed exclude each other"
        raise click.UsageError(message)
    if str(file) == "-" and file_format != "clickscore":
        message = "stdin is read in the clickscore format only"
        raise click.UsageError(message)
    write_logs()
    pace = at_rate(rate) if rate else at_speed(speed) if speed else None
    tally = Tally()
    began = time.monotonic()
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[sent]:,} sent, {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    )
    with (
        EventFile(file, file_format) as events,
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task(file.name, total=events.size or None, sent=0, rate=0.0)

        def update() -> None:
            rate = tally.sent / (time.monotonic() - began)
            bar.update(task, completed=events.position, sent=tally.sent, rate=rate)

        try:
            asyncio.run(send(settings, events, tally, topic=topic, pace=pace, on_progress=update))
            if tally.skipped.total == tally.read > 0:
                message = f"{file} holds no event in the format {file_format}"
                raise InputFileError(message)
        finally:
            _summarise(tally, settings.topic(topic), time.monotonic() - began)


def _summarise(tally: Tally, topic: str, seconds: float) -> None:
    click.echo(
        f"Sent {tally.sent:,} of {tally.read:,} lines to {topic} in {seconds:.1f} s ({tally.sent / seconds:,.0f}/s), "
        f"skipped {tally.skipped.total:,}"
    )
    for line in tally.skipped.report():
        click.echo(f"  {line}")
