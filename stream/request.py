"""Request: what one event asks, and what the model answered."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from clickscore.schemas.events import AnyEvent


class Request(msgspec.Struct, frozen=True, gc=False):
    """An event to decide on, with the user's session as it stood when the event came."""

    name: str
    """`TOPIC-PARTITION-OFFSET` of the event: what its decisions are called."""
    event: AnyEvent
    session_id: str
    session_length: int
    items: list[str]
    """Items of the session's remembered events in order of time, empty for a search."""
    actions: bytes
    """Their action codes."""
    bought: frozenset[str]
    variant: str
    late: bool
    popular: list[str]
    """What was popular in the partition when the event came, best first."""
    ages: Sequence[int] = ()
    """Of the session's remembered events, ms since it began; none where they are not told."""


class Reasons(NamedTuple):
    """By how much each event raised the score of each candidate."""

    brought: np.ndarray
    """(candidates, events that were read, and padding)."""
    places: Sequence[int]
    """Of the events that were read, in the request."""

    def of(self, candidate: int) -> Iterator[tuple[float, int]]:
        """Yield what each event brought to a candidate's score, and the event's place in the request."""
        return zip(self.brought[candidate, : len(self.places)].tolist(), self.places, strict=True)


class Scores(NamedTuple):
    """The model's answer to one request."""

    rows: list[int]
    """Candidates, best first, as rows of the bundle."""
    scores: list[float]
    actions: dict[str, float]
    """Probability of each next action."""
    purchase: float
    """Probability of a purchase in what is left of the session."""
    item_at: Sequence[str]
    """The item of each row. Of many candidates few are looked up: each costs a walk through cold memory."""
    reasons: Reasons | None = None
    """None where nobody wants them."""

    def candidates(self) -> Iterator[tuple[str, float]]:
        """Yield items and their scores, best first."""
        return zip(map(self.item_at.__getitem__, self.rows), self.scores, strict=True)
