"""Report: print results beside their goals, as the table of docs/performance.md and as JSON."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    title: str
    values: tuple[float, ...]
    """One value for each round."""
    digits: str
    """Format specification of the values."""
    unit: str = ""
    goal: float
    at_least: bool
    """Whether the goal is a lower bound; otherwise the goal is an upper bound."""
    beside: str = ""
    """Additional facts in a few words."""

    @property
    def value(self) -> float:
        """Median of the rounds."""
        return median(self.values)

    @property
    def reached(self) -> bool:
        """Whether the median reaches the goal."""
        return self.value >= self.goal if self.at_least else self.value < self.goal


class Measurement(msgspec.Struct, frozen=True):
    """Result of a measurement: rows of the table and the underlying runs."""

    rows: Sequence[Row]
    runs: Sequence[Any]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All results of one call."""

    machine: dict[str, str]
    measurements: dict[str, Measurement]
    failed: dict[str, str]
    """Error of each failed measurement."""


def table(report: Report) -> str:
    """Return the report as Markdown."""
    facts = report.machine
    runs = [run for measurement in report.measurements.values() for run in measurement.runs]
    strangers = [run.strangers for run in runs if hasattr(run, "strangers")]
    noise = f" Other programs took {median(strangers):.1f} cores meanwhile." if strangers else ""
    return "\n".join(
        [
            "| measurement | median (minimum to maximum) | goal | details |",
            "|---|---|---|---|",
            *(f"| {row.title} | {_measured(row)} | {_goal(row)} | {row.beside} |" for row in _rows(report)),
            "",
            f"{facts['processor']}; {facts['system']}; {facts['kafka']}. {facts['packages']}. "
            f"Commit {facts['commit']}.{noise}",
            *(f"\nFailed: {name} ({reason})." for name, reason in report.failed.items()),
        ]
    )


def complete_document(report: Report) -> dict[str, Any]:
    """Return the report with the verdict of each row and the Markdown table."""
    verdicts = {row.title: {"median": row.value, "reached": row.reached} for row in _rows(report)}
    return {"table": table(report), "verdicts": verdicts, **msgspec.structs.asdict(report)}


def _rows(report: Report) -> list[Row]:
    return [row for measurement in report.measurements.values() for row in measurement.rows]


def _measured(row: Row) -> str:
    minimum, maximum = (format(value, row.digits) for value in (min(row.values), max(row.values)))
    spread = f" ({minimum} to {maximum})" if len(row.values) > 1 else ""
    return f"**{format(row.value, row.digits)}{row.unit}**{spread}"


def _goal(row: Row) -> str:
    goal = f"{'at least' if row.at_least else 'under'} {format(row.goal, row.digits)}{row.unit}"
    return goal if row.reached else f"{goal}: missed"
