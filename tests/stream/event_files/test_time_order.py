"""Time order: files that are not in order of time are sorted, and a row from another century spoils nothing."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickscore.schemas.field_types import YEAR_2000_MS
from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.lines import Line
from clickscore.stream.event_files.sort import sort_lines
from clickscore.stream.event_files.time_order import OrderedEventFile, ReadingPlan, plan_reading

START = 1_767_605_400_000
MINUTE = 60_000
YEAR_2099 = 4_070_908_800_000


def view(ts: int, user: str = "u") -> bytes:
    return b'{"type":"view","event_id":"%d","user_id":"%s","ts":%d,"item_id":"i"}' % (ts, user.encode(), ts)


def write(path: Path, times: list[int]) -> Path:
    path.write_bytes(b"\n".join(view(ts) for ts in times))
    return path


def read(path: Path, lateness_ms: int = 5 * MINUTE) -> tuple[ReadingPlan, list[Line]]:
    found, plan = plan_reading(path, "auto", lateness_ms)
    with OrderedEventFile(path, found, plan) as file:
        return plan, list(file)


def test_file_in_order_within_the_lateness_is_read_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [START, START + 5 * MINUTE, START, START + 6 * MINUTE])
    plan, lines = read(path)
    assert plan == ReadingPlan()
    with EventFile(path, "clickscore") as file:
        assert lines == list(file)


def test_file_in_order_of_users_is_sorted(tmp_path: Path) -> None:
    times = [START + minute * MINUTE for _ in range(3) for minute in range(0, 30, 10)]
    plan, lines = read(write(tmp_path / "a", times))
    assert plan.sorts
    assert [line.ts for line in lines] == sorted(times)
    assert [line.number for line in lines] == [1, 4, 7, 2, 5, 8, 3, 6, 9]


@pytest.mark.parametrize("position", [0, 15, 30])
@pytest.mark.parametrize("odd", [YEAR_2099, YEAR_2000_MS + 5])
def test_row_from_another_year_is_an_error_and_the_others_are_read(tmp_path: Path, position: int, odd: int) -> None:
    times = [START + number * MINUTE for number in range(30)]
    _, lines = read(write(tmp_path / "a", [*times[:position], odd, *times[position:]]))
    assert [line.ts for line in lines if line.error is None] == times
    (error,) = [line for line in lines if line.error]
    assert error.number == position + 1
    assert "a year or more" in str(error.error)


def test_two_periods_a_year_apart_are_no_mistake(tmp_path: Path) -> None:
    times = [START + number * MINUTE for number in range(20)]
    times += [ts + 500 * 24 * 60 * MINUTE for ts in times]
    plan, lines = read(write(tmp_path / "a", times))
    assert plan == ReadingPlan()
    assert all(line.error is None for line in lines)


def test_user_who_returns_after_half_a_year_is_no_mistake(tmp_path: Path) -> None:
    times = [START + number * MINUTE for number in range(20)] + [START + 180 * 24 * 60 * MINUTE]
    _, lines = read(write(tmp_path / "a", times))
    assert all(line.error is None for line in lines)


@given(
    st.lists(st.tuples(st.none() | st.integers(YEAR_2000_MS, YEAR_2000_MS + 50), st.binary(max_size=40)), max_size=80),
    st.integers(1, 2_000),
)
def test_sort_is_stable_and_does_not_depend_on_memory(rows: list[tuple[int | None, bytes]], memory_bytes: int) -> None:
    lines = [Line(number, value, ts=ts) for number, (ts, value) in enumerate(rows)]
    times: list[int] = []
    for line in lines:
        times.append(line.ts if line.ts is not None else times[-1] if times else -1)
    expected = [line for _, line in sorted(zip(times, lines, strict=True), key=lambda pair: pair[0])]
    assert [line for chunk in sort_lines([lines], memory_bytes) for line in chunk] == expected


def test_line_without_a_time_stays_in_its_place_whichever_lines_are_kept() -> None:
    lines = [
        Line(1, b"late", b"u", YEAR_2000_MS + 9),
        Line(2, b"early", b"v", YEAR_2000_MS),
        Line(3, b"no time", b"u"),
        Line(4, b"middle", b"u", YEAR_2000_MS + 5),
    ]
    kept = [line for chunk in sort_lines([lines], keeps=lambda line: line.key == b"u") for line in chunk]
    assert [line.value for line in kept] == [b"no time", b"middle", b"late"]


def test_sort_of_many_runs_is_right() -> None:
    chance = random.Random(5)
    lines = [Line(number, b"x" * 50, b"u", YEAR_2000_MS + chance.randrange(500)) for number in range(2_000)]
    read_lines = [line for chunk in sort_lines([lines], 2_000) for line in chunk]
    assert read_lines == sorted(lines, key=lambda line: line.ts or 0)


@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_reading_of_a_sorted_file_goes_on_where_it_stopped(tmp_path: Path, chunks: int) -> None:
    times = [START + number * MINUTE for number in range(3_000)]
    random.Random(5).shuffle(times)
    path = write(tmp_path / "a", times)
    _, plan = plan_reading(path, "auto", 0)
    with OrderedEventFile(path, "clickscore", plan) as file:
        reading = file.chunks()
        first = [line for _ in range(chunks) for line in next(reading)]
        position = file.position
    with OrderedEventFile(path, "clickscore", plan, position) as file:
        rest = list(file)
    assert [line.ts for line in first + rest] == sorted(times)


def test_file_without_an_event_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"{broken\n")
    with pytest.raises(InputFileError, match="line 1: JSON is malformed"):
        plan_reading(path, "auto", 0)
