"""Epochs: write a record into each partition that says which reference data, bundle and settings later events get."""

import asyncio
import logging
from collections.abc import Callable, Iterable

import msgspec
from aiokafka.errors import KafkaError

from clickscore.schemas.events import Epoch
from clickscore.schemas.manifest import version_of
from clickscore.schemas.rollouts import EpochRollout
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.worker.group import ConsumerGroup
from clickscore.stream.worker.prometheus_metrics import Metrics
from clickscore.stream.worker.reference import ReferenceData
from clickscore.stream.worker.rollouts import RolloutKeeper

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""Time until a record that Kafka refused is tried again, s."""


class EpochWriter:
    """Writes an epoch into each partition whose epoch differs from what this worker knows.

    At most a single unread record of this worker is in a partition. So a partition that lags gets few epochs, and the
    history of the catalogue stays small.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        group: ConsumerGroup,
        reference: ReferenceData,
        *,
        topic: str,
        settings_hash: str,
        gather_ms: int,
        clock: Callable[[], float],
        metrics: Metrics,
        rollouts: RolloutKeeper | None = None,
    ) -> None:
        """Build the writer.

        Args:
            pipeline: Knows each partition's epoch and the bundle.
            group: Has the producer.
            reference: Knows how far the reference data is read.
            topic: Full name of the topic of events.
            settings_hash: Hash of the settings that decide the output.
            gather_ms: Time between two looks for partitions that need an epoch, ms: changes are gathered meanwhile.
            clock: Returns the wall-clock time, s.
            metrics: Counts written and refused epochs.
            rollouts: Knows which bundles decide; None for a worker without a bundle store.
        """
        self._pipeline = pipeline
        self._group = group
        self._reference = reference
        self._topic = topic
        self._settings_hash = settings_hash
        self._gather_s = gather_ms / 1000
        self._clock = clock
        self._metrics = metrics
        self._rollouts = rollouts
        self._partitions: list[int] = []
        self._written: dict[int, int] = {}  # number of the last record in each partition
        self._retry_at: dict[int, float] = {}

    def assign(self, partitions: Iterable[int]) -> None:
        """Write into exactly these partitions."""
        self._partitions = list(partitions)
        self._written, self._retry_at = {}, {}

    def present(self, number: int, epoch: Epoch | None = None) -> Epoch:
        """Return an epoch with all that this worker knows.

        Args:
            number: Number of the epoch in its partition.
            epoch: Epoch of the partition before, if any.
        """
        catalogue, campaigns = self._reference.position
        rollout = epoch.rollout if epoch is not None else msgspec.UNSET
        rollout = self._rollouts.choose(rollout) if self._rollouts is not None else msgspec.UNSET
        return Epoch(
            number=number,
            catalogue=catalogue,
            campaigns=campaigns,
            bundle=version_of(rollout.champion) if isinstance(rollout, EpochRollout) else self._pipeline.bundle,
            policy=(rollout.policy if isinstance(rollout, EpochRollout) else None) or self._pipeline.policy,
            settings=self._settings_hash,
            rollout=rollout,
        )

    async def run(self) -> None:
        """Write due epochs until cancelled."""
        while True:
            await self.write_due()
            await asyncio.sleep(self._gather_s)

    async def write_due(self) -> None:
        """Write an epoch into each partition that needs one."""
        due = [(partition, epoch) for partition in self._partitions if (epoch := self._due(partition)) is not None]
        await asyncio.gather(*(self._write(partition, epoch) for partition, epoch in due))

    def _due(self, partition: int) -> Epoch | None:
        """Return the epoch to write into a partition, if any."""
        state = self._pipeline.partitions.get(partition)
        if state is None or state.epoch is None or self._clock() < self._retry_at.get(partition, 0):
            return None
        epoch, number = state.epoch, state.epoch.number + 1
        if self._written.get(partition, 0) >= number:
            return None  # this worker's own record has not been read yet
        if not epoch.number:  # the log must say in which epoch its first events were decided
            return msgspec.structs.replace(epoch, number=number)
        present = self.present(number, epoch)
        if present == msgspec.structs.replace(epoch, number=number):
            return None
        is_behind = present.catalogue < epoch.catalogue or present.campaigns < epoch.campaigns
        return None if is_behind and not self._reference.may_go_back else present

    async def _write(self, partition: int, epoch: Epoch) -> None:
        """Write an epoch; a record that Kafka refuses is counted and tried again later."""
        self._written[partition] = epoch.number
        try:
            await self._group.producer.publish(self._topic, partition, [(None, msgspec.json.encode(epoch), [])])
        except (KafkaError, ValueError) as exc:
            del self._written[partition]
            self._retry_at[partition] = self._clock() + RETRY_S
            self._metrics.failed_epochs.inc()
            log.warning(
                "no epoch can be written into %s-%d, so its decisions go on with the catalogue of the last epoch: %s",
                self._topic,
                partition,
                str(exc) or type(exc).__name__,
            )
        else:
            self._metrics.epochs.inc()
