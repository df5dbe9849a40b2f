"""`clickscore produce`: send the events of a file to a topic."""

import asyncio
import time
from pathlib import Path

import click
from rich.progress import TextColumn

from clickscore.model.finite_range import FiniteRange
from clickscore.schemas.topics import EVENTS
from clickscore.stream.commands.options import format_option, order_option, print_ignored, with_settings
from clickscore.stream.commands.progress import progress_bar
from clickscore.stream.event_files.produce import MAX_WAIT_SECONDS, ProduceTally, constant_rate, event_time_speed
from clickscore.stream.event_files.produce import produce as send
from clickscore.stream.event_files.time_order import FILE_ORDER, Order, OrderedEventFile, plan_reading
from clickscore.stream.settings import Settings
from clickscore.stream.worker.logs import write_logs


@click.command()
@click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
@format_option
@order_option
@click.option("--topic", default=EVENTS.name, show_default=True, help="Topic to send to, without the prefix.")
@click.option("--rate", type=FiniteRange(min=0, min_open=True), help="Send this many events per second.")
@click.option(
    "--speed",
    type=FiniteRange(min=0, min_open=True),
    help="Follow event time: 1 is the original speed, 60 sends an hour of events in a minute.",
)
@click.option(
    "--max-wait-s",
    type=FiniteRange(min=0),
    default=MAX_WAIT_SECONDS,
    show_default=True,
    help="With --speed: wait at most this long for the next event, in seconds.",
)
@with_settings("lateness_ms", "topic_prefix", "broker_wait_ms")
def produce(
    *,
    settings: Settings,
    file: Path,
    file_format: str,
    order: Order,
    topic: str,
    rate: float | None,
    speed: float | None,
    max_wait_s: float,
) -> None:
    """Send the events of FILE to a topic, as fast as possible; the events of each user stay in order.

    Rows that are not events are skipped and reported; lines of a `clickscore` file are sent unchanged. A file with
    late events is sent in order of event time. `-` reads stdin, in its own order.

    \b
    Example:
      clickscore produce events.csv.gz --format rees46
      clickscore produce events.jsonl --speed 60
      tail -f events.jsonl | clickscore produce -
    """  # noqa: D301
    if rate and speed:
        raise click.UsageError("--rate and --speed cannot be combined: leave out one of them")
    write_logs()
    pace = constant_rate(rate) if rate else event_time_speed(speed) if speed else None
    tally = ProduceTally()
    started_at = time.monotonic()
    columns = TextColumn("{task.fields[sent]:,} sent, {task.fields[rate]:,.0f}/s")
    found_format, plan = plan_reading(file, file_format, settings.sessions.lateness_ms)
    plan = plan if order == "time" else FILE_ORDER
    with OrderedEventFile(file, found_format, plan) as events, progress_bar(columns) as bar:
        task = bar.add_task(file.name, total=events.size or None, sent=0, rate=0.0)

        def update() -> None:
            sent_per_second = tally.sent / (time.monotonic() - started_at)
            bar.update(task, completed=events.bytes_read, sent=tally.sent, rate=sent_per_second)

        try:
            asyncio.run(
                send(
                    settings.kafka,
                    events,
                    tally,
                    topic=topic,
                    pace=pace,
                    max_wait_s=max_wait_s,
                    on_wait=_print_wait,
                    on_progress=update,
                )
            )
            events.require_event()
        finally:
            _print_summary(tally, settings.kafka.topic(topic), time.monotonic() - started_at)
            print_ignored(events)


def _print_wait(needed_s: float, waited_s: float) -> None:
    cut = "" if needed_s <= waited_s else " (--max-wait-s)"
    click.echo(f"The next event is {needed_s:,.0f} s away at this speed: waiting {waited_s:,.0f} s{cut}", err=True)


def _print_summary(tally: ProduceTally, topic: str, seconds: float) -> None:
    click.echo(
        f"Sent {tally.sent:,} of {tally.read:,} lines to {topic} in {seconds:.1f} s ({tally.sent / seconds:,.0f}/s), "
        f"skipped {tally.skipped.total:,}"
    )
    for sentence in tally.skipped.report():
        click.echo(f"  {sentence}")
