"""Logs: a Kafka client that repeats itself is cut short, and nobody else is."""

import logging

from clickscore.stream.worker.logs import REPEAT_SECONDS, CutShort


def record(message: str, at: float, name: str = "aiokafka.client") -> logging.LogRecord:
    made = logging.LogRecord(name, logging.ERROR, "client.py", 1, message, ("x",), None)
    made.created = at
    return made


def test_first_of_its_kind_is_written():
    assert CutShort().filter(record("gone: %s", at=0.0))


def test_repeat_is_held_back():
    log = CutShort()
    log.filter(record("gone: %s", at=100.0))
    assert not log.filter(record("gone: %s", at=100.1))


def test_other_message_is_written():
    log = CutShort()
    log.filter(record("gone: %s", at=100.0))
    assert log.filter(record("back: %s", at=100.1))


def test_repeat_is_written_after_a_while_and_says_how_many_were_held_back():
    log = CutShort()
    for at in (100.0, 100.1, 100.2):
        log.filter(record("gone: %s", at=at))
    late = record("gone: %s", at=100.0 + REPEAT_SECONDS)
    assert log.filter(late)
    assert late.getMessage() == "gone: x (and 2 times since it was last said)"


def test_count_of_those_held_back_begins_anew():
    log = CutShort()
    for at in (0.0, 0.1, REPEAT_SECONDS):
        log.filter(record("gone: %s", at=at))
    late = record("gone: %s", at=2 * REPEAT_SECONDS)
    assert log.filter(late)
    assert late.getMessage() == "gone: x"


def test_our_own_repeats_are_written():
    log = CutShort()
    log.filter(record("waiting", at=0.0, name="clickscore.stream.publisher"))
    assert log.filter(record("waiting", at=0.1, name="clickscore.stream.publisher"))
