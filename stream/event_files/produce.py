"""Produce: send the events of a file to a topic, in order for each user, without duplicates, fast or paced."""

import asyncio
import itertools
import time
from collections.abc import Callable

from clickscore.schemas.topics import EVENTS
from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.line_errors import LineErrors
from clickscore.stream.event_files.lines import Line
from clickscore.stream.kafka.producer import EventSender
from clickscore.stream.settings import KafkaSettings

EARLY_SECONDS = 0.005
"""A paced event may be sent 5 ms early: a sleep is not more precise."""

SAID_WAIT_SECONDS = 5.0
"""Waits above 5 s are announced: a shorter silence on a terminal needs no explanation."""

MAX_WAIT_SECONDS = 3600.0
"""Default limit of a wait, one hour: a night at the original speed is shortened, and a wrong date costs no days."""

Pace = Callable[[Line], float]
"""Returns when to send a line: seconds after the first line."""


class ProduceTally:
    """Numbers of lines read, sent and skipped. The numbers are current at any time, also after an interrupt."""

    def __init__(self, show: int = 5) -> None:
        """Start at zero.

        Args:
            show: Line numbers to keep for each reason why lines were skipped.
        """
        self.read = 0
        """Number of lines read."""
        self.sent = 0
        """Number of records with the broker's acknowledgement."""
        self.skipped = LineErrors(show)
        """Broken lines, by reason."""


async def produce(
    settings: KafkaSettings,
    file: EventFile,
    tally: ProduceTally,
    *,
    topic: str = EVENTS.name,
    pace: Pace | None = None,
    max_wait_s: float = MAX_WAIT_SECONDS,
    on_wait: Callable[[float, float], None] = lambda _needed, _waited: None,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Send the lines of a file. Broken lines are skipped and counted.

    Args:
        settings: Address of the broker, and the topic prefix.
        file: Open event file.
        tally: Counts to fill.
        topic: Name of the topic, without the prefix.
        pace: When to send each line; None sends as fast as possible.
        max_wait_s: Limit of a wait for the next line, in seconds; later lines follow that much earlier.
        on_wait: Called before a long wait, with the seconds that the pace asks for and the seconds of the wait.
        on_progress: Called every few thousand lines.

    Raises:
        InputFileError: The file cannot be read to the end, or all lines are broken.
        TopicMissingError: The topic does not exist.
        BrokerError: The broker cannot be reached, or did not acknowledge all records.
    """
    sender = EventSender(settings, topic)

    def progress() -> None:
        tally.sent = sender.sent
        on_progress()

    try:
        async with sender:
            started_at = time.monotonic()  # moved back by what long waits are cut
            chunks = file.chunks()
            # A thread reads the file, so that the event loop can send batches and receive acknowledgements meanwhile.
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                for line in chunk:
                    tally.read += 1
                    if line.error is not None:
                        tally.skipped.add(line.error, line.number)
                        continue
                    if pace and (wait_s := started_at + pace(line) - time.monotonic()) > EARLY_SECONDS:
                        await sender.flush()
                        progress()
                        cut_s = max(0.0, wait_s - max_wait_s)
                        started_at -= cut_s
                        if wait_s > SAID_WAIT_SECONDS:
                            on_wait(wait_s, wait_s - cut_s)
                        await asyncio.sleep(wait_s - cut_s)
                    await sender.add(line.value, line.key)
                if file.live:
                    await sender.flush()
                progress()
    finally:
        progress()
    if tally.skipped.total == tally.read:  # broken JSON is sent, and becomes dead letters: the command refuses it
        file.require_event()


def constant_rate(per_second: float) -> Pace:
    """Return a pace of a fixed number of events per second."""
    counter = itertools.count()
    return lambda _: next(counter) / per_second


def event_time_speed(factor: float) -> Pace:
    """Return a pace by event time: factor 1 keeps the original speed, 60 sends an hour of events in a minute.

    A line out of order is sent at once, and so is a line without a time.
    """
    first_ts: list[int] = []

    def pace(line: Line) -> float:
        if line.ts is None:
            return 0.0
        if not first_ts:
            first_ts.append(line.ts)
        return (line.ts - first_ts[0]) / 1000 / factor

    return pace
