"""Command `clickscore retrain`: the retraining loop, once or as a service."""

import contextlib
import logging
import time
from collections.abc import Generator
from pathlib import Path

import click
from rich.console import Console

from clickscore.model.commands import missing_extra
from clickscore.model.config import PRESETS, read_preset
from clickscore.model.finite_range import FiniteRange
from clickscore.model.json_output import JsonOutput, json_options
from clickscore.model.threads import choose_threads, wait_passively
from clickscore.retraining.errors import RetrainingBusyError
from clickscore.schemas.durations import HOUR_MS
from clickscore.stream.commands.bundle import open_store
from clickscore.stream.commands.options import with_settings
from clickscore.stream.errors import BrokerError
from clickscore.stream.settings import Settings
from clickscore.stream.worker.logs import write_logs

log = logging.getLogger(__name__)

WATCH_S = 60.0
"""Time between two looks at a bundle that is being tried, s."""


@click.command()
@click.option(
    "--folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the runs, with their checkpoints and reports. A killed run goes on with the same folder.",
)
@click.option(
    "--every-minutes", type=FiniteRange(0.1), help="Run again and again, so often at most. Default: run once."
)
@click.option(
    "--min-sessions",
    type=click.IntRange(10),
    default=1_000,
    show_default=True,
    help="New sessions that a run needs, at least.",
)
@click.option(
    "--held-out-hours",
    type=FiniteRange(0.01),
    default=6.0,
    show_default=True,
    help="Newest hours of sessions, in event time, that are held out to compare the new bundle with the champion.",
)
@click.option(
    "--from",
    "origin",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Trainable bundle (export --trainable) or checkpoint of the champion, where no run of the folder has made it.",
)
@click.option("--anew", is_flag=True, help="Train from random weights, and not from the champion's checkpoint.")
@click.option(
    "--neighbours-only",
    is_flag=True,
    help="Train nothing: count again which items occur together. It takes seconds, so it can run every few minutes.",
)
@click.option(
    "--days",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Age of the oldest sessions of a training anew, days.",
)
@click.option(
    "--preset",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    help=f"Size of a training anew: {', '.join(PRESETS)}, or a file of `tune`.",
)
@click.option(
    "--items",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Catalogue as JSON lines for a training anew: gives the trees prices and categories.",
)
@click.option(
    "--start",
    "publication",
    type=click.Choice(["ramp", "set", "store"]),
    default="ramp",
    show_default=True,
    help="What happens to a good bundle. ramp: a guarded ramp begins. set: it decides for all users at once. "
    "store: it only goes into the bundle store.",
)
@click.option(
    "--step-minutes",
    type=FiniteRange(0.01),
    default=60.0,
    show_default=True,
    help="Shortest time between two steps of the ramp, minutes.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Number of CPU threads of a training.")
@with_settings("bundle_store", "rollout", "topic_prefix", "broker_wait_ms")
@json_options
def retrain(
    *,
    folder: Path,
    every_minutes: float | None,
    min_sessions: int,
    held_out_hours: float,
    origin: Path | None,
    anew: bool,
    neighbours_only: bool,
    days: int,
    preset: str,
    items: Path | None,
    publication: str,
    step_minutes: float,
    threads: int | None,
    settings: Settings,
    json_output: JsonOutput,
) -> None:
    """Make a new bundle from the newest closed sessions, compare it with the champion, and try it on users.

    A run reads the topic closed-sessions, which has no session of a machine or of a user without consent to training.
    It fine-tunes the champion's checkpoint, or trains anew where there is none. The newest hours are held out. A bundle
    that is clearly worse there in any measure, or finds fewer next items, is not published. A good one goes into the
    bundle store, and a guarded ramp begins. A report says what was done, what was forecast for each bundle and what
    came.

    A lease in Kafka allows one retraining of a rollout at a time. A killed run goes on with the same command.

    \b
    Example:
      clickscore retrain --folder /var/lib/retraining --bundle-store /srv/bundles
      clickscore retrain --folder /var/lib/retraining --bundle-store /srv/bundles --every-minutes 360
      clickscore retrain --folder /var/lib/retraining --bundle-store /srv/bundles --neighbours-only --start set \\
        --every-minutes 10 --held-out-hours 1 --min-sessions 200
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    if anew and (neighbours_only or origin):
        message = "--anew trains from random weights: leave out --from and --neighbours-only"
        raise click.UsageError(message)
    wait_passively()
    try:
        import torch  # noqa: PLC0415 (serving has no torch, and its help lists this command)

        from clickscore.retraining.report import summarise  # noqa: PLC0415
        from clickscore.retraining.retrain import Retraining, RetrainingOptions  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    write_logs()
    config = read_preset(preset)
    if number := choose_threads(threads, config.model.dim):
        torch.set_num_threads(number)
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    options = RetrainingOptions(
        folder=folder,
        config=config,
        min_sessions=min_sessions,
        held_out_ms=round(held_out_hours * HOUR_MS),
        days=days,
        anew=anew,
        neighbours_only=neighbours_only,
        publication="ramp" if publication == "ramp" else "set" if publication == "set" else "store",
        step_minutes=step_minutes,
        origin=origin,
        items=items,
    )
    retraining = Retraining(options, settings, open_store(settings), console)
    while True:
        begun_at = time.monotonic()
        outcome = None
        with _waiting_for_others(every_minutes):
            outcome = retraining.run()
        json_output.write(outcome)
        if outcome is not None:
            json_output.echo(summarise(outcome))
            json_output.echo(f"report: {folder / f'run-{outcome.plan.number:04}' / 'report.md'}")
        if every_minutes is None:
            return
        while (remaining_s := begun_at + every_minutes * 60 - time.monotonic()) > 0:
            time.sleep(min(WATCH_S, remaining_s))
            with _waiting_for_others(every_minutes):
                retraining.update_forecasts()


@contextlib.contextmanager
def _waiting_for_others(every_minutes: float | None) -> Generator[None]:
    """Let a service go on where another retraining runs, or Kafka is away for a while.

    Args:
        every_minutes: Time between two runs of the service, minutes; None for a single run, which fails.
    """
    try:
        yield
    except (RetrainingBusyError, BrokerError) as exc:
        if every_minutes is None:
            raise
        log.warning("%s; tried again later", exc)
