"""Results table: the rows of docs/reliability.md, and the faults in words."""

from collections.abc import Sequence

from tests.chaos.stage import Result

KINDS = ("missing", "unexpected", "wrong", "wrong state", "unequal duplicate", "stale key")
"""Kinds of differences that every row counts."""
_HEADER = (
    "| scene | seed | records | done to it | missing | not due | wrong | users, closed sessions | wrong state | "
    "duplicates | not byte-equal | stale keys | other | s |"
)


def markdown(results: Sequence[Result]) -> str:
    """Return the results as a table."""
    rule = "|---|" + "---:|" * 2 + "---|" + "---:|" * 10
    return "\n".join([_HEADER, rule, *map(_row, results)])


def faults(results: Sequence[Result]) -> str:
    """Return all faults in words, with examples."""
    lines: list[str] = []
    for result in results:
        if not result.is_good:
            lines += [f"{result.scene}, seed {result.seed}: {dict(result.verdict.faults)}"]
            lines += [f"  {example}" for example in result.verdict.examples]
    return "\n".join(lines)


def _row(result: Result) -> str:
    verdict = result.verdict
    missing, unexpected, wrong, state, unequal, stale = (verdict.faults[kind] for kind in KINDS)
    rest = verdict.faults.total() - sum(verdict.faults[kind] for kind in KINDS)
    deeds = ", ".join(f"{count} {deed}" for deed, count in result.deeds.items())
    cells = [result.scene, result.seed, f"{verdict.events:,}", deeds, missing, unexpected, wrong]
    cells += [f"{verdict.users:,}, {verdict.closed_sessions:,}", f"{state} of {verdict.snapshots:,}"]
    cells += [f"{verdict.duplicates:,}", unequal, stale, rest, f"{result.seconds:.0f}"]
    return "| " + " | ".join(map(str, cells)) + " |"
