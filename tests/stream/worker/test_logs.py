"""Logs: repeated messages of the Kafka client are dropped, and no other messages."""

import json
import logging

from aiokafka.errors import KafkaConnectionError

from clickscore.stream.errors import BrokerError
from clickscore.stream.worker.logs import (
    REPEAT_S,
    FaustFilter,
    FirstStartFilter,
    JsonFormatter,
    RepeatFilter,
    SafeFormatter,
    with_fields,
)


def record(message: str, created: float, name: str = "aiokafka.client") -> logging.LogRecord:
    result = logging.LogRecord(name, logging.ERROR, "client.py", 1, message, ("x",), None)
    result.created = created
    return result


def test_first_of_its_kind_is_written():
    assert RepeatFilter().filter(record("gone: %s", created=0.0))


def test_repeat_is_dropped():
    log = RepeatFilter()
    log.filter(record("gone: %s", created=100.0))
    assert not log.filter(record("gone: %s", created=100.1))


def test_other_message_is_written():
    log = RepeatFilter()
    log.filter(record("gone: %s", created=100.0))
    assert log.filter(record("back: %s", created=100.1))


def test_repeat_is_written_after_a_while_with_the_number_of_dropped_ones():
    log = RepeatFilter()
    for created in (100.0, 100.1, 100.2):
        log.filter(record("gone: %s", created=created))
    later = record("gone: %s", created=100.0 + REPEAT_S)
    assert log.filter(later)
    assert later.getMessage() == "gone: x (and 2 times since it was last said)"


def test_count_of_dropped_repeats_starts_again():
    log = RepeatFilter()
    for created in (0.0, 0.1, REPEAT_S):
        log.filter(record("gone: %s", created=created))
    later = record("gone: %s", created=2 * REPEAT_S)
    assert log.filter(later)
    assert later.getMessage() == "gone: x"


def test_our_own_repeats_are_written():
    log = RepeatFilter()
    log.filter(record("waiting", created=0.0, name="clickscore.stream.worker.publisher"))
    assert log.filter(record("waiting", created=0.1, name="clickscore.stream.worker.publisher"))


def test_id_in_a_message_commands_no_terminal():
    line = logging.LogRecord("app", logging.INFO, "app.py", 1, "event %s\nignored", ("\x1b]0;title\x07\u202e",), None)
    assert SafeFormatter("%(message)s").format(line) == "event \ufffd]0;title\ufffd\ufffd\nignored"


def faust_record(level: int, error: Exception | None = None) -> logging.LogRecord:
    info = (type(error), error, None) if error else None
    return logging.LogRecord("clickscore.stream.worker.app", level, "app.py", 1, "[^-App]: Starting...", (), info)


def test_what_faust_says_of_its_own_parts_is_dropped():
    assert not FaustFilter().filter(faust_record(logging.INFO))
    assert FaustFilter().filter(faust_record(logging.ERROR))
    assert FaustFilter().filter(record("partitions restored", created=0.0))


def test_traceback_of_an_error_that_the_last_line_explains_is_dropped():
    assert not FaustFilter().filter(faust_record(logging.ERROR, BrokerError("gone")))
    assert FaustFilter().filter(faust_record(logging.ERROR, ValueError("a bug")))


def test_crash_that_the_last_line_explains_is_dropped():
    crash = logging.LogRecord(
        "faust", logging.ERROR, "f.py", 1, "[^-App]: Crashed reason=%r", (BrokerError("x"),), None
    )
    assert not FaustFilter().filter(crash)


def test_client_that_fails_to_stop_without_a_broker_is_no_error():
    def stopping(error: Exception) -> logging.LogRecord:
        message = "[^-A]: Error while stopping child %r: %r"
        return logging.LogRecord("faust", logging.ERROR, "f.py", 1, message, ("consumer", error), None)

    assert not FaustFilter().filter(stopping(KafkaConnectionError("closed")))
    assert FaustFilter().filter(stopping(ValueError("a bug")))


def test_coordinator_that_a_fresh_broker_still_makes_is_no_error():
    missing = "Group Coordinator Request failed: [Error 15] GroupCoordinatorNotAvailableError"
    assert not FirstStartFilter().filter(record(missing + "%s", created=0.0))
    assert FirstStartFilter().filter(record("other: %s", created=0.0))


def test_line_in_json_has_the_fields_of_the_message_and_commands_no_terminal():
    line = record("user %s", created=0.5)
    line.args = ("\x1b]0;title\u202e",)
    vars(line).update(with_fields(decision_id="events-0-1", user="ab12", bundle=None))
    text = JsonFormatter().format(line)
    assert text.isprintable()
    assert json.loads(text) == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "error",
        "logger": line.name,
        "message": "user \x1b]0;title\u202e",
        "decision_id": "events-0-1",
        "user": "ab12",
    }


def test_traceback_is_a_field_of_a_line_in_json():
    error = BrokerError("gone")
    line = logging.LogRecord("app", logging.ERROR, "app.py", 1, "stops", (), (BrokerError, error, None))
    text = JsonFormatter().format(line)
    assert "\n" not in text
    assert "BrokerError: gone" in json.loads(text)["error"]
