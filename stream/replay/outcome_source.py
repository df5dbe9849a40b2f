"""Outcome source: read the records of `decision-outcomes` from the topic, or from files of JSON lines."""

import gzip
import sys
import zlib
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import msgspec
from aiokafka import TopicPartition

from clickscore.schemas.outcomes import DecisionOutcome, decode_outcome
from clickscore.stream.errors import InputFileError
from clickscore.stream.kafka.log_reader import OpenReader, read_promptly
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
    except (OSError, EOFError, zlib.error) as exc:
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


async def read_topic_outcomes(
    settings: KafkaSettings, open_log: OpenReader, topic: str, count: int
) -> AsyncGenerator[DecisionOutcome]:
    """Yield the outcomes of the topic, up to its present end; records of others are passed over.

    Args:
        settings: Address and patience.
        open_log: Opens a reader.
        topic: Name of the topic, with its prefix.
        count: Number of its partitions.

    Raises:
        BrokerError: Kafka fails, or has been silent for longer than `broker_wait_ms`.
    """
    async with open_log() as reader:
        partitions = [TopicPartition(topic, number) for number in range(count)]
        async for _, records in read_promptly(settings, reader, partitions):
            for record in records:
                try:
                    outcome = decode_outcome(record.value or b"")
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
                yield outcome
