"""Memory: measure the bytes that a worker needs for each remembered user.

Each measurement is a process: `python -m bench.memory USERS MEAN_LENGTH live|restored`. Live users come from events in
the pipeline. Restored users come from snapshots, as at a worker's start.
"""

import gc
import subprocess
import sys
from itertools import islice
from typing import Literal, NamedTuple, get_args

import msgspec
import numpy as np
import psutil

from bench.environment import Environment, report_progress
from bench.logs import PARTITIONS, START_MS, draw_items, natural_acts, open_session
from bench.machine import ROOT
from bench.report import Measurement, Row
from bench.run_budget import RunBudget
from clickscore.schemas.events import decode_record
from clickscore.schemas.snapshots import encode
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import PolicySettings, SessionSettings, Settings

StateSource = Literal["live", "restored"]

SESSIONS: tuple[tuple[float, StateSource], ...] = ((1.7, "live"), (5.0, "restored"), (20.0, "restored"))
"""Mean session lengths. 1.7 events is the mean over two hours of Taobao's log. A user has at most 50 events."""

_RATE = 1500.0  # events a second of event time: a million users come within the gap, so none is forgotten
_BATCH = 1024
_REHEARSED = 70_000  # events that fill the caches of the load itself before the first look


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Memory per user, bytes."""

    users: int
    source: StateSource
    mean_length: float
    """Mean number of events of a session."""
    user_bytes: float
    item_id_bytes: float
    """Part of `user_bytes` for the ids of the session's items."""

    @property
    def beside_ids(self) -> float:
        """Bytes per user without item ids."""
        return self.user_bytes - self.item_id_bytes


def memory(environment: Environment, budget: RunBudget) -> Measurement:
    """Measure one process for each mean length."""
    del environment
    results = [measure_memory(budget.users, *sessions) for sessions in SESSIONS]
    rows = [
        Row(
            title=f"Memory of a user without the item ids, sessions of {result.mean_length:.1f} events",
            values=(result.beside_ids,),
            digits=",.0f",
            unit=" bytes",
            goal=400,
            at_least=False,
            beside=f"{result.users:,} users, {result.source}; the ids take {result.item_id_bytes:.0f} bytes more",
        )
        for result in results
    ]
    return Measurement(rows, results)


def measure_memory(users: int, mean_length: float, source: StateSource) -> Memory:
    """Measure in a fresh process.

    Args:
        users: Number of users.
        mean_length: Mean number of events of a session.
        source: Origin of the state.
    """
    command = [sys.executable, "-m", "bench.memory", str(users), str(mean_length), source]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    result = msgspec.json.decode(output, type=Memory)
    report_progress(
        f"{result.users:,} users of {result.mean_length:.1f} events, {source}: {result.user_bytes:.0f} bytes each, "
        f"{result.item_id_bytes:.0f} of them item ids"
    )
    return result


class _Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def _live(pipeline: Pipeline, users: int, mean_length: float) -> tuple[int, int, int]:
    """Feed events until the state has enough users.

    Args:
        pipeline: Pipeline with the state.
        users: Number of users.
        mean_length: Mean number of events of a session.

    Returns:
        Bytes of memory, number of events, and bytes of item ids.
    """
    acts = natural_acts(_RATE, mean_length)
    for number, act in enumerate(islice(acts, _REHEARSED)):
        decode_record(act.at(number, START_MS).value)
    base, events, id_bytes = _resident(), 0, 0
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
    return _resident() - base, events, id_bytes


def _restored(pipeline: Pipeline, users: int, mean_length: float) -> tuple[int, int, int]:
    """Load the snapshots of users.

    Args:
        pipeline: Pipeline with the state.
        users: Number of users.
        mean_length: Mean number of events of a session.

    Returns:
        Bytes of memory, number of events, and bytes of item ids.
    """
    rng, max_events = np.random.default_rng(5), Settings().sessions.max_events
    for number in range(_REHEARSED):
        partition_of(f"u{number}".encode(), PARTITIONS)
    base, events, id_bytes = _resident(), 0, 0
    for number in range(users):
        length = min(max_events, int(rng.geometric(1 / mean_length)))
        items = [f"item-{item}" for item in draw_items(rng, length).tolist()]
        user = f"u{number}"
        pipeline.state(partition_of(user.encode(), PARTITIONS)).load_user(user, encode(open_session(items, rng)))
        events += length
        id_bytes += sum(map(len, items))
    return _resident() - base, events, id_bytes


def _resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def main(users: int, mean_length: float, source: StateSource) -> None:
    pipeline = Pipeline(SessionSettings(), PolicySettings(), "clickstream-events", Catalogue())
    fill = _live if source == "live" else _restored
    used, events, id_bytes = fill(pipeline, users, mean_length)
    present = sum(len(state) for state in pipeline.partitions.values())
    result = Memory(
        users=present,
        source=source,
        mean_length=events / present,
        user_bytes=used / present,
        item_id_bytes=id_bytes / present,
    )
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), next(name for name in get_args(StateSource) if name == sys.argv[3]))
