"""Outcome source: read the records of `decision-outcomes` from the topic, or from files of JSON lines."""

import gzip
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import msgspec
from aiokafka import TopicPartition

from clickscore.schemas.outcomes import DecisionOutcome, decode_outcome
from clickscore.schemas.topics import DECISION_OUTCOMES
from clickscore.stream.errors import InputFileError, TopicMissingError
from clickscore.stream.kafka.log_reader import OpenReader, read_to_end
from clickscore.stream.kafka.topics import list_topics
from clickscore.stream.settings import KafkaSettings

STANDARD_INPUT = "-"


def read_file_outcomes(path: Path) -> Iterator[DecisionOutcome]:
    """Yield the outcomes in a file.

    Args:
        path: File of JSON lines, gzip for `.gz`; `-` is standard input.

    Raises:
        InputFileError: The file cannot be read, or a line is no outcome.
    """
    try:
        if str(path) == STANDARD_INPUT:
            yield from _decode_lines(path, sys.stdin.buffer)
            return
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            yield from _decode_lines(path, stream)
    except (OSError, EOFError) as exc:
        message = f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}"
        raise InputFileError(message) from exc


def _decode_lines(path: Path, lines: Iterator[bytes]) -> Iterator[DecisionOutcome]:
    """Yield the outcome of each line.

    Args:
        path: File of the lines, for the error.
        lines: The lines.

    Raises:
        InputFileError: A line is no outcome.
    """
    for number, line in enumerate(lines, start=1):
        try:
            yield decode_outcome(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            message = f"{path}, line {number} is no record of decision-outcomes: {exc}"
            raise InputFileError(message) from exc


async def read_topic_outcomes(settings: KafkaSettings, open_log: OpenReader) -> AsyncGenerator[DecisionOutcome]:
    """Yield the outcomes of the topic, up to its present end; records of others are passed over.

    Args:
        settings: Connection, and names of topics.
        open_log: Opens a reader.

    Raises:
        TopicMissingError: The topic does not exist.
        BrokerError: Kafka cannot be reached.
    """
    topic = settings.topic(DECISION_OUTCOMES.name)
    count = (await list_topics(settings, {topic: {"read"}})).get(topic)
    if count is None:
        message = f"topic {topic} is missing: create it with `clickscore topics create`"
        raise TopicMissingError(message)
    async with open_log() as reader:
        partitions = [TopicPartition(topic, number) for number in range(count)]
        async for _, records in read_to_end(reader, partitions):
            for record in records:
                try:
                    outcome = decode_outcome(record.value or b"")
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
                yield outcome
