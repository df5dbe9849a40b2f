"""`python -m bench`: run the measurements and print the table of docs/performance.md."""

import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

import click

from bench.bare import bare
from bench.delivery import delivery
from bench.environment import Environment, open_environment, report_progress
from bench.latency import latency
from bench.machine import machine
from bench.memory import memory
from bench.million import million
from bench.policy_cost import decision
from bench.profiles import profiles
from bench.replay import arms, flat, reasons, replay
from bench.report import Measurement, Report, complete_document, table
from bench.run_budget import FULL, QUICK, RunBudget
from bench.scoring import scoring
from bench.sold_out import sold_out
from bench.start import start
from bench.switch import switch
from clickscore.model.json_output import FormerJsonCommand, JsonOutput, json_options

MEASUREMENTS: dict[str, Callable[[Environment, RunBudget], Measurement]] = {
    "scoring": scoring,
    "bare": bare,
    "latency": latency,
    "sold-out": sold_out,
    "switch": switch,
    "million": million,
    "start": start,
    "memory": memory,
    "decision": decision,
    "replay": replay,
    "arms": arms,
    "reasons": reasons,
    "flat": flat,
    "delivery": delivery,
}
LONG = ("reasons", "flat", "delivery")
"""Long measurements, which run only on request."""


@click.command(cls=FormerJsonCommand)
@click.option(
    "--only", multiple=True, type=click.Choice(list(MEASUREMENTS)), help="Run only this measurement; repeatable."
)
@click.option("--rounds", type=click.IntRange(min=1), help="Runs of each side. Default: 3, or 1 with --quick.")
@click.option("--quick", is_flag=True, help="Small and short runs, to test the benchmarks; do not quote their numbers.")
@json_options
@click.option(
    "--wait", type=click.FloatRange(min=0), default=0, help="Maximum seconds, in total, to wait for an idle machine."
)
@click.option("--profile", is_flag=True, help="Print a profile of a worker's time instead.")
def main(
    *, only: tuple[str, ...], rounds: int | None, quick: bool, json_output: JsonOutput, wait: float, profile: bool
) -> None:
    """Measure Clickscore and its peers on a temporary Kafka, and print a table in Markdown.

    \b
    Example:
      python -m bench --only scoring --rounds 1
      python -m bench --only flat              10 million events: about ten minutes more
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    signal.signal(signal.SIGTERM, _stop)
    budget = QUICK if quick else FULL
    budget = replace(budget, rounds=rounds or budget.rounds)
    facts = machine()
    with open_environment(wait) as environment:
        if profile:
            click.echo("\n\n".join(profiles(environment, budget)))
            return
        measurements: dict[str, Measurement] = {}
        failed: dict[str, str] = {}
        for name in only or [name for name in MEASUREMENTS if name not in LONG]:
            report_progress(f"{name}:")
            try:
                measurements[name] = MEASUREMENTS[name](environment, budget)
            except Exception as exc:  # noqa: BLE001 (whatever fails, what the others have measured is kept)
                failed[name] = repr(exc)
                report_progress(f"{name} failed: {exc!r}")
    report = Report(machine=facts, measurements=measurements, failed=failed)
    json_output.echo(table(report))
    json_output.write(complete_document(report))
    if failed:
        sys.exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    """Exit as on Ctrl-C, so that every child process ends."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
