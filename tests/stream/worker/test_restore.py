"""Restore: what a changelog is read back to."""

import asyncio

import msgspec
import pytest

from clickscore.schemas.open_decisions import UserLedger
from clickscore.schemas.snapshots import OFFSET_HEADER, PARTITION_KEY, UserState, encode
from clickscore.schemas.topics import EVENTS, SNAPSHOTS
from clickscore.stream.budgets.partition_budgets import BUDGET_PREFIX
from clickscore.stream.errors import SnapshotError
from clickscore.stream.settings import Settings
from clickscore.stream.worker.restore import RestoredPartition, changelog_ends, restore_partitions
from tests.events import view
from tests.memory_kafka import MemoryLog
from tests.stream.worker.stage import Stage


def restored(log: MemoryLog, *partitions: int) -> dict[int, RestoredPartition]:
    return asyncio.run(restore_partitions(log.open_reader, Settings(), partitions))


def written() -> Stage:
    """Return a stage whose changelog has a user and a partition record."""
    stage = Stage()
    job = stage.compute_job(view("ann", 0))
    asyncio.run(stage.publisher.write(0, job.output.changes))
    return stage


def test_partition_without_changelog_is_empty():
    state, repairs, end = restored(MemoryLog(), 0)[0]
    assert (len(state), state.offset, repairs, end) == (0, -1, [], 0)


def test_state_is_that_of_the_worker_that_wrote_it():
    stage = written()
    assert restored(stage.log, 0)[0].state.contents() == stage.pipeline.partitions[0].contents()


def test_end_is_behind_the_last_record():
    stage = written()
    assert restored(stage.log, 0)[0].end == stage.log.end(SNAPSHOTS.name) == 3


def test_state_of_each_partition_is_its_own():
    stage = written()
    assert [len(partition.state) for partition in restored(stage.log, 0, 1).values()] == [1, 0]


def test_tombstone_forgets_a_user():
    stage = written()
    stage.log.append(SNAPSHOTS.name, 0, b"ann", None, headers=[("other", b""), (OFFSET_HEADER, b"5")])
    assert len(restored(stage.log, 0)[0].state) == 0


def test_tombstone_of_a_stalled_worker_forgets_nobody():
    stage = written()
    stage.log.append(SNAPSHOTS.name, 0, b"ann", None)
    state, repairs, _ = restored(stage.log, 0)[0]
    assert (len(state), [record.key for record in repairs]) == (1, [b"ann"])


def test_state_up_to_the_last_event_is_not_ahead_of_the_events():
    stage = written()
    assert restored(stage.log, 0)[0].state.offset == stage.log.end(EVENTS.name) - 1


def test_ends_of_the_changelog_are_looked_up_by_partition():
    stage = written()
    assert asyncio.run(changelog_ends(stage.log.open_reader, Settings().kafka, [0, 1])) == {0: 3, 1: 0}


def with_last(key: bytes, value: bytes) -> Stage:
    """Return a stage whose changelog ends with a foreign record."""
    stage = written()
    stage.log.append(SNAPSHOTS.name, 0, key, value)
    return stage


def user_state(**fields: object) -> bytes:
    return encode(UserState(**{"offset": 9, "length": 1, "ages": [0], "actions": b"\1", "items": ["a"], **fields}))


BUDGET_KEYS = [(BUDGET_PREFIX + name).encode() for name in ("a", "atea", "c", "ctea")]
"""Keys of budget records of every kind."""
DEEP = b"\x91" * 5_000 + b"\xc0"  # MessagePack arrays in each other


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"ann", b"garbage"),
        (b"ann", msgspec.msgpack.encode({"offset": 1})),
        (b"ann", DEEP),
        (b"ann", b"\x9d" + msgspec.msgpack.encode(UserState())[1:] + DEEP),
        (b"ann", user_state()),
        (b"ann", user_state(fingerprints=bytes(8), ages=[])),
        (b"ann", user_state(fingerprints=bytes(8), length=-1)),
        (b"ann", user_state(fingerprints=bytes(8), actions=b"\x63")),
        (b"\xff", encode(UserState())),
        *((key, encode(UserState(ledger=UserLedger(budget=b"?")))) for key in BUDGET_KEYS),
        (PARTITION_KEY, b"garbage"),
    ],
)
def test_unreadable_record_is_named_with_a_remedy_and_without_the_user_id(key: bytes, value: bytes):
    stage = with_last(key, value)
    with pytest.raises(SnapshotError) as caught:
        restored(stage.log, 0)
    words = str(caught.value)
    owner = "the partition itself (empty key)" if key == PARTITION_KEY else "the user with the hash "
    assert words.startswith(f"session-snapshots, partition 0, offset 3: the snapshot of {owner}")
    assert "null value to this partition" in words
    assert "ann" not in words.replace("cannot", "")


@pytest.mark.parametrize("key", [b"ann", PARTITION_KEY])
def test_null_value_after_an_unreadable_record_brings_the_last_state_back(key: bytes):
    stage = with_last(key, b"garbage")
    stage.log.append(SNAPSHOTS.name, 0, key, None)
    state, repairs, _ = restored(stage.log, 0)[0]
    assert state.contents() == stage.pipeline.partitions[0].contents()
    assert [record.key for record in repairs] == [key]


@pytest.mark.parametrize("key", ["\0bax", "\0bcx", "\0x"])
def test_user_of_an_earlier_release_may_have_the_first_character_of_the_ledger(key: str):
    value = user_state(fingerprints=bytes(8))
    state, _, _ = restored(with_last(key.encode(), value).log, 0)[0]
    assert state.user(key).items == ["a"]
    assert state.contents()[key.encode()] == value


def test_further_unreadable_records_are_counted():
    stage = with_last(b"ann", b"garbage")
    stage.log.append(SNAPSHOTS.name, 0, b"bob", b"garbage")
    with pytest.raises(SnapshotError, match="1 more such records"):
        restored(stage.log, 0)
