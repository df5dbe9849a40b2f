"""Logs: messages of a worker on stderr, with repeats of the Kafka client cut short."""

import logging
import sys
from datetime import UTC, datetime

import orjson
import xxhash
from aiokafka.errors import KafkaError

from clickscore.schemas.errors import ClickscoreError
from clickscore.stream.terminal_text import safe_json, safe_text

REPEAT_S = 10.0
"""Time between two equal messages of the Kafka client, s: a lost broker means over a hundred lines a second."""


class RepeatFilter(logging.Filter):
    """Passes each message of the Kafka client once in a while, with the number of repeats dropped since then."""

    def __init__(self) -> None:
        super().__init__()
        self._written_at: dict[str, float] = {}
        self._dropped: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record; add the number of dropped repeats to the message."""
        if not record.name.startswith("aiokafka"):
            return True
        message = record.msg
        if record.created - self._written_at.get(message, -REPEAT_S) < REPEAT_S:
            self._dropped[message] = self._dropped.get(message, 0) + 1
            return False
        self._written_at[message] = record.created
        repeats = self._dropped.pop(message, 0)
        if repeats:
            record.msg = f"{message} (and {repeats} times since it was last said)"
        return True


class FaustFilter(logging.Filter):
    """Drops what Faust says of its own parts, and tracebacks of errors that the worker's last line explains."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record. Faust puts the name of a part before its messages: `[^-App]: `."""
        if not str(record.msg).startswith("[^"):
            return True
        details = (*(record.exc_info or ()), *(record.args if isinstance(record.args, tuple) else ()))
        is_explained = any(isinstance(detail, ClickscoreError) for detail in details)
        # A client whose connection has closed may fail to stop: that is the end that was wanted.
        is_explained |= "Error while stopping" in record.msg and any(
            isinstance(detail, KafkaError) for detail in details
        )
        return record.levelno >= logging.WARNING and not is_explained and "Reraising original" not in record.msg


class FirstStartFilter(logging.Filter):
    """Drops the error of the Kafka client while a fresh broker makes the topic of group coordinators."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record. The client asks again until a coordinator answers."""
        return "GroupCoordinatorNotAvailableError" not in record.getMessage() or not record.name.startswith("aiokafka")


class SafeFormatter(logging.Formatter):
    """Formats records as safe text: an id from outside must not command the terminal that shows the log."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record in one line, and a traceback in further lines."""
        return safe_text(super().format(record), lines=True)


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object in one line, with the fields of `with_fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object; a traceback is in its field `error`."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return safe_json(orjson.dumps(line, default=str))


FIELDS = "clickscore_fields"
"""Attribute of a log record with the values of its message by name."""


def with_fields(**values: object) -> dict[str, dict[str, object]]:
    """Return the argument `extra` of a log call: values by name, for logs in JSON; empty values are left out."""
    return {FIELDS: {name: value for name, value in values.items() if value not in ("", None)}}


def user_hash(user_id: bytes) -> str:
    """Return a name of a user for logs and errors, which must not contain user ids: 64 bits of a hash, in hex."""
    return xxhash.xxh3_64_hexdigest(user_id)


def write_logs(log_format: str = "text") -> None:
    """Write the worker's messages, and the warnings of libraries, to stderr, as `text` or as `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if log_format == "json" else SafeFormatter("%(asctime)s %(levelname)s %(message)s")
    )
    for log_filter in (FaustFilter(), FirstStartFilter(), RepeatFilter()):
        handler.addFilter(log_filter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.WARNING)
