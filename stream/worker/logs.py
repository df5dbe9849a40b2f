"""Logs: what a worker says on stderr, with a Kafka client that repeats itself cut short."""

import logging
import sys

REPEAT_SECONDS = 10.0
"""How often the Kafka client may say the same: while a broker is gone it has over a hundred lines a second to say."""


class CutShort(logging.Filter):
    """Lets a message of the Kafka client through once in a while, and then says how often it came meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be written."""
        if not record.name.startswith("aiokafka"):
            return True
        message = record.msg
        if record.created - self._said_at.get(message, -REPEAT_SECONDS) < REPEAT_SECONDS:
            self._held[message] = self._held.get(message, 0) + 1
            return False
        self._said_at[message] = record.created
        held = self._held.pop(message, 0)
        if held:
            record.msg = f"{message} (and {held} times since it was last said)"
        return True


def write_logs() -> None:
    """Write what we have to say, and what libraries warn of, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(CutShort())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.WARNING)
