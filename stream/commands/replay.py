"""`clickscore replay`: what the worker would decide on recorded events."""

import contextlib
import gzip
import os
from collections.abc import Generator
from pathlib import Path
from typing import IO, cast

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from schemas.topics import EVENTS
from stream.adapters import EventFile, Format
from stream.bundle import load_bundle
from stream.catalogue import Catalogue
from stream.commands.options import with_settings
from stream.errors import InputFileError
from stream.pipeline import Pipeline
from stream.replay import Replay
from stream.scoring import Scorer
from stream.settings import Settings


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "file_format", type=click.Choice(["clickscore", "taobao", "rees46"]), default="clickscore")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Decisions (.gz packs).")
@with_settings("bundle", "partitions", "gap_ms", "lateness_ms", "late_events", "k", "control_share", "topic_prefix")
def replay(file: Path, file_format: Format, out: Path, settings: Settings) -> None:
    """Put the events of FILE through the worker's pipeline, without Kafka, and write its decisions as JSON lines.

    The same events and bundle give the same decisions as live, byte for byte, given as many partitions. The catalogue
    and campaigns are not part of a file, so nothing is out of stock and no ad is chosen.

    \b
    Example:
      clickscore replay events.csv.gz --format rees46 --bundle stream/bundles/demo --out decisions.jsonl
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    scorer = None
    if settings.bundle:
        scorer = Scorer(load_bundle(Path(settings.bundle), settings.score_threads), settings.score_batch)
    pipeline = Pipeline(settings, settings.topic(EVENTS.name), Catalogue(), scorer)
    run = Replay(pipeline, settings.partitions)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with EventFile(file, file_format) as events, _writing(out) as decisions, Progress(*columns, console=console) as bar:
        task = bar.add_task("replay", total=events.size or None)
        for output in run.run(events):
            for message in (*output.recommendations, *output.ads):
                decisions.write((message.value or b"") + b"\n")
            bar.update(task, completed=events.position, description=f"{run.lines:,} events")
    console.print(f"{run.lines:,} lines: " + ", ".join(f"{count:,} {name}" for name, count in run.outcomes.items()))


@contextlib.contextmanager
def _writing(path: Path) -> Generator[IO[bytes]]:
    """Give a file that takes its name once it is whole, so that nobody reads half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as plain:
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=plain, mode="wb", mtime=0) as packed:
                    yield cast("IO[bytes]", packed)
            else:
                yield plain
        part.replace(path)
    except OSError as exc:
        message = f"{path} cannot be written: {exc.strerror or exc}"
        raise InputFileError(message) from exc
    finally:
        part.unlink(missing_ok=True)
