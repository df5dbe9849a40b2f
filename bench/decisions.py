"""Decisions: check that a side decided every event exactly once, and decided like the other sides."""

from collections import defaultdict
from typing import NamedTuple

import msgspec

from bench.load import Watch, watching
from clickscore.schemas.decisions import Choice
from clickscore.schemas.events import read_epoch
from clickscore.schemas.topics import EVENTS


class _Decision(msgspec.Struct, frozen=True):
    """Fields of a decision that are compared."""

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
    """Append time in the topic, ms."""
    ts: int
    answer: int
    """Hash of the decision's content."""
    size: int


class WrongError(Exception):
    """A side did not do the work of the measurement."""


def read_decisions(watch: Watch) -> dict[EventAt, Decided]:
    """Return the decisions of a topic by the event of each decision.

    Raises:
        WrongError: An event has two decisions or none.
    """
    decisions: dict[EventAt, Decided] = {}
    for message in watch.records():
        value = message.value() or b""
        decision = _decode(value)
        answer = hash((decision.session_length, decision.purchase, *map(msgspec.structs.astuple, decision.items)))
        _, partition, offset = decision.decision_id.rsplit("-", 2)
        event_at = int(partition), int(offset)
        if event_at in decisions:
            raise WrongError(f"{decision.decision_id} was decided twice")
        decisions[event_at] = Decided(message.timestamp()[1], decision.ts, answer, len(value))
    _check_whole(decisions, watch)
    return decisions


def check_same(sides: dict[str, dict[EventAt, Decided]]) -> None:
    """Check that all sides agree on each event with several decisions.

    Raises:
        WrongError: Two sides differ.
    """
    agreed: dict[EventAt, tuple[str, int]] = {}
    for name, decisions in sides.items():
        for event_at, decided in decisions.items():
            other_side, answer = agreed.setdefault(event_at, (name, decided.answer))
            if answer != decided.answer:
                raise WrongError(
                    f"{name} and {other_side} decide otherwise on partition {event_at[0]}, offset {event_at[1]}"
                )


def _check_whole(decisions: dict[EventAt, Decided], watch: Watch) -> None:
    """Check that every record before the last decided event of its partition is decided, or is a worker's epoch."""
    ends: dict[int, int] = defaultdict(int)
    for partition, offset in decisions:
        ends[partition] = max(ends[partition], offset + 1)
    missing = {(partition, offset) for partition, end in ends.items() for offset in range(end)} - decisions.keys()
    if missing:
        with watching(watch.settings, EVENTS) as events:
            missing -= {
                (record.partition(), record.offset()) for record in events.records() if read_epoch(record.value())
            }
    if missing:
        raise WrongError(f"{len(missing)} events were left out")
