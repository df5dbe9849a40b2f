from clickscore.stream.event_files.lines import Line
from clickscore.stream.event_files.produce import constant_rate, event_time_speed


def test_rate_spaces_events_evenly() -> None:
    pace = constant_rate(4)
    assert [pace(Line(number)) for number in range(1, 4)] == [0, 0.25, 0.5]


def test_speed_follows_event_time() -> None:
    pace = event_time_speed(60)
    assert [pace(Line(1, ts=ts)) for ts in (1_000_000, 1_060_000, 1_030_000, 1_120_000)] == [0, 1, 0.5, 2]


def test_line_without_a_time_is_due_at_once() -> None:
    assert event_time_speed(1)(Line(1)) == 0
