"""Recorded: what the commands on recorded events share: their options, a run with its progress, and what it came to."""

import asyncio
import contextlib
import dataclasses
import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from clickscore.stream.errors import OutputFileError
from clickscore.stream.event_files.formats.registry import Format
from clickscore.stream.reference.records import Reference, read_reference
from clickscore.stream.replay import checkpoint as parts
from clickscore.stream.replay import processes
from clickscore.stream.replay import run as replay
from clickscore.stream.replay.checkpoint import Plan, What
from clickscore.stream.replay.file_source import FileOrigin, file_origin
from clickscore.stream.replay.origins import Origin
from clickscore.stream.replay.output import merge
from clickscore.stream.replay.run import Result, Task
from clickscore.stream.replay.source import KAFKA
from clickscore.stream.replay.topic_source import KafkaOrigin, kafka_origin
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.settings import Settings

Command = Callable[..., Any]

CHECKPOINT_SECONDS = 15.0

_BOUND = "an offset, a time like 2026-03-01T08:00 (UTC), earliest or latest"

SOURCE_OPTIONS: tuple[Callable[[Command], Command], ...] = (
    click.argument("source"),
    click.option(
        "--format", "file_format", type=click.Choice(get_args(Format)), default="clickscore", show_default=True
    ),
    click.option("--from", "begin", metavar="WHERE", help=f"Of a topic, begin here: {_BOUND}. Default: earliest."),
    click.option("--to", "end", metavar="WHERE", help="Of a topic, end before this, likewise. Default: latest."),
    click.option("--warm-from", metavar="WHERE", help="Of a topic, read from here, to know what was before --from."),
)
"""Which recorded events, and how they are read: the fields of `Where`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Where:
    """What `SOURCE_OPTIONS` say."""

    source: str
    file_format: Format
    begin: str | None
    end: str | None
    warm_from: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked(Where):
    """What the options say."""

    workers: int
    out: Path | None
    resume: bool
    checkpoint_s: float


def recorded(*, output: str, needs_output: bool) -> Callable[[Command], Command]:
    """Give a command SOURCE and the options on how it is read; it receives them as `asked`.

    Args:
        output: What --out gets, in words.
        needs_output: Whether the command is nothing without it.
    """
    out_path = click.Path(dir_okay=False, path_type=Path)
    options = (
        *SOURCE_OPTIONS,
        click.option(
            "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes, by partition."
        ),
        click.option("--out", type=out_path, required=needs_output, help=f"{output} (.gz packs)."),
        click.option("--resume", is_flag=True, help="Go on with a run that was cut off."),
        click.option(
            "--checkpoint-s",
            type=click.FloatRange(min=0, min_open=True),
            default=CHECKPOINT_SECONDS,
            show_default=True,
            help="Seconds between two checkpoints, at least.",
        ),
    )

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**given: Any) -> Any:  # noqa: ANN401 (click passes what it parsed)
            asked = Asked(**{field.name: given.pop(field.name) for field in dataclasses.fields(Asked)})
            return command(asked=asked, **given)

        wrapped: Command = run
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def topic_of(source: str) -> str | None:
    """Return the topic that a source names, none where it is a file."""
    return source.removeprefix(KAFKA) if source.startswith(KAFKA) else None


def run(settings: Settings, asked: Asked, what: What, check: str | None = None) -> Result:
    """Replay what was asked for, with a progress bar, and say on stderr what it came to.

    Raises:
        ClickscoreError: It cannot be done; what is done stays, for --resume.
    """
    _refuse(asked, check)
    origin = origin_of(settings, asked)
    bundle = None
    if what == "decisions" and settings.scoring.bundle:
        bundle = load_bundle(
            Path(settings.scoring.bundle), settings.scoring.score_threads, settings.scoring.min_overlap
        ).manifest.version
    workers = min(asked.workers, origin.partitions)
    plan = Plan(what=what, origin=origin, bundle=bundle, workers=workers, settings=settings.identity)
    began = time.monotonic()
    with _folder(settings, asked, plan, keep=check is None) as (folder, plan):
        tasks = [
            Task(
                settings=settings,
                plan=plan,
                folder=folder,
                worker=worker,
                writes=asked.out is not None,
                packed=asked.out is not None and asked.out.suffix == ".gz",
                checkpoint_s=0 if check else asked.checkpoint_s,
                check=check,
            )
            for worker in range(workers)
        ]
        result = replay.merged(_run_tasks(tasks, asked.source))
        if asked.out:
            merge(folder, plan.origin.partitions, asked.out)
    _summarise(result, plan, asked.out, time.monotonic() - began)
    return result


def _refuse(asked: Asked, check: str | None) -> None:
    """Refuse options that contradict each other.

    Raises:
        click.UsageError: They do.
    """
    if asked.source == "-" and (asked.workers > 1 or asked.resume):
        raise click.UsageError("stdin can be read once: neither --workers nor --resume")
    if asked.resume and (check or not asked.out):
        raise click.UsageError("--resume goes on with an --out, and a --check begins anew")


def origin_of(settings: Settings, where: Where) -> Origin:
    """Return the recorded events that the options name.

    Raises:
        click.UsageError: They contradict each other.
        ClickscoreError: A file cannot be read, Kafka not be reached, or a bound is none.
    """
    topic = topic_of(where.source)
    if topic == "":
        raise click.UsageError("kafka: needs the name of a topic, such as kafka:clickstream-events")
    if topic is None and (where.begin or where.end or where.warm_from):
        raise click.UsageError("--from, --to and --warm-from are of a topic (kafka:NAME)")
    if topic is None:
        return file_origin(Path(where.source), where.file_format, settings.kafka.partitions)
    begin, end = where.begin or "earliest", where.end or "latest"
    return asyncio.run(kafka_origin(settings.kafka, topic, begin, end, where.warm_from))


def reference_of(settings: Settings, origin: Origin) -> Reference:
    """Return catalogue and campaigns as they stand now; a file has none.

    Raises:
        KafkaError: Kafka is gone.
    """
    return [] if isinstance(origin, FileOrigin) else asyncio.run(read_reference(settings.kafka))


@contextlib.contextmanager
def _folder(settings: Settings, asked: Asked, plan: Plan, *, keep: bool) -> Generator[tuple[Path, Plan]]:
    """Give the folder of the parts, and the plan of the run that is gone on with, where there is one.

    Where `keep`, it lies beside the output and stays when the run fails.
    """
    if asked.out and keep:
        folder = parts.folder_of(asked.out)
        if asked.resume:
            plan = parts.resumed(folder, plan)
        else:
            parts.begin(folder, plan, _reference(settings, plan))
        try:
            yield folder, plan
        except KeyboardInterrupt:
            click.echo("Cut off; go on with --resume", err=True)
            raise
        return
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".clickscore-", dir=asked.out.parent if asked.out else None))
    except OSError as exc:
        message = f"{asked.out} cannot be written: {exc.strerror or exc}"
        raise OutputFileError(message) from exc
    try:
        parts.begin(temporary / "parts", plan, _reference(settings, plan))
        yield temporary / "parts", plan
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _reference(settings: Settings, plan: Plan) -> Reference:
    """Return catalogue and campaigns; sessions need none."""
    return reference_of(settings, plan.origin) if plan.what == "decisions" else []


@contextlib.contextmanager
def progress_bar(name: str) -> Generator[Callable[[list[replay.Progress]], None]]:
    """Show on a terminal how far it has come in a block, which is told by what this gives."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[records]:,} events, {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task(name, total=None, records=0, rate=0.0)

        def report(progress: list[replay.Progress]) -> None:
            sizes = [one.size for one in progress]
            records = sum(one.records for one in progress)
            bar.update(
                shown,
                total=sum(sizes) if all(sizes) else None,
                completed=sum(one.position for one in progress),
                records=records,
                rate=records / (time.monotonic() - began),
            )

        yield report


def _run_tasks(tasks: list[Task], name: str) -> list[Result]:
    with progress_bar(name) as report:
        return processes.run_tasks(tasks, report)


def _summarise(result: Result, plan: Plan, out: Path | None, seconds: float) -> None:
    tally = result.tally
    events = sum(tally.outcomes.values())
    outcomes = sorted(tally.outcomes.items(), key=lambda pair: -pair[1])
    counted = [f"{count:,} {outcome}" for outcome, count in outcomes]
    if tally.unreadable:
        counted.append(f"{tally.unreadable:,} unreadable lines")
    kind = "decisions" if plan.what == "decisions" else "sessions"
    written = f"; {tally.written:,} {kind} in {out}" if out else ""
    click.echo(f"{events:,} events in {seconds:.1f} s: {', '.join(counted) or 'none'}{written}", err=True)
    if tally.warm:
        click.echo(f"{tally.warm:,} events before --from made the state and are not shown", err=True)
    warn_of_cold_start(plan.origin)


def warn_of_cold_start(origin: Origin) -> None:
    """Say on stderr where reading begins in the middle of a log, and what that means."""
    if isinstance(origin, KafkaOrigin) and origin.cold:
        where = ", ".join(f"{p} from offset {origin.ranges[p].warm:,}" for p in origin.cold)
        click.echo(
            f"Warm-up: reading began in the middle of the log (partition {where}). What users did before is not known "
            "here: sessions that were open then look shorter, what was bought before may be shown again, and "
            "popularity begins at nothing. Do not judge by the beginning, or read from further back with --warm-from",
            err=True,
        )
