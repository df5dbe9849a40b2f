"""User table: the states of a partition's users, kept as the bytes of their snapshots.

Bytes are compact in memory, encoded once for memory and changelog, and restored by loading them. Users touched by a
batch are decoded once, changed, and encoded once at the end of the batch.
"""

from collections.abc import Iterable, Iterator

from clickscore.schemas.snapshots import UserState, changed_by, decode_user, encode, is_outdated
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.state.clients import is_machine


class UserTable:
    """Users of a partition: decoded where the batch has changed them, and bytes else."""

    def __init__(self) -> None:
        """Start without users."""
        self._snapshots: dict[str, bytes] = {}
        self._touched: dict[str, UserState] = {}
        self._overlaid: set[str] = set()  # users to write again with the next flush
        self._changed: set[str] | None = None  # users changed since the last look; None before the first

    def __len__(self) -> int:
        return len(self._snapshots)

    def __iter__(self) -> Iterator[str]:
        """Yield the ids of the users as of the last flush, in alphabetical order."""
        return iter(sorted(self._snapshots))

    def contents(self) -> dict[str, bytes]:
        """Return the snapshot of each user, as of the last flush."""
        return self._snapshots

    def find(self, user_id: str) -> UserState:
        """Return the state of a user for reading; an empty state where the user is unknown."""
        touched = self._touched.get(user_id)
        if touched is not None:
            return touched
        snapshot = self._snapshots.get(user_id)
        return decode_user(snapshot) if snapshot is not None else UserState()

    def touch(self, user_id: str, user: UserState, offset: int) -> None:
        """Note the changed state of a user.

        Args:
            user_id: The user.
            user: State of the user; may change until the next flush.
            offset: Source offset of the record behind the change.
        """
        user.offset = offset
        self._touched[user_id] = user
        if self._changed is not None:
            self._changed.add(user_id)

    def take_changed(self) -> set[str]:
        """Return the users whose states changed since the last call, and all users at the first call."""
        changed = {*self._snapshots, *self._touched} if self._changed is None else self._changed
        self._changed = set()
        return changed

    def flush(self, offset: int) -> list[ChangelogRecord]:
        """End a batch; return the records of the changed users.

        A user with nothing left always leaves a tombstone: a stalled worker may write a record of another batch later.

        Args:
            offset: Source offset of the last record of the batch.
        """
        changes: list[ChangelogRecord] = []
        for user_id, user in self._touched.items():
            if is_remembered(user):
                value = encode(user)
                self._snapshots[user_id] = value
                changes.append(ChangelogRecord(user_id.encode(), value, user.offset))
            else:
                self._snapshots.pop(user_id, None)
                changes.append(ChangelogRecord(user_id.encode(), None, user.offset))
        for user_id in sorted(self._overlaid.difference(self._touched)):
            value = self._snapshots.get(user_id)
            changes.append(ChangelogRecord(user_id.encode(), value, changed_by(value, offset)))
        self._touched.clear()
        self._overlaid.clear()
        return changes

    def load(self, user_id: str, snapshot: bytes) -> UserState:
        """Restore a user; return the state."""
        self._snapshots[user_id] = snapshot
        return decode_user(snapshot)

    def is_overlaid(self, user_id: str, offset: int, *, is_tombstone: bool) -> bool:
        """Return whether a record of the changelog is older than the state of the user here.

        Args:
            user_id: Key of the record.
            offset: Source offset of the record.
            is_tombstone: Whether the record has no value.
        """
        return is_outdated(self._snapshots.get(user_id), offset, is_tombstone=is_tombstone)

    def rewrite(self, user_ids: Iterable[str]) -> None:
        """Write the states of users again with the next flush; a tombstone where nothing is remembered."""
        self._overlaid.update(user_ids)

    @property
    def needs_flush(self) -> bool:
        """Whether records wait to be written again."""
        return bool(self._overlaid)


def is_remembered(user: UserState) -> bool:
    """Return whether a state has anything to remember."""
    return bool(user.length or user.bought or is_machine(user) or user.consent or user.ads)
