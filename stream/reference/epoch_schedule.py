"""Epoch schedule: the epochs of a replay of files, where changes of catalogue and campaigns have times, not offsets."""

import operator
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from clickscore.schemas.events import Epoch

NEVER_MS = 2**63 - 1
"""Event time that no event reaches, ms."""


class EpochTime(NamedTuple):
    """From an event time on, the records before these offsets are in effect."""

    ts: int
    """Event time, ms."""
    catalogue: int
    campaigns: int


class EpochSchedule:
    """Epochs by event time. A partition enters an epoch with the record that moves its newest event time that far."""

    def __init__(self, times: Sequence[EpochTime]) -> None:
        """Build the schedule.

        Args:
            times: Epochs in order of time; later epochs have larger offsets.
        """
        self._times = times

    def next_ts(self, epoch: Epoch | None) -> int:
        """Return the event time of the epoch after an epoch, ms; `NEVER_MS` after the last."""
        records = epoch.catalogue + epoch.campaigns if epoch is not None else 0
        index = bisect_right(self._times, records, key=lambda time: time.catalogue + time.campaigns)
        return self._times[index].ts if index < len(self._times) else NEVER_MS

    def epoch(self, ts: int, present: Epoch | None) -> Epoch:
        """Return the epoch of an event time.

        Args:
            ts: Event time, ms; not before the first epoch.
            present: Epoch before.
        """
        time = self._times[bisect_right(self._times, ts, key=operator.itemgetter(0)) - 1]
        number = present.number + 1 if present is not None else 1
        if present is None:
            return Epoch(number=number, catalogue=time.catalogue, campaigns=time.campaigns)
        return msgspec.structs.replace(present, number=number, catalogue=time.catalogue, campaigns=time.campaigns)
