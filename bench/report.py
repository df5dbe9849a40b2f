"""Report: what was measured, beside what was wanted, as the table of the README and as JSON."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    what: str
    values: tuple[float, ...]
    """One a round."""
    digits: str
    """How a value is written, as `format` takes it."""
    unit: str = ""
    goal: float
    at_least: bool
    """Whether the goal is a floor; else it is what to stay under."""
    beside: str = ""
    """What else there is to say of it, in a few words."""

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    @property
    def reached(self) -> bool:
        """Whether the median is where it should be."""
        return self.value >= self.goal if self.at_least else self.value < self.goal


class Found(msgspec.Struct, frozen=True):
    """What a measurement gave: lines of the table, and the runs that they are made from."""

    rows: Sequence[Row]
    runs: Sequence[Any]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one call measured."""

    machine: dict[str, str]
    found: dict[str, Found]
    failed: dict[str, str]
    """Measurements that came to nothing, with the reason."""


def table(report: Report) -> str:
    """Return the report as Markdown."""
    facts = report.machine
    strangers = [run.strangers for found in report.found.values() for run in found.runs if hasattr(run, "strangers")]
    noise = f" Other programs took {median(strangers):.1f} cores meanwhile." if strangers else ""
    return "\n".join(
        [
            "| what | measured: median (least to most) | wanted | beside it |",
            "|---|---|---|---|",
            *(f"| {row.what} | {_measured(row)} | {_wanted(row)} | {row.beside} |" for row in _rows(report)),
            "",
            f"{facts['processor']}; {facts['system']}; {facts['kafka']}. {facts['packages']}. "
            f"Commit {facts['commit']}.{noise}",
            *(f"\nFailed: {name} ({reason})." for name, reason in report.failed.items()),
        ]
    )


def as_json(report: Report) -> bytes:
    """Return the report for programs, each row with its verdict, and the table as people see it."""
    verdicts = {row.what: {"median": row.value, "reached": row.reached} for row in _rows(report)}
    whole = {"table": table(report), "verdicts": verdicts, **msgspec.structs.asdict(report)}
    return msgspec.json.format(msgspec.json.encode(whole)) + b"\n"


def _rows(report: Report) -> list[Row]:
    return [row for found in report.found.values() for row in found.rows]


def _measured(row: Row) -> str:
    least, most = (format(value, row.digits) for value in (min(row.values), max(row.values)))
    spread = f" ({least} to {most})" if len(row.values) > 1 else ""
    return f"**{format(row.value, row.digits)}{row.unit}**{spread}"


def _wanted(row: Row) -> str:
    words = f"{'at least' if row.at_least else 'under'} {format(row.goal, row.digits)}{row.unit}"
    return words if row.reached else f"{words}: missed"
