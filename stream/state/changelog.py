"""Changelog: restore the state of a partition from the records of `session-snapshots`."""

from collections.abc import Iterable

import msgspec

from clickscore.schemas.ad_impressions import AD_IMPRESSION_BYTES
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.seen_items import SEEN_BYTES
from clickscore.schemas.snapshots import (
    PARTITION_KEY,
    UserState,
    decode_partition,
    decode_user,
)
from clickscore.stream.budgets.partition_budgets import BUDGET_PREFIX, check_budget
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.state.partition import PartitionState


def source_offset(key: bytes, value: bytes | None, tombstone_offset: int) -> int:
    """Return the source offset of a record of the changelog.

    Args:
        key: A user id, or `PARTITION_KEY`.
        value: A snapshot; null and empty for a tombstone.
        tombstone_offset: Source offset in the header of a tombstone; -1 where the header is missing.

    Raises:
        msgspec.DecodeError: The value is no snapshot.
        UnicodeDecodeError: The key or a text of the value is not UTF-8.
    """
    if not value:
        return tombstone_offset
    try:
        if key == PARTITION_KEY:
            return decode_partition(value).offset
        name = key.decode()
        user = decode_user(value)
        if name.startswith(BUDGET_PREFIX) and user.ledger is not None:
            check_budget(name, user.ledger.budget or b"")
    except RecursionError as exc:
        message = "the value is nested too deeply"
        raise msgspec.DecodeError(message) from exc
    _check_lengths(user)
    return user.offset


class StateRestorer:
    """Builds the state of a partition from the records of the changelog, in log order.

    A stalled worker may wake up and write after its successor. So for each key the record with the largest source
    offset wins, at any place in the log. Compaction, however, keeps the last record of a key. So `repairs` returns the
    newest state of each key with a stale last record, to be written again.
    """

    def __init__(self) -> None:
        self._newest: dict[bytes, tuple[int, bytes | None]] = {}
        self._stale: set[bytes] = set()  # keys whose last record in the log is older than the newest state

    def add(self, key: bytes, value: bytes | None, tombstone_offset: int) -> None:
        """Add the next record of the log.

        Args:
            key: A user id, or `PARTITION_KEY`.
            value: A snapshot; null and empty for a tombstone.
            tombstone_offset: Source offset in the header of a tombstone; -1 where the header is missing.

        Raises:
            msgspec.DecodeError: The value is no snapshot.
            UnicodeDecodeError: The key or a text of the value is not UTF-8.
        """
        value = value or None
        offset = source_offset(key, value, tombstone_offset)
        newest = self._newest.get(key)
        if newest is None or offset >= newest[0]:
            self._newest[key] = (offset, value)
            self._stale.discard(key)
        else:
            self._stale.add(key)

    def repairs(self) -> list[ChangelogRecord]:
        """Return the newest state of each key with a stale last record in the log."""
        return [ChangelogRecord(key, self._newest[key][1], self._newest[key][0]) for key in sorted(self._stale)]

    def state(self, source: str, settings: SessionSettings) -> PartitionState:
        """Return the restored state of the partition `source` (`TOPIC-PARTITION`)."""
        state = PartitionState(source, settings)
        for key, (_, value) in self._newest.items():
            if value is None:
                continue
            if key == PARTITION_KEY:
                state.load_partition(decode_partition(value))
            else:
                state.load(key.decode(), value)
        return state


def _check_lengths(user: UserState) -> None:
    """Check that the parts of a user's snapshot describe the same events.

    Raises:
        msgspec.ValidationError: The numbers of events differ, or an action is unknown.
    """
    events = len(user.items)
    if not events == len(user.ages) == len(user.actions) == len(user.fingerprints) / 8 <= max(user.length, 0):
        message = "the parts of the session have different lengths"
        raise msgspec.ValidationError(message)
    if user.actions and max(user.actions) >= len(ACTIONS):
        message = f"the action code {max(user.actions)} is unknown"
        raise msgspec.ValidationError(message)
    if user.ads is not None and len(user.ads.impressions) % AD_IMPRESSION_BYTES:
        message = "the ad impressions are cut off"
        raise msgspec.ValidationError(message)
    if len(user.seen or b"") % SEEN_BYTES:
        message = "the seen items are cut off"
        raise msgspec.ValidationError(message)


def restore(changes: Iterable[ChangelogRecord], source: str, settings: SessionSettings) -> PartitionState:
    """Return the state in a changelog, as a worker restores the state after a restart.

    Args:
        changes: Records of the changelog, in log order.
        source: `TOPIC-PARTITION` of the events.
        settings: Gap, lateness and bounds.
    """
    restorer = StateRestorer()
    for change in changes:
        restorer.add(change.key, change.value, change.offset)
    return restorer.state(source, settings)
