"""Reference log: the records of catalogue and campaigns that a replay needs, and the first epoch of each partition."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from clickscore.schemas.events import Epoch
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue_history import CatalogueHistory, Offsets, offsets_of
from clickscore.stream.reference.epoch_schedule import EpochSchedule, EpochTime
from clickscore.stream.state.partition import PartitionState


class ReferenceRecord(NamedTuple):
    """A record of catalogue or campaigns."""

    topic: str
    """Name of the topic without the prefix."""
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = -1
    """Append time, ms; negative where unknown."""


class ReferenceLog(msgspec.Struct, frozen=True, kw_only=True):
    """Records of catalogue and campaigns in the order of each topic, and the epochs in which a replay begins."""

    records: list[ReferenceRecord] = []
    catalogue: int = 0
    """Offset after the last record of the catalogue."""
    campaigns: int = 0
    """Offset after the last record of the campaigns."""
    epochs: dict[int, Epoch] = {}
    """Epoch of the first replayed record, by partition; absent where the log has no epoch."""
    times: list[EpochTime] = []
    """Epochs by event time, for records from files; empty where the log of events has epochs."""
    gaps: str | None = None
    """What the topics no longer hold, in words; None for a complete log."""

    @property
    def end(self) -> Offsets:
        """Offsets after the last records."""
        return Offsets(self.catalogue, self.campaigns)

    def first_epoch(self, partition: int) -> Epoch:
        """Return the epoch in which the replay of a partition begins; the newest data where the log has no epoch."""
        if self.times:
            return Epoch(number=0, catalogue=0, campaigns=0)
        return self.epochs.get(partition) or Epoch(number=0, catalogue=self.catalogue, campaigns=self.campaigns)


def start_pipeline(
    pipeline: Pipeline, log: ReferenceLog, partitions: Iterable[int], states: Mapping[int, PartitionState]
) -> None:
    """Give a pipeline the reference data and the epoch of each partition.

    Args:
        pipeline: A pipeline without partitions.
        log: Records and first epochs.
        partitions: Partitions that the pipeline will replay.
        states: States of an interrupted replay.
    """
    if not log.records and not log.epochs:
        pipeline.load(states)
        return
    first = {partition: log.first_epoch(partition) for partition in partitions if partition not in states}
    in_use = [*first.values(), *(state.epoch for state in states.values() if state.epoch is not None)]
    pipeline.follow_schedule(EpochSchedule(log.times) if log.times else None)
    pipeline.replace_history(build_history(log, map(offsets_of, in_use)))
    pipeline.load(states)
    for partition, epoch in first.items():
        pipeline.begin_epoch(partition, epoch)


def build_history(log: ReferenceLog, in_use: Iterable[Offsets]) -> CatalogueHistory:
    """Return the history of a log; a record that cannot be read is ignored, as in a worker.

    Args:
        log: The records.
        in_use: Offsets of the epochs in which partitions begin.
    """
    history = CatalogueHistory()
    for record in log.records:
        history.add(record.topic, record.offset, record.key, record.value)
    history.move_to(CATALOGUE.name, log.catalogue)
    history.move_to(CAMPAIGNS.name, log.campaigns)
    oldest = [min(offsets) for offsets in zip(*in_use, strict=True)]
    history.forget_before(Offsets(*oldest) if oldest else log.end)
    return history
