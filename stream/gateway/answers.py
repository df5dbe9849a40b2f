"""Gateway answers: the JSON bodies of the answers of the gateway."""

import http

import msgspec

from clickscore.schemas.decisions import Choice, Recommendation, SoldSlot
from clickscore.stream.errors import RequestError
from clickscore.stream.gateway.event_bodies import EventFault


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event that Kafka has stored."""

    event_id: str
    decision_id: str | None = None
    """Id of the decision on the event; absent for `consent`, `identify` and `erase`, which get none. A worker publishes
    no decision on an event that repeats an earlier event id."""


class EventsAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stored events in order and, with `decide=true`, the decision on the last event."""

    events: tuple[StoredEvent, ...]
    decision: Recommendation | None = None


class PlacementAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a placement of a page shows to a user: the items of a shelf, or ads."""

    placement: str
    user_id: str
    decision_id: str
    """Id for impressions and clicks: of the recommendation, or of the ad decision."""
    event_id: str
    """Event that the decision answers."""
    items: tuple[Choice, ...] | msgspec.UnsetType = msgspec.UNSET
    """Items of a shelf, best first; left out for ads."""
    slots: tuple[SoldSlot, ...] | msgspec.UnsetType = msgspec.UNSET
    """Sold slots of an ad placement, in order; left out for a shelf."""


class HealthAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """State of the gateway."""

    ready: bool
    """Whether the decisions of the history have been read, and Kafka has answered lately."""
    lag: int
    """Published decisions that are not read yet."""
    kafka_answered_ms: int
    """Time since Kafka's last answer, ms."""
    users: int
    """Users whose newest decision is remembered."""
    pending: int
    """Events whose decision a request waits for."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error, as problem details (RFC 9457)."""

    title: str
    """Name of the status."""
    status: int
    detail: str
    """The failure, and the remedy, in words."""
    errors: tuple[EventFault, ...] = ()
    """Faults of single events, at most 20."""


encode_answer = msgspec.json.Encoder().encode


def encode_events(stored: list[StoredEvent], decision: bytes | None = None) -> bytes:
    """Return the answer to stored events, with the decision as published.

    Args:
        stored: The events in order.
        decision: JSON of the decision on the last event.
    """
    answer: dict[str, object] = {"events": stored}
    if decision is not None:
        answer["decision"] = msgspec.Raw(decision)
    return encode_answer(answer)


def encode_problem(error: RequestError) -> bytes:
    """Return an error as problem details."""
    problem = Problem(
        title=http.HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        errors=tuple(fault for fault in error.faults if isinstance(fault, EventFault)),
    )
    return encode_answer(problem)
