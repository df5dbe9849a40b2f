"""Topic ranges: the methods of a resolved range, without a broker."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest

from clickscore.stream.errors import SettingsError
from clickscore.stream.replay.file_source import FileRecord
from clickscore.stream.replay.source import OffsetPosition, OffsetRange
from clickscore.stream.replay.topic_source import Bound, TopicRangeSpec, _parse_bound
from clickscore.stream.settings import KafkaSettings, Settings

SETTINGS = KafkaSettings(topic_prefix="shop-")


def spec(*ranges: tuple[int, int, int]) -> TopicRangeSpec:
    """Return a range of these partitions, each by the first offset to read, the first to replay, and the end."""
    return TopicRangeSpec(
        topic="shop-clickstream-events",
        begin="5",
        end="latest",
        warm_up="earliest",
        ranges={p: OffsetRange(begin, end, warm_up, 0) for p, (warm_up, begin, end) in enumerate(ranges)},
    )


def records(*offsets: int) -> list[FileRecord]:
    return [FileRecord(offset, 1, b"ann", b"{}") for offset in offsets]


def test_name_of_a_topic_has_its_prefix_already() -> None:
    assert spec((0, 5, 9)).topic_name(SETTINGS) == "shop-clickstream-events"


def test_partition_read_from_the_middle_of_its_log_is_cold() -> None:
    assert spec((0, 5, 9), (3, 5, 9), (9, 9, 9)).cold_partitions == {1: 3}


def test_records_before_the_range_only_warm_up() -> None:
    warm_up, replayed = spec((0, 5, 9), (0, 2, 9)).split_warm_up([(0, records(3, 4, 5, 6)), (1, records(2, 3))])
    assert warm_up == [(0, records(3, 4))]
    assert replayed == [(0, records(5, 6)), (1, records(2, 3))]


def test_batch_without_records_is_replayed() -> None:
    assert spec((0, 5, 9)).split_warm_up([(0, [])]) == ([], [(0, [])])


def test_range_is_read_from_its_warm_up_or_from_an_earlier_position() -> None:
    range_spec = spec((1, 5, 9), (2, 5, 9))
    begun = range_spec.open(Settings(), [0, 1], None)
    resumed = range_spec.open(Settings(), [0, 1], OffsetPosition({0: 7, 1: 9}))
    assert (begun.position, begun.total, begun.completed) == (OffsetPosition({0: 1, 1: 2}), 15, 0)
    assert (resumed.position, resumed.total) == (OffsetPosition({0: 7, 1: 9}), 2)


class BrokerlessConsumer:
    """A consumer that has lost its broker: as aiokafka's, it cancels its own stop."""

    async def stop(self) -> None:
        raise asyncio.CancelledError


def test_reading_without_a_broker_ends_without_a_cancellation() -> None:
    source = spec((1, 5, 9)).open(Settings(), [0], None)
    source._consumer = BrokerlessConsumer()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    source.__exit__()


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("12", 12),
        ("1767605400000", datetime(2026, 1, 5, 9, 30, tzinfo=UTC)),
        ("2026-03-01T08:00", datetime(2026, 3, 1, 8, tzinfo=UTC)),
        ("2026-03-01T08:00+01:00", datetime(2026, 3, 1, 8, tzinfo=timezone(timedelta(hours=1)))),
    ],
)
def test_bound_is_an_offset_a_time_or_an_end_of_the_log(text: str, bound: Bound) -> None:
    assert _parse_bound(text) == bound


@pytest.mark.parametrize("text", ["", "noon", "-5", "1.5", "²"])
def test_other_bounds_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is not an offset, not a time like"):
        _parse_bound(text)
