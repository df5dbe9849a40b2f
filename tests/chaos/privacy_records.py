"""Privacy records: statements about consent, erasures and identities, mixed into a log of events."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from tests.chaos.event_rules import PURPOSES
from tests.integration.event_log import Sent

SHARE = 0.02
"""Share of the events after which the user says something about consent, or is erased."""
IDENTITY_SHARE = 0.02
"""Share of the events after which the user is identified as another, or, now and then, as the same user."""


def with_privacy_records(log: Sequence[Sent], seed: int) -> list[Sent]:
    """Return a log with further records of its users: most grant or withdraw consent, some are erased.

    Args:
        log: Records of events.
        seed: Seed of the further records.
    """
    dice = random.Random(seed)
    mixed: list[Sent] = []
    privacy: list[Sent] = []
    for number, record in enumerate(log):
        mixed.append(record)
        fields = _fields_of(record)
        if fields is None or dice.random() >= SHARE:
            continue
        lot = dice.random()
        if lot < 0.1 and privacy:
            mixed.append(dice.choice(privacy[-20:]))  # a producer sends a record again
        else:
            mixed.append(_erasure(fields, number) if lot < 0.25 else _statement(fields, number, dice))
            privacy.append(mixed[-1])
    return mixed


def with_identities(log: Sequence[Sent], seed: int) -> list[Sent]:
    """Return a log with further records that say that a user is another: a session moves between partitions.

    Args:
        log: Records of events.
        seed: Seed of the further records.
    """
    dice = random.Random(seed)
    mixed: list[Sent] = []
    for number, record in enumerate(log):
        mixed.append(record)
        fields = _fields_of(record)
        if fields is not None and dice.random() < IDENTITY_SHARE:
            mixed.append(_identity(fields, number, dice))
    return mixed


def _fields_of(record: Sent) -> dict[str, Any] | None:
    """Return the fields of an event; None for a broken record and for a tick."""
    try:
        fields = msgspec.json.decode(record.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    is_event = isinstance(fields, dict) and "user_id" in fields and isinstance(fields.get("ts"), int)
    return fields if is_event else None


def _erasure(fields: dict[str, Any], number: int) -> Sent:
    return _record({"type": "erase", "event_id": f"x{number}", "user_id": fields["user_id"], "ts": fields["ts"]})


def _identity(fields: dict[str, Any], number: int, dice: random.Random) -> Sent:
    """Return an identification of the user as another; a part of them names the same user, and must be refused."""
    names = {"user_id": fields["user_id"], "identified_as": f"user-{dice.randrange(60)}"}
    return _record({"type": "identify", "event_id": f"i{number}", "ts": fields["ts"]} | names)


def _statement(fields: dict[str, Any], number: int, dice: random.Random) -> Sent:
    """Return a statement; a part of them names no purpose, an unknown one, or one twice, and must be refused."""
    purposes = dice.sample(PURPOSES, dice.randrange(1, 3))
    cut = dice.randrange(len(purposes) + 1)
    granted, withdrawn = purposes[:cut], purposes[cut:]
    if dice.random() < 0.1:
        granted, withdrawn = dice.choice([["everything"], purposes, []]), dice.choice([[], purposes])
    ts = fields["ts"] - dice.choice([0, 0, 1_000, 600_000])
    statement = {"type": "consent", "event_id": f"c{number}", "user_id": fields["user_id"], "ts": ts}
    return _record(statement | {"granted": granted, "withdrawn": withdrawn})


def _record(fields: dict[str, Any]) -> Sent:
    return Sent(msgspec.json.encode(fields), str(fields["user_id"]).encode())
