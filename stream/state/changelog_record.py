"""Changelog record: the newest state under a key of `session-snapshots`."""

import msgspec


class ChangelogRecord(msgspec.Struct, frozen=True, gc=False):
    """A record of `session-snapshots`: the state of a user or of the partition; a tombstone where `value` is absent."""

    key: bytes
    value: bytes | None
    offset: int
    """Source offset of the record behind the change; a header carries the offset of a tombstone."""
