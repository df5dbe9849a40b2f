"""Rollout log: read the rollouts from their compacted topic, follow it, and write changes."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from clickscore.schemas.outcome_counts import PartitionReport, decode_report
from clickscore.schemas.retraining import LEASE_SUFFIX, RetrainingLease, decode_lease, encode_lease, follows
from clickscore.schemas.rollouts import Rollout, decode_rollout, encode_rollout
from clickscore.schemas.topics import ROLLOUTS
from clickscore.stream.errors import BrokerError, RolloutError, TopicMissingError
from clickscore.stream.kafka.log_reader import OpenReader, fetch_or_nothing, open_reader, read_to_end
from clickscore.stream.kafka.producer import EventSender
from clickscore.stream.kafka.topics import list_topics
from clickscore.stream.settings import KafkaSettings

log = logging.getLogger(__name__)

_REPORT_KEY = re.compile(r".+/\d+")


class RolloutTable:
    """The newest record of each rollout, and of each partition's report on it."""

    def __init__(self) -> None:
        self._rollouts: dict[str, Rollout] = {}
        self._reports: dict[str, PartitionReport] = {}
        self._leases: dict[str, RetrainingLease] = {}

    @property
    def rollouts(self) -> Mapping[str, Rollout]:
        """Rollouts by name."""
        return self._rollouts

    def reports(self, rollout: Rollout) -> dict[int, PartitionReport]:
        """Return the report of each partition on the present state of a rollout."""
        return {
            int(key.rpartition("/")[2]): report
            for key, report in self._reports.items()
            if key.startswith(f"{rollout.name}/") and report.changed_at == rollout.changed_at
        }

    def lease(self, rollout: str) -> RetrainingLease | None:
        """Return the newest lease on the retraining of a rollout, which may have ended; None without any."""
        return self._leases.get(rollout)

    def add(self, key: bytes | None, value: bytes | None) -> str | None:
        """Take the next record; an empty value ends a rollout, like a tombstone.

        Args:
            key: Name of the rollout, `NAME/PARTITION` for a report, or `NAME/retraining` for a lease.
            value: The rollout, the report or the lease as JSON.

        Returns:
            The reason why the record is ignored; None if the record counts.
        """
        try:
            name = (key or b"").decode()
            if _REPORT_KEY.fullmatch(name):
                self._reports[name] = decode_report(value or b"")
                return None
            if name.endswith(LEASE_SUFFIX):
                rollout_name = name.removesuffix(LEASE_SUFFIX)
                self._leases[rollout_name] = follows(self._leases.get(rollout_name), decode_lease(value or b""))
                return None
            if not value:
                self._rollouts.pop(name, None)
                return None
            rollout = decode_rollout(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return str(exc)
        if rollout.name != name:
            return f"the key is {name!r}, and the value names the rollout {rollout.name!r}"
        self._rollouts[name] = rollout
        return None


class RolloutLog:
    """Reads the topic into a table, and follows it."""

    def __init__(self, settings: KafkaSettings, open_reader: OpenReader) -> None:
        """Read nothing yet.

        Args:
            settings: Names of topics.
            open_reader: Opens a reader of the topics.
        """
        self.table = RolloutTable()
        self._open_reader = open_reader
        self._partition = TopicPartition(settings.topic(ROLLOUTS.name), 0)
        self._position = 0

    async def load(self) -> None:
        """Read the topic up to its present end."""
        async with self._open_reader() as reader:
            async for _, records in read_to_end(reader, [self._partition]):
                for record in records:
                    self._add(record.offset, record.key, record.value)
            self._position = await reader.position(self._partition)

    async def follow(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Read the later records until cancelled.

        Args:
            on_change: Called after each fetch with records.

        Raises:
            KafkaError: The right to read was taken away.
        """
        async with self._open_reader() as reader:
            reader.assign([self._partition])
            reader.seek(self._partition, self._position)
            while True:
                fetched = await fetch_or_nothing(reader, "rollouts")
                records = fetched.get(self._partition, ())
                for record in records:
                    self._add(record.offset, record.key, record.value)
                if records:
                    await on_change()

    def _add(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        error = self.table.add(key, value)
        if error:
            log.warning("%s, offset %d: ignored: %s", self._partition.topic, offset, error)


async def read_rollouts(settings: KafkaSettings) -> RolloutTable:
    """Return the rollouts.

    Raises:
        TopicMissingError: The topic is missing.
        BrokerError: The broker cannot be reached.
    """
    topic = settings.topic(ROLLOUTS.name)
    if topic not in await list_topics(settings, {topic: {"read"}}):
        message = f"topic {topic} is missing. Make it with `clickscore topics create`"
        raise TopicMissingError(message)
    rollout_log = RolloutLog(settings, lambda: open_reader(settings))
    try:
        await rollout_log.load()
    except KafkaError as exc:
        message = f"Kafka at {settings.bootstrap_servers}: {str(exc) or type(exc).__name__}"
        raise BrokerError(message) from exc
    return rollout_log.table


async def write_rollout(settings: KafkaSettings, rollout: Rollout) -> None:
    """Write a rollout, and return once Kafka has stored it.

    Raises:
        RolloutError: No worker could read the record.
        TopicMissingError: The topic is missing.
        BrokerError: The broker cannot be reached, or did not store the record.
    """
    value = encode_rollout(rollout)
    try:
        decode_rollout(value)
    except msgspec.DecodeError as exc:
        message = f"this rollout was not written, because no worker could read it: {exc}"
        raise RolloutError(message) from exc
    async with EventSender(settings, ROLLOUTS.name) as sender:
        await sender.add(value, rollout.name.encode(), partition=0)


async def write_lease(settings: KafkaSettings, rollout: str, lease: RetrainingLease) -> None:
    """Write a lease on the retraining of a rollout, and return once Kafka has stored it.

    Args:
        settings: Connection, and names of topics.
        rollout: Name of the rollout.
        lease: The lease.

    Raises:
        TopicMissingError: The topic is missing.
        BrokerError: The broker cannot be reached, or did not store the record.
    """
    async with EventSender(settings, ROLLOUTS.name) as sender:
        await sender.add(encode_lease(lease), f"{rollout}{LEASE_SUFFIX}".encode(), partition=0)
