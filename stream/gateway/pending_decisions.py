"""Pending decisions: join requests that wait for a decision with published decisions, by user and event id."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from clickscore.stream.gateway.decision_memory import PublishedDecision


class PendingDecisions:
    """Requests that wait for the decision on an event."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], list[asyncio.Future[bytes]]] = {}

    def __len__(self) -> int:
        """Return the number of awaited events."""
        return len(self._waiting)

    @contextmanager
    def expect(self, user_id: str, event_id: str) -> Generator[asyncio.Future[bytes]]:
        """Yield a future of the decision on an event, as published. The wait ends with the block.

        The block must begin before the event is stored: a worker may decide before Kafka's acknowledgement is read.

        Args:
            user_id: User of the event.
            event_id: Id of the event.
        """
        key = (user_id, event_id)
        decision: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(decision)
        try:
            yield decision
        finally:
            remaining = [future for future in self._waiting.get(key, ()) if future is not decision]
            if remaining:
                self._waiting[key] = remaining
            else:
                self._waiting.pop(key, None)

    def resolve(self, decision: PublishedDecision, value: bytes) -> None:
        """Give a decision to the waiting requests.

        Args:
            decision: Ids of the decision.
            value: The decision as published.
        """
        for future in self._waiting.get((decision.user_id, decision.event_id), ()):
            if not future.done():
                future.set_result(value)
