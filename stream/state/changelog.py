"""Changelog: a partition's state put together again from the records of `session-snapshots`."""

from collections.abc import Iterable

from clickscore.schemas.snapshots import (
    PARTITION_KEY,
    decode_partition,
    decode_user,
)
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.partition import ChangelogRecord, PartitionState


class StateRestorer:
    """Builds a partition's state from its records of `session-snapshots`, in their order.

    A worker that stalled, lost its partitions and woke up may have written after its successor. So a record never
    steps a key back in source offsets, and what such a record overlaid is returned by `repairs`, to be written again:
    compaction keeps the last record of a key, which must be the newest state.
    """

    def __init__(self) -> None:
        self._newest: dict[bytes, tuple[int, bytes | None]] = {}
        self._overlaid: set[bytes] = set()

    def add(self, key: bytes, value: bytes | None, tombstone_offset: int) -> None:
        """Take the next record.

        Args:
            key: A user's id, or `PARTITION_KEY`.
            value: A snapshot, or none for a tombstone.
            tombstone_offset: What the header of a tombstone says; -1 where it has none.
        """
        if value is None:
            offset = tombstone_offset
        elif key == PARTITION_KEY:
            offset = decode_partition(value).offset
        else:
            offset = decode_user(value).offset
        known = self._newest.get(key)
        if known is None or offset >= known[0]:
            self._newest[key] = (offset, value)
            self._overlaid.discard(key)
        else:
            self._overlaid.add(key)

    def repairs(self) -> list[ChangelogRecord]:
        """Return the newest states that a stale record overlaid."""
        return [ChangelogRecord(key, self._newest[key][1], self._newest[key][0]) for key in sorted(self._overlaid)]

    def state(self, source: str, settings: SessionSettings) -> PartitionState:
        """Return the restored state of the partition `source` (`TOPIC-PARTITION`)."""
        state = PartitionState(source, settings)
        for key, (_, value) in self._newest.items():
            if value is None:
                continue
            if key == PARTITION_KEY:
                snapshot = decode_partition(value)
                state.offset, state.max_ts, state.popular = snapshot.offset, snapshot.max_ts, snapshot.popular
            else:
                state.load_user(key.decode(), value)
        return state


def restore(changes: Iterable[ChangelogRecord], source: str, settings: SessionSettings) -> PartitionState:
    """Return the state that a run of changes leaves, as after a restart."""
    restorer = StateRestorer()
    for change in changes:
        restorer.add(change.key, change.value, change.offset)
    return restorer.state(source, settings)
