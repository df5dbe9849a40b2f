"""Memory: what a user costs a worker: its process before and after it remembers so many of them.

A process of its own for each measurement: `python -m bench.memory USERS MEAN_LENGTH live|restored`. Live: their events
went through the pipeline; restored: their snapshots were adopted, as at a worker's start.
"""

import gc
import subprocess
import sys
from itertools import islice
from typing import Literal, NamedTuple, get_args

import msgspec
import numpy as np
import psutil

from bench.effort import Effort
from bench.logs import PARTITIONS, START_MS, draw_items, natural_acts, open_session
from bench.machine import ROOT
from bench.place import Place, say
from bench.report import Found, Row
from clickscore.schemas.events import decode_record
from clickscore.schemas.snapshots import encode
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import Settings

How = Literal["live", "restored"]

SESSIONS: tuple[tuple[float, How], ...] = ((1.7, "live"), (5.0, "restored"), (20.0, "restored"))
"""Mean lengths: 1.7 events is that of two hours of Taobao's log; at most 50 are remembered."""

_RATE = 1500.0  # events a second of event time: a million users come within the gap, so none is forgotten
_BATCH = 1024
_REHEARSED = 70_000  # events that fill the caches of the load itself before the first look


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a user."""

    users: int
    how: How
    mean_length: float
    """Events of a session."""
    user_bytes: float
    item_id_bytes: float
    """Of those, the ids of the session's items."""

    @property
    def beside_ids(self) -> float:
        """What is not item ids."""
        return self.user_bytes - self.item_id_bytes


def memory(place: Place, effort: Effort) -> Found:
    """One process for each mean length."""
    del place
    found = [measure_memory(effort.users, *sessions) for sessions in SESSIONS]
    rows = [
        Row(
            what=f"Memory a user beside the item ids, sessions of {taken.mean_length:.1f} events",
            values=(taken.beside_ids,),
            digits=",.0f",
            unit=" bytes",
            goal=400,
            at_least=False,
            beside=f"{taken.users:,} users, {taken.how}; the ids take {taken.item_id_bytes:.0f} bytes more",
        )
        for taken in found
    ]
    return Found(rows, found)


def measure_memory(users: int, mean_length: float, how: How) -> Memory:
    """Measure in a fresh process."""
    command = [sys.executable, "-m", "bench.memory", str(users), str(mean_length), how]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    found = msgspec.json.decode(said, type=Memory)
    say(
        f"{found.users:,} users of {found.mean_length:.1f} events, {how}: {found.user_bytes:.0f} bytes each, "
        f"{found.item_id_bytes:.0f} of them item ids"
    )
    return found


class _Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def _live(pipeline: Pipeline, users: int, mean_length: float) -> tuple[int, int, int]:
    """Let users act until so many are remembered; return bytes that this took, events and bytes of their item ids."""
    acts = natural_acts(_RATE, mean_length)
    for number, act in enumerate(islice(acts, _REHEARSED)):
        decode_record(act.at(number, START_MS).value)
    before, events, id_bytes = _resident(), 0, 0
    offsets = [0] * PARTITIONS
    waiting: list[list[_Record]] = [[] for _ in range(PARTITIONS)]
    while sum(len(state) for state in pipeline.partitions.values()) < users:
        for act in islice(acts, _BATCH):
            record = act.at(events, START_MS + int(events * 1000 / _RATE))
            waiting[record.partition].append(_Record(offsets[record.partition], -1, record.key, record.value))
            offsets[record.partition] += 1
            events += 1
            id_bytes += len(act.item)
        for partition, records in enumerate(waiting):
            pipeline.process(partition, records)
            records.clear()
    return _resident() - before, events, id_bytes


def _restored(pipeline: Pipeline, users: int, mean_length: float) -> tuple[int, int, int]:
    """Adopt the snapshots of so many users; return as `_live`."""
    rng, most = np.random.default_rng(5), Settings().max_events
    for number in range(_REHEARSED):
        partition_of(f"u{number}".encode(), PARTITIONS)
    before, events, id_bytes = _resident(), 0, 0
    for number in range(users):
        length = min(most, int(rng.geometric(1 / mean_length)))
        items = [f"item-{item}" for item in draw_items(rng, length).tolist()]
        user = f"u{number}"
        pipeline.state(partition_of(user.encode(), PARTITIONS)).load_user(user, encode(open_session(items, rng)))
        events += length
        id_bytes += sum(map(len, items))
    return _resident() - before, events, id_bytes


def _resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def main(users: int, mean_length: float, how: How) -> None:
    pipeline = Pipeline(Settings(), "clickstream-events", Catalogue())
    fill = _live if how == "live" else _restored
    taken, events, id_bytes = fill(pipeline, users, mean_length)
    there = sum(len(state) for state in pipeline.partitions.values())
    found = Memory(
        users=there,
        how=how,
        mean_length=events / there,
        user_bytes=taken / there,
        item_id_bytes=id_bytes / there,
    )
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), next(how for how in get_args(How) if how == sys.argv[3]))
