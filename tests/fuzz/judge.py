"""Judge: what became of values, and the faults that no input may cause."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence

from clickscore.schemas.events import Tick, decode_record
from clickscore.stream.event_files.lines import Line

Outcomes = Counter[str]
"""Number of values by outcome; the counts add up to the number of values."""


class FaultError(AssertionError):
    """A value was swallowed, or refused without words."""


def line_outcome(line: Line, *, raw: bool) -> str:
    """Return whether a line is an event or is refused.

    Args:
        line: A line that a reader yields.
        raw: Whether the format passes broken lines on, for the worker to refuse.
    """
    if line.error is not None:
        if not line.error.strip():
            raise FaultError(f"line {line.number} is refused without words")
        return "refused"
    try:
        event = decode_record(line.value)
    except ValueError as exc:
        if not raw or not str(exc):
            raise FaultError(f"line {line.number} is no event, and passes for one: {exc}: {line.value!r}") from exc
        return "refused"
    if isinstance(event, Tick):
        return "events"
    if line.key != event.user_id.encode() or line.ts != event.ts:
        raise FaultError(f"line {line.number} has the key {line.key!r} and the time {line.ts}: {line.value!r}")
    return "events"


def judge_lines(
    texts: Sequence[bytes], lines: Iterable[Line], ignored: int, *, has_header: bool, separator: str, raw: bool
) -> Outcomes:
    """Return the outcome of each line of a file.

    Args:
        texts: Lines of the file, without line ends.
        lines: Lines that the reader yields.
        ignored: Number of lines that the reader ignores.
        has_header: Whether the first line that is not blank is a header.
        separator: Text between two cells of CSV, where a row with quotes may have several lines; empty for other lines.
        raw: Whether the format passes broken lines on, for the worker to refuse.

    Raises:
        FaultError: A line was swallowed, was made up, or is refused without words.
    """
    sent = [number for number, text in enumerate(texts, 1) if text.strip()][has_header:]
    by_number: dict[int, str] = {}
    for line in lines:
        if by_number.get(line.number) != "refused":
            by_number[line.number] = line_outcome(line, raw=raw)
    made_up = by_number.keys() - set(sent)
    if made_up:
        raise FaultError(f"lines that are not in the file: {sorted(made_up)[:5]}")
    outcomes: Outcomes = Counter()
    first = 0
    for number in sent:
        if number in by_number:
            first = number
            outcomes[by_number[number]] += 1
        else:
            goes_on = separator and first and _has_open_quote(b"\n".join(texts[first - 1 : number - 1]), separator)
            outcomes["joined" if goes_on else "missing"] += 1
    missing = outcomes.pop("missing", 0)
    if missing != ignored:
        raise FaultError(f"{missing} lines are neither an event nor refused, and {ignored} are ignored: {by_number}")
    if ignored:
        outcomes["ignored"] = ignored
    return outcomes


def _has_open_quote(text: bytes, separator: str) -> bool:
    """Return whether a row of CSV goes on in the next line."""
    row = io.StringIO(text.removesuffix(b"\r").decode(errors="replace"), newline="\n")
    try:
        next(csv.reader(row, strict=True, delimiter=separator[0], skipinitialspace=separator.endswith(" ")))
    except csv.Error as exc:
        return "unexpected end of data" in str(exc)
    return False
