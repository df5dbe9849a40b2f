"""Frail broker: an embedded Kafka that is killed, held and started again on the same port and data."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clickscore.stream.kafka.embedded import EmbeddedBroker


class FrailBroker:
    """A broker of this process's own, at one address through all its lives."""

    def __init__(self, data: Path) -> None:
        self._broker = EmbeddedBroker.start(data)
        self.data = self._broker.data

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients."""
        return self._broker.bootstrap_servers

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._broker.is_running()

    def kill(self) -> None:
        """Kill the broker, as a power failure would."""
        os.kill(self._broker.pid, signal.SIGKILL)
        self._broker.stop()

    def hold(self) -> None:
        """Stop the broker's process in the middle of its work."""
        os.kill(self._broker.pid, signal.SIGSTOP)

    def release(self) -> None:
        """Let a broker that is held go on."""
        os.kill(self._broker.pid, signal.SIGCONT)

    def start(self) -> None:
        """Start the broker again, with its data and its port."""
        self._broker = EmbeddedBroker.start(self.data, self._broker.port)

    def stop(self) -> None:
        """Stop the broker."""
        self._broker.stop()


@contextmanager
def frail_broker(data: Path) -> Iterator[FrailBroker]:
    """Yield a broker on a folder, and stop whatever of it runs at the end."""
    broker = FrailBroker(data)
    try:
        yield broker
    finally:
        broker.stop()
