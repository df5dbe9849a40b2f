"""Decisions: what a side has decided, checked: one for each event, none missing, and the same as the other sides'."""

from collections import defaultdict
from typing import NamedTuple

import msgspec

from bench.load import Watch
from clickscore.schemas.decisions import Choice


class _Decision(msgspec.Struct, frozen=True):
    """What is compared."""

    decision_id: str
    ts: int
    session_length: int
    actions: dict[str, float] | None
    purchase: float | None
    items: tuple[Choice, ...]


_decode = msgspec.json.Decoder(_Decision).decode

EventAt = tuple[int, int]
"""Partition and offset of an event."""


class Decided(NamedTuple):
    """One decision."""

    appended_at: int
    """Append time in its topic, ms."""
    ts: int
    answer: int
    """Hash of what it says."""
    size: int


class WrongError(Exception):
    """A side has not done the work that it was measured by."""


def read_decisions(watch: Watch) -> dict[EventAt, Decided]:
    """Return the decisions that a topic holds, by the event that each one answers.

    Raises:
        WrongError: An event was decided twice, or one was left out.
    """
    found: dict[EventAt, Decided] = {}
    for message in watch.records():
        value = message.value() or b""
        decision = _decode(value)
        answer = hash((decision.session_length, decision.purchase, *map(msgspec.structs.astuple, decision.items)))
        _, partition, offset = decision.decision_id.rsplit("-", 2)
        place = int(partition), int(offset)
        if place in found:
            raise WrongError(f"{decision.decision_id} was decided twice")
        found[place] = Decided(message.timestamp()[1], decision.ts, answer, len(value))
    _check_whole(found)
    return found


def check_same(sides: dict[str, dict[EventAt, Decided]]) -> None:
    """Return where all sides say the same of each event that several have decided.

    Raises:
        WrongError: Two of them differ.
    """
    said: dict[EventAt, tuple[str, int]] = {}
    for name, decisions in sides.items():
        for place, decided in decisions.items():
            other, answer = said.setdefault(place, (name, decided.answer))
            if answer != decided.answer:
                raise WrongError(f"{name} and {other} decide otherwise on partition {place[0]}, offset {place[1]}")


def _check_whole(found: dict[EventAt, Decided]) -> None:
    ends: dict[int, int] = defaultdict(int)
    for partition, offset in found:
        ends[partition] = max(ends[partition], offset + 1)
    if sum(ends.values()) != len(found):
        raise WrongError(f"{sum(ends.values()) - len(found)} events were left out")
