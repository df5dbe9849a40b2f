"""Snapshots: the state of a user and of a partition as MessagePack, the same in memory and in `session-snapshots`.

A record's key is the user id. The partition's own record has the empty key, since no user id is empty. What the ledger
remembers of a user has a key of its own (`schemas.open_decisions`). All changes of a batch travel as a single record
batch, with the partition's record last. So a log always holds a complete state: the effect of every record up to
`PartitionSnapshot.offset`, and of no later record.
"""

import msgspec

from clickscore.schemas.events import Epoch
from clickscore.schemas.open_decisions import StoredLedger, UserLedger

PARTITION_KEY = b""
OFFSET_HEADER = "offset"
"""Header of a tombstone: the source offset of the record that made the worker forget the user."""


class ConsentState(msgspec.Struct, array_like=True, gc=False):
    """What a user said about consent. A purpose has the bit of its position in `schemas.purposes.PURPOSES`."""

    granted: int = 0
    """Bits of the purposes that the user granted."""
    withdrawn: int = 0
    """Bits of the purposes that the user withdrew."""
    said_at: int = 0
    """Newest `ts` of what the user said, ms."""
    withdrawn_at: int = 0
    """Newest `ts` of a withdrawal, ms."""
    fingerprints: bytes = b""
    """Fingerprints of the newest `consent` events, 8 bytes each, to deduplicate repeated events."""
    session_withheld: bool = False
    """Whether the open session has events without consent to training, so that it is not published."""
    handed_to: bytes = b""
    """Hash (xxh3, 64 bits) of the user to whom all of this was handed over; empty where there is something new."""


class AdState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Ads shown to a user, for frequency caps and for the ad load of a session."""

    day: int
    """Day of the impressions in event time, days since 1970, UTC."""
    impressions: bytes = b""
    """16 bytes for each ad impression of the day: hashes (xxh3, 64 bits) of the campaign's id and the event's id."""
    opened_by: int = -1
    """Source offset of the first event of the session that `in_session` counts for; -1 for none."""
    in_session: int = 0
    """Number of ad impressions in this session."""


class UserState(msgspec.Struct, array_like=True, gc=False):
    """State of a user: the open session, if any, the bought items, what the user said about consent, and shown ads.

    Array-like, so that a million users fit in memory. New fields go to the end and need a default.
    """

    offset: int = -1
    """Source offset of the last record with a change of this state."""
    opened_by: int = -1
    """Source offset of the first event of the open session; names the session where the client does not."""
    session_id: str = ""
    opened_at: int = 0
    """Earliest `ts` of the open session, ms."""
    last_ts: int = 0
    """Latest `ts` of the open session, or else of the last session, ms."""
    length: int = 0
    """Number of events of the open session, dropped events included; 0 without an open session."""
    purchased: bool = False
    """Whether the open session has a purchase."""
    ages: list[int] = []
    """Age of each remembered event, in order of time: `ts` less `opened_at`, ms."""
    actions: bytes = b""
    """Action code of each remembered event: index into `schemas.events.ACTIONS`."""
    items: list[str] = []
    """Item of each remembered event; empty for a search."""
    fingerprints: bytes = b""
    """Fingerprint of each remembered event's id, 8 bytes each, to deduplicate repeated events."""
    bought: list[str] = []
    """Bought items of all sessions, newest last."""
    consent: ConsentState | None = None
    """What the user said about consent; absent for a user who said nothing."""
    client: int = 0
    """Class of the user: index into `schemas.clients.CLIENTS`."""
    is_handed: bool = False
    """Whether the open session was an anonymous id's and still has its name: a client's next name replaces it."""
    ads: AdState | None = None
    """Ads shown on the newest day with any; absent without ads."""
    ledger: UserLedger | None = None
    """Open decisions of the user; only in a ledger record, which has no other field but `offset`."""
    bought_days: list[int] = []
    """Day of the purchase of each bought item, days since 1970, UTC; the first items may lack one."""
    seen: bytes | None = None
    """Impressions of items in the open session, as in `schemas.seen_items`; absent without impressions."""


class LedgerRecord(UserState, array_like=True, gc=False):
    """A ledger record, to add decisions without reading the others."""

    ledger: StoredLedger | None = None  # pyright: ignore[reportIncompatibleVariableOverride]  (the same bytes)


class PartitionSnapshot(msgspec.Struct, array_like=True, gc=False):
    """State of a partition, apart from the users."""

    offset: int = -1
    """Source offset up to which all records are decided, and all changes of state are in the log."""
    max_ts: int = -1
    """Largest event time, ms; the watermark is the largest event time less the allowed lateness."""
    popular: list[str] = []
    """Items by popularity, best first, as of the last refresh."""
    topic_id: str = ""
    """Kafka's id of the topic of events; empty where the id is unknown. A topic that is made anew has another id."""
    epoch: Epoch | None = None
    """Epoch in effect after the record at `offset`; absent before the first epoch."""
    appended_at: int = -1
    """Kafka's timestamp of the record at `offset`, ms; negative where unknown. Another record there is another log."""
    handed: dict[int, int] = {}
    """Offset of the newest hand-over that was applied, by its source partition: an earlier one is a repeat."""
    erasures: list[tuple[bytes, int]] = []
    """Newest erasures: hash of the user id (xxh3, 64 bits) and event time, ms. A hand-over from before is dropped.

    An empty hash stands for all users with a pushed-out erasure, with the newest time of these erasures.
    """


decode_user = msgspec.msgpack.Decoder(UserState).decode
decode_ledger_record = msgspec.msgpack.Decoder(LedgerRecord).decode
decode_partition = msgspec.msgpack.Decoder(PartitionSnapshot).decode
encode = msgspec.msgpack.Encoder().encode


def is_outdated(stored: bytes | None, offset: int, *, is_tombstone: bool) -> bool:
    """Return whether a record of the changelog is older than what is remembered under its key.

    Args:
        stored: Remembered record, a `UserState`; absent for an unknown key.
        offset: Source offset of the record of the changelog.
        is_tombstone: Whether the record of the changelog has no value.
    """
    return not is_tombstone if stored is None else offset < decode_user(stored).offset


def changed_by(stored: bytes | None, default: int) -> int:
    """Return the source offset of the change behind a remembered `UserState`; the default without a record."""
    return default if stored is None else decode_user(stored).offset
