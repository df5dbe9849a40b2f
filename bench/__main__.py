"""`python -m bench`: measure, and print the table that the README shows."""

import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import click

from bench.bare import bare
from bench.effort import FULL, QUICK, Effort
from bench.latency import latency
from bench.machine import machine
from bench.memory import memory
from bench.million import million
from bench.place import Place, place, say
from bench.profiles import profiles
from bench.replay import arms, flat, reasons, replay
from bench.report import Found, Report, as_json, table
from bench.scoring import scoring
from bench.start import start

MEASUREMENTS: dict[str, Callable[[Place, Effort], Found]] = {
    "scoring": scoring,
    "bare": bare,
    "latency": latency,
    "million": million,
    "start": start,
    "memory": memory,
    "replay": replay,
    "arms": arms,
    "reasons": reasons,
    "flat": flat,
}
LONG = ("reasons", "flat")
"""Run only where they are asked for."""


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice(list(MEASUREMENTS)), help="Measure only this; may be repeated."
)
@click.option("--rounds", type=click.IntRange(min=1), help="How often each side runs. Default: 3, or 1 with --quick.")
@click.option("--quick", is_flag=True, help="Small and short: whether it runs at all, not what to quote.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write every run to this file.")
@click.option("--wait", type=click.FloatRange(min=0), default=0, help="Seconds to wait, in all, for a quiet machine.")
@click.option("--profile", is_flag=True, help="Say where a worker's time goes instead.")
def main(
    *, only: tuple[str, ...], rounds: int | None, quick: bool, file: Path | None, wait: float, profile: bool
) -> None:
    """Measure Clickscore and what one would use instead, on a Kafka of its own, and print a table in Markdown.

    \b
    Example:
      python -m bench --only scoring --rounds 1
      python -m bench --only flat              10 million events: some ten minutes more
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    signal.signal(signal.SIGTERM, _stop)
    effort = QUICK if quick else FULL
    effort = replace(effort, rounds=rounds or effort.rounds)
    file = file.resolve() if file else None
    facts = machine()
    with place(wait) as ours:
        if profile:
            click.echo("\n\n".join(profiles(ours, effort)))
            return
        found: dict[str, Found] = {}
        failed: dict[str, str] = {}
        for name in only or [name for name in MEASUREMENTS if name not in LONG]:
            say(f"{name}:")
            try:
                found[name] = MEASUREMENTS[name](ours, effort)
            except Exception as exc:  # noqa: BLE001 (whatever fails, what the others have measured is kept)
                failed[name] = repr(exc)
                say(f"{name} failed: {exc!r}")
    report = Report(machine=facts, found=found, failed=failed)
    click.echo(table(report))
    if file:
        file.write_bytes(as_json(report))
    if failed:
        sys.exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that nothing stays behind."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
