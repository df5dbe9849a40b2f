"""Event log: the part of Kafka that the gateway needs."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from clickscore.stream.gateway.event_bodies import IncomingEvent
from clickscore.stream.trace_headers import Headers


class LogHealth(NamedTuple):
    """State of the connection to the log."""

    is_ready: bool
    """Whether the decisions of the history have been read, and the log has answered lately."""
    lag: int
    """Number of published decisions that are not read yet."""
    answered_ms: int
    """Time since the last answer of the log, ms."""


Explain = Callable[[str], Awaitable[bytes]]
"""Function that returns the explanation of the decision of an id as JSON, or raises a RequestError."""


class EventLog(Protocol):
    """The log of events and decisions; for example Kafka's topics."""

    async def store(self, events: Sequence[IncomingEvent], headers: Headers) -> list[str]:
        """Store events, and return the id of each in the log: a decision has the id of the answered event.

        Args:
            events: The events.
            headers: Headers of the records.

        Raises:
            RequestError: The log did not store the events in time.
        """
        ...

    async def find_decision(self, decision_id: str) -> bytes | None:
        """Return a published decision by id; None where the log lacks the id."""
        ...

    def health(self) -> LogHealth:
        """Return the state of the connection."""
        ...
