"""Changelog: the state that a worker restores, whichever worker wrote last."""

import msgspec
import pytest

from clickscore.schemas.snapshots import PARTITION_KEY, AdState, PartitionSnapshot, UserState, encode
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.changelog import StateRestorer, restore
from clickscore.stream.state.changelog_record import ChangelogRecord
from tests.events import START


def snapshot(user: str, offset: int) -> ChangelogRecord:
    state = UserState(
        offset=offset,
        length=1,
        opened_at=START,
        last_ts=START,
        ages=[0],
        actions=b"\1",
        items=["a"],
        fingerprints=bytes(8),
    )
    return ChangelogRecord(user.encode(), encode(state), offset)


def restorer(*changes: ChangelogRecord) -> StateRestorer:
    made = StateRestorer()
    for change in changes:
        made.add(change.key, change.value, change.offset)
    return made


def test_newest_snapshot_wins():
    state = restorer(snapshot("ann", 1), snapshot("ann", 5)).state("events-0", SessionSettings())
    assert state.user("ann").offset == 5


def test_late_write_of_a_stalled_worker_does_not_win():
    state = restorer(snapshot("ann", 5), snapshot("ann", 1)).state("events-0", SessionSettings())
    assert state.user("ann").offset == 5


def test_state_behind_a_stale_record_is_repaired():
    assert restorer(snapshot("ann", 5), snapshot("ann", 1), snapshot("bob", 2)).repairs() == [snapshot("ann", 5)]


def test_state_that_was_written_again_needs_no_repair():
    assert restorer(snapshot("ann", 5), snapshot("ann", 1), snapshot("ann", 5)).repairs() == []


def test_stale_tombstone_forgets_nobody():
    state = restorer(snapshot("ann", 5), ChangelogRecord(b"ann", None, 4)).state("events-0", SessionSettings())
    assert state.user("ann").offset == 5


def test_tombstone_forgets():
    state = restorer(snapshot("ann", 5), ChangelogRecord(b"ann", None, 6)).state("events-0", SessionSettings())
    assert len(state) == 0


def test_restored_state_knows_open_sessions():
    assert restore([snapshot("ann", 1), snapshot("bob", 2)], "events-0", SessionSettings()).open_sessions == 2


def test_restored_partition_goes_on_where_it_ended():
    value = encode(PartitionSnapshot(offset=7, max_ts=START, popular=["kettle"]))
    state = restore([ChangelogRecord(PARTITION_KEY, value, 7)], "events-0", SessionSettings())
    assert (state.offset, state.max_ts, state.popular) == (7, START, ["kettle"])


def test_snapshot_that_is_nested_too_deeply_is_no_snapshot():
    whole = snapshot("ann", 1).value or b""
    fields = len(msgspec.msgpack.decode(whole))
    assert whole[:3] == b"\xdc" + fields.to_bytes(2, "big")  # head of an array of 16 parts or more
    value = whole[3:] + b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(msgspec.DecodeError, match="nested too deeply"):
        StateRestorer().add(b"ann", b"\xdc" + (fields + 1).to_bytes(2, "big") + value, -1)


def test_snapshot_with_cut_off_ad_impressions_is_no_snapshot():
    value = encode(UserState(offset=1, ads=AdState(day=20_000, impressions=b"x" * 17)))
    with pytest.raises(msgspec.DecodeError, match="cut off"):
        StateRestorer().add(b"ann", value, -1)


def test_snapshot_with_cut_off_seen_items_is_no_snapshot():
    value = encode(UserState(offset=1, seen=b"x" * 18))
    with pytest.raises(msgspec.DecodeError, match="cut off"):
        StateRestorer().add(b"ann", value, -1)
