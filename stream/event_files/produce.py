"""Produce: put a file's events on a topic, fast, in order for every user, none twice."""

import asyncio
import itertools
import time
from collections.abc import Callable

from clickscore.schemas.topics import EVENTS
from clickscore.stream.event_files.formats import Line
from clickscore.stream.event_files.line_errors import Faults
from clickscore.stream.event_files.reader import EventFile
from clickscore.stream.kafka.producer import EventSender
from clickscore.stream.settings import Settings

AHEAD_SECONDS = 0.005
"""How far ahead of its time an event may be sent, when sending is paced: a sleep is not finer."""


class Tally:
    """How far producing has come, and what was skipped. Filled while it goes on, so that an interruption has it too."""

    def __init__(self, show: int = 5) -> None:
        self.read = 0
        """Lines read."""
        self.sent = 0
        """Records that the broker has acknowledged."""
        self.skipped = Faults(show)


async def produce(
    settings: Settings,
    file: EventFile,
    tally: Tally,
    *,
    topic: str = EVENTS.name,
    pace: Callable[[Line], float] | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Send a file's lines, and fill `tally`. Lines that are no records are skipped and counted.

    Args:
        settings: Where the broker is.
        file: What to send.
        tally: Is filled.
        topic: Where to, without the prefix.
        pace: Seconds after the first line at which a line is due; none for as fast as it goes.
        on_progress: Is called every few thousand lines.

    Raises:
        InputFileError: The file cannot be read on.
        TopicMissingError: The topic is not there.
        BrokerError: The broker cannot be reached, or did not take what was sent.
    """
    sender = EventSender(settings, topic)

    def progress() -> None:
        tally.sent = sender.sent
        on_progress()

    try:
        async with sender:
            began = time.monotonic()
            chunks = file.chunks()
            # Read in a thread, so that batches leave and acks arrive meanwhile.
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                for line in chunk:
                    tally.read += 1
                    if line.error is not None:
                        tally.skipped.add(line.error, line.number)
                        continue
                    if pace and (ahead := began + pace(line) - time.monotonic()) > AHEAD_SECONDS:
                        await sender.flush()
                        progress()
                        await asyncio.sleep(ahead)
                    await sender.add(line.value, line.key)
                if file.live:
                    await sender.flush()
                progress()
    finally:
        progress()


def at_rate(per_second: float) -> Callable[[Line], float]:
    """Return a pace of so many events a second."""
    sent = itertools.count()
    return lambda _: next(sent) / per_second


def at_speed(factor: float) -> Callable[[Line], float]:
    """Return a pace by event time: 1 as it happened, 60 an hour in a minute. Lines out of order are due at once."""
    first: list[int] = []

    def due(line: Line) -> float:
        if line.ts is None:
            return 0.0
        if not first:
            first.append(line.ts)
        return (line.ts - first[0]) / 1000 / factor

    return due
