"""Source options: flags for recorded events, and for a replay of recorded events."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from clickscore.model.finite_range import FiniteRange
from clickscore.model.own_source import refuse_own_source
from clickscore.stream.commands.options import Command, format_option, order_option
from clickscore.stream.replay.run import STANDARD_OUTPUT, ReplayOptions
from clickscore.stream.replay.source_options import SourceOptions, topic_in

CHECKPOINT_SECONDS = 15.0
"""Default time between two checkpoints: an interrupt loses at most 15 s of work."""

_BOUND = "an offset, a time like 2026-03-01T08:00 (UTC) or in ms since 1970, earliest or latest"

_SOURCE_OPTIONS: tuple[Callable[[Command], Command], ...] = (
    click.argument("source"),
    format_option,
    order_option,
    click.option("--from", "begin", metavar="BOUND", help=f"Start of a topic's range: {_BOUND}. Default: earliest."),
    click.option(
        "--to", "end", metavar="BOUND", help="End of a topic's range, in the same form; excluded. Default: latest."
    ),
    click.option(
        "--warm-up-from",
        metavar="BOUND",
        help="Read a topic from here, to learn the state before --from; these events give no output.",
    ),
    click.option("--warm-from", hidden=True),  # the former name of --warm-up-from
)


def with_source_options(command: Command) -> Command:
    """Give a command SOURCE and the flags of a source; the command receives `source_options`."""

    @functools.wraps(command)
    def run(warm_from: str | None, **kwargs: Any) -> Any:  # noqa: ANN401 (click passes parsed values)
        kwargs["warm_up_from"] = kwargs["warm_up_from"] or warm_from
        names = [field.name for field in dataclasses.fields(SourceOptions) if field.name in kwargs]
        options = SourceOptions(**{name: kwargs.pop(name) for name in names})
        _check_source_options(options)
        return command(source_options=options, **kwargs)

    return _decorate(run, _SOURCE_OPTIONS)


def with_reference_files(command: Command) -> Command:
    """Give a command the flags for files of catalogue and campaigns; apply it below `with_source_options`."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    sentence = "as JSON lines, each with ts (ms) from which on it holds; removed: true ends it. For a file of events."
    flags = (
        click.option("--catalogue", type=file, default=None, help=f"Items of the shop {sentence}"),
        click.option("--campaigns", type=file, default=None, help=f"Ad campaigns {sentence}"),
    )
    return _decorate(command, flags)


def with_replay_options(*, content: str, needs_output: bool) -> Callable[[Command], Command]:
    """Return a decorator that gives a command SOURCE and the flags of a replay.

    The command receives `source_options` and `replay_options`.

    Args:
        content: Content of the output, for the help text of --out.
        needs_output: Whether --out is required.
    """
    out_path = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
    flags = (
        click.option(
            "--workers",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Number of processes; each takes some of the partitions.",
        ),
        click.option(
            "--out",
            type=out_path,
            required=needs_output,
            help=f"Write {content} here; .gz compresses the file, - is standard output.",
        ),
        click.option("--resume", is_flag=True, help="Resume the interrupted run of --out."),
        click.option(
            "--checkpoint-s",
            type=FiniteRange(min=0, min_open=True),
            default=CHECKPOINT_SECONDS,
            show_default=True,
            help="Minimum time between two checkpoints, in seconds.",
        ),
    )
    names = ("workers", "out", "resume", "checkpoint_s")

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(source_options: SourceOptions, **kwargs: Any) -> Any:  # noqa: ANN401
            options = ReplayOptions(**{name: kwargs.pop(name) for name in names})
            if options.resume and options.out == STANDARD_OUTPUT:
                raise click.UsageError("standard output cannot be resumed: --resume needs --out with a path")
            if source_options.source == "-" and (options.workers > 1 or options.resume):
                raise click.UsageError(
                    "standard input is read only once: --workers and --resume need a file or a topic"
                )
            refuse_own_source(options.out, source_options.source)
            return command(source_options=source_options, replay_options=options, **kwargs)

        return with_source_options(_decorate(run, flags))

    return decorate


def _check_source_options(options: SourceOptions) -> None:
    topic = topic_in(options.source)
    if topic == "":
        raise click.UsageError("kafka: needs the name of a topic, such as kafka:clickstream-events")
    if topic is None and (options.begin or options.end or options.warm_up_from):
        raise click.UsageError("--from, --to and --warm-up-from need a topic: name one as kafka:NAME")
    if topic is not None and (options.catalogue or options.campaigns):
        raise click.UsageError("--catalogue and --campaigns need a file: a topic has the epochs of its own topics")


def _decorate(command: Command, flags: tuple[Callable[[Command], Command], ...]) -> Command:
    for flag in reversed(flags):
        command = flag(command)
    return command
