"""Records: what the pipeline reads from a partition, and all that it writes for a batch."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from clickscore.schemas.sessions import ClosedSession, encode_session
from clickscore.stream.request import Request, Scores
from clickscore.stream.state.changelog_record import ChangelogRecord


class Record(Protocol):
    """The part of a Kafka record read by the pipeline."""

    @property
    def offset(self) -> int:
        """Offset in the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Append time, ms; negative where unknown."""
        ...

    @property
    def key(self) -> bytes | None:
        """Key of the record; the user id in well-formed records."""
        ...

    @property
    def value(self) -> bytes | None:
        """Value of the record; the event as JSON in well-formed records."""
        ...


MAX_KEY_BYTES = 1024
"""Largest key that is kept, bytes: a user id has at most 256 characters of at most 4 bytes."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """A record to publish."""

    key: bytes | None
    value: bytes | None
    event_offset: int | None = None
    """Offset of the event that a decision answers; None for other records."""


class DeadLetter(NamedTuple):
    """A rejected record, with the reason in words."""

    record: Record
    error: str


class WatermarkJump(NamedTuple):
    """An event that moved the newest event time of a partition by more than the gap of sessions."""

    offset: int
    event_id: str
    user_id: str
    moved_ms: int
    """Event time less the newest event time before, ms."""
    ahead_ms: int | None
    """Event time less append time, ms; None without an append time."""


class SessionMerge(NamedTuple):
    """A session of an anonymous id that became part of a user's open session."""

    source_id: str
    """Id under which the session would have been published, `TOPIC-PARTITION-OFFSET` of its first event."""
    session_id: str
    """Id of the user's session, in the same form."""
    user_id: str


class BudgetMessage(NamedTuple):
    """A report or a lease for a partition of `clickstream-events`."""

    partition: int
    message: Message


@dataclass(slots=True)
class Output:
    """All records to publish for a batch of a partition, and counts."""

    recommendations: list[Message] = field(default_factory=list[Message])
    ads: list[Message] = field(default_factory=list[Message])
    closed_sessions: list[Message] = field(default_factory=list[Message])
    receipts: list[Message] = field(default_factory=list[Message])
    handovers: list[Message] = field(default_factory=list[Message])
    """Records for `clickstream-events`, keyed by the identified user; a replay of the topic reads them from there."""
    dead_letters: list[DeadLetter] = field(default_factory=list[DeadLetter])
    changes: list[ChangelogRecord] = field(default_factory=list[ChangelogRecord])
    outcomes: Counter[str] = field(default_factory=Counter[str])
    """Number of records by outcome: decided, late, repeated, dead, tick, epoch, consent, erase, identify,
    handover, budget, skipped."""
    unscored: int = 0
    """Number of decisions on events that the model could not score: it knows no item of the session."""
    items: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """Number of recommended items by variant of the A/B test and by reason: `model`, or `popular` for the fallback."""
    removed: Counter[str] = field(default_factory=Counter[str])
    """Number of candidates removed by each rule of the policy."""
    moved: Counter[str] = field(default_factory=Counter[str])
    """Number of shown places to which each re-ranker of the policy brought another item."""
    merges: list[SessionMerge] = field(default_factory=list[SessionMerge])
    jumps: list[WatermarkJump] = field(default_factory=list[WatermarkJump])
    failed: int = 0
    """Number of decisions that fell back to popularity because the challenger's graph failed."""
    shadowed: list[tuple[Request, Scores]] = field(default_factory=list[tuple[Request, Scores]])
    """Requests that the challenger is to score without deciding, with the champion's scores."""
    feedback: Counter[str] = field(default_factory=Counter[str])
    """Number of events that name a decision, by what became of them; see `LedgerResults.feedback`."""
    reactions: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    """Number of joined events by kind, variant and placement."""
    revenue: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    """Revenue of attributed orders by variant and placement."""
    decision_outcomes: list[Message] = field(default_factory=list[Message])
    charges: list[Message] = field(default_factory=list[Message])
    """Charges and credits of ads, keyed by the campaign."""
    budget_records: list[BudgetMessage] = field(default_factory=list[BudgetMessage])
    """Reports and leases for `clickstream-events`; a replay of the topic reads them from there."""
    charged: dict[str, float] = field(default_factory=dict[str, float])
    """Amounts of these charges: `gross`, `net`, and `credit` for what is given back."""


def closed_message(session: ClosedSession) -> Message:
    """Return a closed session as a record to publish."""
    return Message(session.user_id.encode(), encode_session(session))
