"""Event rules: whether the value of a record is an event, by the tables of docs/semantics.md and docs/schemas.

The rules are written apart from the product's decoder: plain Python on plain JSON.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

YEAR_2000_MS = 946_684_800_000
YEAR_9999_MS = 253_402_300_799_999
MAX_DEPTH = 64
PURPOSES = ("personalisation", "ads", "training")
ITEM_ACTIONS = ("view", "cart", "remove_from_cart", "favourite", "purchase", "click", "impression")

JsonObject = dict[str, Any]


class Rules(NamedTuple):
    """The settings on which sessions depend, by their names and units in docs/operations.md."""

    gap_ms: int
    lateness_ms: int
    future_ms: int
    past_ms: int
    max_events: int
    max_bought: int
    user_ttl_ms: int
    max_event_bytes: int
    popularity_refresh_ms: int
    late_events: str
    consent_ttl_ms: int
    consent_personalisation: str
    consent_ads: str
    consent_training: str

    @property
    def withheld(self) -> frozenset[str]:
        """Purposes without consent for a user who said nothing."""
        defaults = (self.consent_personalisation, self.consent_ads, self.consent_training)
        return frozenset(purpose for purpose, default in zip(PURPOSES, defaults, strict=True) if default == "withdrawn")


class NotAnEventError(Exception):
    """The value is no event; the message says why."""


def read_event(value: bytes | None, appended_at: int, rules: Rules) -> JsonObject:
    """Return the event in a record's value.

    Args:
        value: Value of the record.
        appended_at: Append time of the record, ms.
        rules: Bounds of an event.

    Raises:
        NotAnEventError: The record becomes a dead letter.
    """
    if not value or len(value) > rules.max_event_bytes:
        raise NotAnEventError("no value, or too large")
    event = _read_json(value)
    if not isinstance(event, dict) or _depth(event) > MAX_DEPTH:
        raise NotAnEventError("no object, or nested too deeply")
    for name, is_right in _fields_of(event.get("type")).items():
        if not is_right(event.get(name)):
            raise NotAnEventError(f"the field {name}")
    if event["type"] == "epoch":
        return event
    if event["type"] == "consent":
        _check_statement(event)
    if event["type"] == "identify" and event["identified_as"] == event["user_id"]:
        raise NotAnEventError("a user is identified as the same user")
    ahead_ms = event["ts"] - appended_at
    is_old = rules.past_ms and -ahead_ms > rules.past_ms and event["type"] != "handover"
    if ahead_ms > rules.future_ms or is_old:
        raise NotAnEventError("the future, or the past")
    return event


def _check_statement(event: JsonObject) -> None:
    """Check that a statement about consent names known purposes, and none twice.

    Raises:
        NotAnEventError: It does not.
    """
    granted, withdrawn = event.get("granted", []), event.get("withdrawn", [])
    if not isinstance(granted, list) or not isinstance(withdrawn, list):
        raise NotAnEventError("no lists of purposes")
    named = [*granted, *withdrawn]
    if not named or not all(purpose in PURPOSES for purpose in named) or set(granted) & set(withdrawn):
        raise NotAnEventError("no purpose, an unknown one, or one both granted and withdrawn")


def _read_json(value: bytes) -> Any:
    try:
        return json.loads(value.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise NotAnEventError(str(exc)) from exc


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(_depth, parts), default=0)


def _fields_of(kind: Any) -> dict[str, Callable[[Any], bool]]:
    """Return the check of each field of a kind of event; a missing field is null."""
    if kind == "tick":
        return {"ts": _is_time}
    if kind == "epoch":
        return dict.fromkeys(("number", "catalogue", "campaigns"), _is_number(0, int))
    if kind in ("consent", "erase", "identify", "handover"):
        ids = {"handover": ("user_id", "anonymous_id"), "identify": ("event_id", "user_id", "identified_as")}
        numbers = dict.fromkeys(("partition", "offset") if kind == "handover" else (), _is_number(0, int))
        return dict.fromkeys(ids.get(kind, ("event_id", "user_id")), _is_id) | numbers | {"ts": _is_time}
    if kind == "search":
        return _SHARED | {"query": _optional(_is_text(0, 1024))}
    if isinstance(kind, str) and kind in ITEM_ACTIONS:
        return _SHARED | _ITEM | (_PURCHASE if kind == "purchase" else {})
    raise NotAnEventError(f"the type {kind!r}")


def _is_time(value: Any) -> bool:
    return type(value) is int and YEAR_2000_MS <= value <= YEAR_9999_MS


def _is_text(shortest: int, longest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and shortest <= len(value) <= longest


def _is_number(smallest: int, *kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds and value >= smallest


def _optional(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


_is_id = _is_text(1, 256)
_is_name = _optional(_is_text(0, 256))
_SHARED: dict[str, Callable[[Any], bool]] = {
    "event_id": _is_id,
    "user_id": _is_id,
    "ts": _is_time,
    "session_id": _is_name,
    "decision_id": _is_name,
    "position": _optional(_is_number(0, int)),
}
_ITEM: dict[str, Callable[[Any], bool]] = {
    "item_id": _is_id,
    "price": _optional(_is_number(0, int, float)),
    "category": _is_name,
}
_PURCHASE: dict[str, Callable[[Any], bool]] = {"quantity": _optional(_is_number(1, int))}
