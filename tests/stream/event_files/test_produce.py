from clickscore.stream.event_files.formats import Line
from clickscore.stream.event_files.produce import at_rate, at_speed


def test_rate_spaces_events_evenly() -> None:
    pace = at_rate(4)
    assert [pace(Line(number)) for number in range(1, 4)] == [0, 0.25, 0.5]


def test_speed_follows_event_time() -> None:
    pace = at_speed(60)
    assert [pace(Line(1, ts=ts)) for ts in (1_000_000, 1_060_000, 1_030_000, 1_120_000)] == [0, 1, 0.5, 2]


def test_line_without_a_time_is_due_at_once() -> None:
    assert at_speed(1)(Line(1)) == 0
