"""Snapshots: the state of a user and of a partition, as memory and `session-snapshots` both hold it (MessagePack).

A record's key is the user's id; the partition's own record has the empty key, which no user id can be. What one cycle
of the worker changed travels as one record batch that ends with the partition's record, so a log always holds a state
that is whole: everything up to `PartitionSnapshot.offset`, and nothing of what comes after.
"""

import msgspec

PARTITION_KEY = b""
OFFSET_HEADER = "offset"
"""Header of a tombstone: the source offset at which the user was forgotten, which a tombstone has no body to say."""


class UserState(msgspec.Struct, array_like=True, gc=False):
    """What is remembered of one user: the open session, if any, and what was bought.

    Array-like, so that a million of them fit in memory: fields are append-only, and a new one needs a default.
    """

    offset: int = -1
    """Source offset of the record that changed this state last."""
    opened_by: int = -1
    """Source offset of the open session's first event: what names the session where the client does not."""
    session_id: str = ""
    opened_at: int = 0
    """Earliest `ts` of the open session, ms."""
    last_ts: int = 0
    """Latest `ts` of the open session, or of the last one where none is open, ms."""
    length: int = 0
    """Events of the open session, those included that the bound has dropped; 0 where none is open."""
    purchased: bool = False
    """Whether anything was bought in the open session."""
    ages: list[int] = []
    """Of each remembered event, in order of time: `ts` less `opened_at`, ms."""
    actions: bytes = b""
    """Of each remembered event: its code in `schemas.events.ACTIONS`."""
    items: list[str] = []
    """Of each remembered event: its item, empty for a search."""
    fingerprints: bytes = b""
    """Of each remembered event: 8 bytes of fingerprint of its id, by which a repeat is known."""
    bought: list[str] = []
    """Items bought, newest last, over sessions."""


class PartitionSnapshot(msgspec.Struct, array_like=True, gc=False):
    """What is remembered of one partition beside its users."""

    offset: int = -1
    """Every record up to this source offset is finished: decided, and its state is in the log."""
    max_ts: int = -1
    """Largest event time seen, ms: the watermark is this less the allowed lateness."""
    popular: list[str] = []
    """Items by popularity, best first, as of the last refresh."""


decode_user = msgspec.msgpack.Decoder(UserState).decode
decode_partition = msgspec.msgpack.Decoder(PartitionSnapshot).decode
encode = msgspec.msgpack.Encoder().encode
