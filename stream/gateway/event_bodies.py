"""Event bodies: read one event or a list of events from the body of a request, with the rules of the worker."""

from collections.abc import Sequence

import msgspec

from clickscore.schemas.events import AnyEvent, Event, PrivacyRecord, UserRecord, decode_record
from clickscore.schemas.json_depth import check_depth
from clickscore.schemas.record_faults import describe_record_fault
from clickscore.stream.errors import RequestError
from clickscore.stream.settings import SessionSettings

MAX_FAULTS = 20
"""Number of faults that an answer lists: enough to correct a program, few enough to read."""


class IncomingEvent(msgspec.Struct, frozen=True, gc=False):
    """A valid event, and the value of the record."""

    event: AnyEvent | PrivacyRecord
    value: bytes
    """The event's JSON as the client sent it, unknown fields included."""

    @property
    def key(self) -> bytes:
        """Key of the record, which decides the partition: the user id."""
        return self.event.user_id.encode()

    @property
    def gets_decision(self) -> bool:
        """Whether a worker decides on the event, unless it repeats an earlier event id."""
        return isinstance(self.event, Event)


class EventFault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault of an event."""

    index: int
    """Position of the event in the body, from 0."""
    error: str
    """Reason in words."""


_split_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_events(body: bytes, settings: SessionSettings, now_ms: int) -> list[IncomingEvent]:
    """Return the events of a body. A fault of any event refuses the whole body, so that a client can send it again.

    A worker that reads the events would make a dead letter of what is refused here.

    Args:
        body: JSON of an event, or of a list of events.
        settings: Limits of accepted events.
        now_ms: Wall-clock time, ms: about the append time of the events.

    Raises:
        RequestError: The body has no event, or an event has a fault.
    """
    values = _split(body)
    events: list[IncomingEvent] = []
    faults: list[EventFault] = []
    for index, value in enumerate(values):
        try:
            events.append(_read_event(value, settings, now_ms))
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            # Each sentence costs some 50 us, so that the faults of a body that nobody will read get none.
            error = describe_record_fault(exc, value) if len(faults) < MAX_FAULTS else str(exc)
            faults.append(EventFault(index=index, error=error))
    if faults:
        message = (
            f"{len(faults)} of {len(values)} events have a fault, so no event is stored; first: {faults[0].error}"
            if len(values) > 1
            else faults[0].error
        )
        raise RequestError(400, message, faults=faults[:MAX_FAULTS])
    return events


def _split(body: bytes) -> Sequence[bytes]:
    """Return the JSON of each event of a body.

    Raises:
        RequestError: The body is no JSON list, or an empty list.
    """
    if not body.lstrip(b" \t\r\n").startswith(b"["):
        return [body]
    try:
        check_depth(body)
        values = [bytes(value) for value in _split_list(body)]
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RequestError(400, f"the body is no list of events: {exc}") from exc
    if not values:
        raise RequestError(400, "the list has no event")
    return values


def _read_event(value: bytes, settings: SessionSettings, now_ms: int) -> IncomingEvent:
    """Return the event of a JSON text.

    Args:
        value: JSON of the event.
        settings: Limits of accepted events.
        now_ms: Wall-clock time, ms.

    Raises:
        msgspec.DecodeError: The event has a fault.
        UnicodeDecodeError: A text is not UTF-8.
    """
    if len(value) > settings.max_event_bytes:
        message = f"{len(value)} bytes, more than max_event_bytes ({settings.max_event_bytes})"
        raise msgspec.ValidationError(message)
    event = decode_record(value)
    if not isinstance(event, UserRecord):
        message = f"type {event.__struct_config__.tag}: only Clickscore itself writes such records"
        raise msgspec.ValidationError(message)
    ahead_ms = event.ts - now_ms
    if ahead_ms > settings.future_ms:
        message = f"ts is {ahead_ms} ms in the future, more than future_ms ({settings.future_ms})"
        raise msgspec.ValidationError(message)
    if settings.past_ms and -ahead_ms > settings.past_ms:
        message = f"ts is {-ahead_ms} ms in the past, more than past_ms ({settings.past_ms})"
        raise msgspec.ValidationError(message)
    return IncomingEvent(event, value)
