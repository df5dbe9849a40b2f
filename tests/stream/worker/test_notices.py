"""Notices: what a worker says of wrong clocks and of users in foreign partitions."""

import logging

import pytest

from clickscore.schemas.topics import EVENTS
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.pipeline_records import Message, Output, WatermarkJump
from clickscore.stream.worker.notices import CHECKED_USERS, NOTICE_S, Notices
from tests.stream.worker.stage import Clock, Stage

USERS = [f"user-{number}".encode() for number in range(400)]
FOREIGN = [user for user in USERS if partition_of(user, 4) != 0]
OWN = [user for user in USERS if partition_of(user, 4) == 0]


class NoticeStage(Stage):
    """A stage with notices about a topic of four partitions."""

    def __init__(self, partitions: int | None = 4) -> None:
        super().__init__()
        self.group.partitions = partitions
        self.monotonic = Clock(0.0)
        self.notices = Notices(EVENTS.name, self.group, self.metrics, self.monotonic)

    def note(self, *users: bytes, jumps: int = 0) -> None:
        jump = WatermarkJump(7, "early\n", "ann", 90 * 60_000, 5_400_000)
        self.notices.note(0, Output(recommendations=[Message(user, b"") for user in users], jumps=[jump] * jumps))

    @property
    def foreign(self) -> float | None:
        return self.metric("clickscore_foreign_partition_total")


def test_foreign_users_are_counted_once(caplog: pytest.LogCaptureFixture):
    stage = NoticeStage()
    stage.note(*OWN[:9], *FOREIGN[:3], FOREIGN[0])
    stage.note(FOREIGN[0])
    assert stage.foreign == 3
    (line,) = caplog.messages
    assert "clickstream-events-0: the user with the hash" in line
    assert FOREIGN[0].decode() not in line


def test_users_of_the_partition_are_no_notice(caplog: pytest.LogCaptureFixture):
    stage = NoticeStage()
    stage.note(*OWN)
    assert (stage.foreign, caplog.messages) == (0, [])


def test_nothing_is_checked_while_the_number_of_partitions_is_unknown():
    stage = NoticeStage(None)
    stage.note(*FOREIGN)
    assert stage.foreign == 0


def test_checks_of_a_batch_are_bounded():
    stage = NoticeStage()
    stage.note(*FOREIGN)
    assert stage.foreign == CHECKED_USERS


def test_jump_is_named_without_the_user_id(caplog: pytest.LogCaptureFixture):
    stage = NoticeStage()
    stage.note(jumps=1)
    (line,) = caplog.messages
    assert line.startswith("clickstream-events-0, offset 7: event 'early\\n' of the user with the hash ")
    assert "moves the newest event time by 90 minutes, 5,400,000 ms after its append time" in line
    assert "ann" not in line


def test_lines_of_a_kind_are_a_minute_apart_and_count_the_dropped_ones(caplog: pytest.LogCaptureFixture):
    stage = NoticeStage()
    stage.note(jumps=3)
    stage.monotonic.now = NOTICE_S
    stage.note(jumps=1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert caplog.messages[1].endswith("(and 2 more jumps since the last line)")
