"""`clickscore simulate`: write a synthetic shop's past to files."""

import contextlib
import gzip
import io
import sys
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

import click

from clickscore.model.output_file import OUTPUT_FILE
from clickscore.schemas.catalogue import encode as encode_item
from clickscore.schemas.errors import OutputFileError
from clickscore.schemas.events import encode_event
from clickscore.schemas.sessions import encode_session
from clickscore.stream.simulator.shop.history import DAYS, History, generate
from clickscore.stream.simulator.shop.shop_events import encode_truth
from clickscore.stream.simulator.shop.shoppers import make_shop


@click.command()
@click.option(
    "--events", type=click.IntRange(1, 10_000_000), default=100_000, show_default=True, help="Minimum number of events."
)
@click.option(
    "--seed", type=click.IntRange(0), default=7, show_default=True, help="Seed: the same seed gives the same bytes."
)
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=DAYS,
    show_default=True,
    help="Days of history, from 5 January 2026 on.",
)
@click.option("--shoppers", type=click.IntRange(1), default=5_000, show_default=True, help="Number of shoppers.")
@click.option(
    "--out",
    type=OUTPUT_FILE,
    default=None,
    help="File for the events, JSON lines in order of sending. Default: standard output, if no other file is named.",
)
@click.option(
    "--truth", type=OUTPUT_FILE, default=None, help="File for the true probabilities: line n belongs to event n."
)
@click.option("--sessions", type=OUTPUT_FILE, help="File for the closed sessions, the input of training.")
@click.option("--items", type=OUTPUT_FILE, help="File for the catalogue.")
def simulate(
    *,
    events: int,
    seed: int,
    days: int,
    shoppers: int,
    out: Path | None,
    truth: Path | None,
    sessions: Path | None,
    items: Path | None,
) -> None:
    """Simulate the history of a shop: synthetic shoppers with tastes, needs and intents, and the true probabilities.

    Files that end in .gz are compressed. One event in a hundred is sent late, one in a hundred twice.

    \b
    Example:
      clickscore simulate --events 100000 --seed 7 --out events.jsonl.gz --sessions sessions.jsonl.gz
    """  # noqa: D301
    named = [file.resolve() for file in (out, truth, sessions, items) if file]
    if len(set(named)) < len(named):
        raise click.UsageError("two outputs have the same file: name a file of its own for each")
    shop = make_shop(seed, shoppers)
    history = generate(shop, events, days=days)
    try:
        if out or truth or not (sessions or items):
            _write_records(history, out, truth)
        if sessions:
            with _open(sessions) as file:
                file.writelines(encode_session(session) + b"\n" for session in history.sessions())
        if items:
            with _open(items) as file:
                file.writelines(encode_item(item) + b"\n" for item in shop.assortment.items)
    except OSError as exc:
        message = f"{exc.filename or 'the output'} cannot be written: {exc.strerror}"
        raise OutputFileError(message) from exc
    sent = len(history.sendings.event)
    visits = int(history.visit[-1]) + 1
    click.echo(f"Synthetic: {sent} records of {len(history)} events in {visits} sessions, seed {seed}", err=True)


def _write_records(history: History, out: Path | None, truth: Path | None) -> None:
    """Write events and truths, line by line in the same order.

    Args:
        history: Past of the shop.
        out: File for events; standard output if neither file is given.
        truth: File for truths.
    """
    with contextlib.ExitStack() as files:
        event_file = files.enter_context(_open(out)) if out else sys.stdout.buffer
        truth_file = files.enter_context(_open(truth)) if truth else None
        for event, its_truth in history.records():
            event_file.write(encode_event(event) + b"\n")
            if truth_file:
                truth_file.write(encode_truth(its_truth) + b"\n")


@contextlib.contextmanager
def _open(path: Path) -> Generator[BinaryIO]:
    with path.open("wb") as raw:
        if path.suffix != ".gz":
            yield raw
            return
        # The header holds no name and no time, so the same seed gives the same bytes.
        with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed, io.BufferedWriter(packed) as file:
            yield file
