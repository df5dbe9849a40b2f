import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickscore.schemas.events import Cart, Favourite, Purchase, RemoveFromCart, View, decode_record
from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.event_reader import MAX_LINE_BYTES, EventFile
from clickscore.stream.event_files.formats.rees46 import REES46, rees46_event
from clickscore.stream.event_files.formats.registry import Format
from clickscore.stream.event_files.formats.rows import row_event_id
from clickscore.stream.event_files.formats.taobao import taobao_event
from clickscore.stream.event_files.line_errors import MAX_REASONS, LineErrors
from clickscore.stream.event_files.lines import Line

DATA = Path(__file__).parents[3].parent / "shared" / "data"
HEADER = ",".join(REES46.columns)
REES46_ROW = "2019-10-01 00:00:03 UTC,purchase,1004856,20530,electronics.smartphone,samsung,130.76,543272936,8187d148"


def lines_of(path: Path, content: bytes, file_format: Format = "clickscore") -> list[Line]:
    path.write_bytes(content)
    with EventFile(path, file_format) as file:
        return list(file)


def rees46_row(**changes: str) -> list[str]:
    return list((dict(zip(REES46.columns, REES46_ROW.split(","), strict=True)) | changes).values())


@pytest.mark.parametrize(("behaviour", "kind"), [("pv", View), ("cart", Cart), ("fav", Favourite), ("buy", Purchase)])
def test_taobao_row_becomes_an_event(behaviour: str, kind: type) -> None:
    event = taobao_event(["543462", "1715", "1464116", behaviour, "1511658000"], "id")
    assert event == kind(event_id="id", user_id="543462", ts=1_511_658_000_000, item_id="1715", category="1464116")


@pytest.mark.parametrize(
    ("timestamp", "unit"),
    [
        ("-5", "a time before 1970"),
        ("0", "a time before the year 2000"),
        ("253402300800", "a time after the year 9999"),
        ("1511658000000", "milliseconds"),
        ("1511658000000000", "microseconds"),
        ("1511658000000000000", "nanoseconds"),
        ("9" * 5000, "nanoseconds"),
    ],
)
def test_taobao_time_of_another_unit_is_refused_with_the_unit(timestamp: str, unit: str) -> None:
    with pytest.raises(ValueError, match=f"^the timestamp looks like {unit}: it must be seconds"):
        taobao_event(["1", "2", "3", "pv", timestamp], "id")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (["1", "2", "3", "pv"], "4 columns instead of 5"),
        (["1", "2", "3", "look", "1511658000"], "unknown behaviour 'look'"),
        (["1", "2", "3", "pv", "today"], "the timestamp is no whole number of seconds"),
        (["1", "2", "3", "pv", "1.5"], "the timestamp is no whole number of seconds"),
        (["1", "2", "3", "pv", ""], "the timestamp is no whole number of seconds"),
    ],
)
def test_malformed_taobao_row_is_an_error_in_words(row: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        taobao_event(row, "id")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("view", View), ("cart", Cart), ("remove_from_cart", RemoveFromCart), ("purchase", Purchase)],
)
def test_rees46_row_becomes_an_event(name: str, kind: type) -> None:
    assert rees46_event(rees46_row(event_type=name), "id") == kind(
        event_id="id",
        user_id="543272936",
        ts=1_569_888_003_000,
        session_id="8187d148",
        item_id="1004856",
        price=130.76,
        category="electronics.smartphone",
    )


def test_rees46_category_without_a_name_is_its_number() -> None:
    event = rees46_event(rees46_row(category_code=""), "id")
    assert isinstance(event, Purchase)
    assert event.category == "20530"


def test_rees46_empty_fields_are_none() -> None:
    event = rees46_event(rees46_row(category_code="", category_id="", price="", user_session=""), "id")
    assert isinstance(event, Purchase)
    assert (event.category, event.price, event.session_id) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"event_type": "gift"}, "unknown event_type 'gift'"),
        ({"price": "cheap"}, "price is no number"),
        ({"price": "nan"}, "price is no number"),
        ({"event_time": "2019-10-01 00:00:03"}, "event_time is not like"),
        ({"event_time": "yesterday UTC"}, "event_time is not like"),
    ],
)
def test_malformed_rees46_row_is_an_error_in_words(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rees46_event(rees46_row(**changes), "id")


def test_rees46_columns_are_found_by_name(tmp_path: Path) -> None:
    reverse = "\n".join(",".join(reversed(line.split(","))) for line in (HEADER, REES46_ROW))
    (reversed_line,) = lines_of(tmp_path / "a", reverse.encode(), "rees46")
    (line,) = lines_of(tmp_path / "b", f"{HEADER}\n{REES46_ROW}".encode(), "rees46")
    event, again = decode_record(line.value), decode_record(reversed_line.value)
    assert isinstance(event, Purchase)
    assert isinstance(again, Purchase)
    assert (event.user_id, event.item_id, event.price) == (again.user_id, again.item_id, again.price)


def test_rees46_file_without_its_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="its first line does not name event_time"):
        lines_of(tmp_path / "a", REES46_ROW.encode(), "rees46")


UNIT = "it must be seconds since 1970, UTC, from the year 2000 to 9999"


def test_what_the_schema_forbids_is_an_error_in_words(tmp_path: Path) -> None:
    rows = b"u1,,3,pv,1511658000\n,2,3,pv,1511658000\nu1,2,3,pv,-5\nu1,2,3,pv,1511658000000000\nu1,2,3,pv,1511658000\n"
    *wrong, good = lines_of(tmp_path / "a", rows, "taobao")
    assert [line.error for line in wrong] == [
        "Expected `str` of length >= 1 - at `$.item_id`",
        "Expected `str` of length >= 1 - at `$.user_id`",
        f"the timestamp looks like a time before 1970: {UNIT}",
        f"the timestamp looks like microseconds: {UNIT}",
    ]
    assert good.error is None
    assert good.key == b"u1"


def test_equal_rows_repeat_the_id_and_others_do_not(tmp_path: Path) -> None:
    row = b"u1,2,3,pv,1511658000"
    first, again, windows, other = lines_of(tmp_path / "a", b"\n".join([row, row, row + b"\r", row + b"1"]), "taobao")
    assert first.value == again.value == windows.value
    assert first.value != other.value


def test_id_of_a_row_is_the_same_in_another_process() -> None:
    program = "from clickscore.stream.event_files.formats.rows import row_event_id; print(row_event_id(b'row'))"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert other == row_event_id(b"row")


def test_quoted_field_may_hold_a_comma(tmp_path: Path) -> None:
    row = REES46_ROW.replace("samsung", '"sam,sung"')
    (line,) = lines_of(tmp_path / "a", f"{HEADER}\n{row}\n".encode(), "rees46")
    assert line.error is None


def test_row_that_is_not_utf8_is_an_error_in_words(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path / "a", b"u\xff,2,3,pv,1511658000\n", "taobao")
    assert line == Line(1, error="the row is not UTF-8")


def test_clickscore_lines_pass_byte_for_byte(tmp_path: Path) -> None:
    contents = [
        b'{"user_id": "u1", "ts": 5, "unknown": 1}',
        b"{broken",
        b"\xff\xfe",
        b'{"user_id": 7}',
        b'{"ts": 1} \r',
    ]
    lines = lines_of(tmp_path / "a", b"\n".join(contents))
    assert [line.value for line in lines] == contents
    assert [line.key for line in lines] == [b"u1", None, None, None, None]
    assert [line.ts for line in lines] == [5, None, None, None, 1]
    assert [line.number for line in lines] == [1, 2, 3, 4, 5]
    assert all(line.error is None for line in lines)


def test_record_without_a_key_is_routed_by_its_value() -> None:
    assert Line(1, b"value").routing == b"value"
    assert Line(1, b"value", b"key").routing == b"key"


def test_blank_lines_are_no_lines_but_count(tmp_path: Path) -> None:
    assert [line.number for line in lines_of(tmp_path / "a", b"\n{}\n \r\n\n{}\n")] == [2, 5]


def test_file_without_anything_has_no_lines(tmp_path: Path) -> None:
    assert lines_of(tmp_path / "a", b"") == []


def test_line_above_the_bound_is_an_error_and_the_next_is_read(tmp_path: Path) -> None:
    longest = b"x" * MAX_LINE_BYTES
    lines = lines_of(tmp_path / "a", longest + b"\n" + longest + b"yz\n" + bytes(3 * MAX_LINE_BYTES) + b"\nlast")
    assert [line.error for line in lines] == [
        None,
        f"longer than {MAX_LINE_BYTES} bytes",
        f"longer than {MAX_LINE_BYTES} bytes",
        None,
    ]
    assert (lines[0].value, lines[3].value) == (longest, b"last")


@given(st.lists(st.binary().filter(lambda line: b"\n" not in line and line.strip()), max_size=50), st.booleans())
def test_lines_come_back_plain_and_compressed(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], gz: bool):
    # A file that begins like gzip, UTF-16 or a RAR archive is taken for one: no JSON and no CSV does.
    content = b"\n".join([b"{}", *lines])
    path = tmp_path_factory.mktemp("lines") / "file"
    read = lines_of(path, gzip.compress(content) if gz else content)
    assert [line.value for line in read] == [b"{}", *lines]


def test_gzip_members_in_a_row_are_one_file(tmp_path: Path) -> None:
    content = gzip.compress(b"{}\n{") + gzip.compress(b"}\n") + bytes(100)
    assert [line.value for line in lines_of(tmp_path / "a", content)] == [b"{}", b"{}"]


def test_gzip_that_ends_early_is_said_after_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(b"{}\n" * 100_000)[:-20])
    read = 0
    with pytest.raises(InputFileError, match="ends early"), EventFile(path, "clickscore") as file:  # noqa: PT012
        for _ in file:
            read += 1
    assert read > 90_000


def test_gzip_that_is_broken_is_said(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(b"{}\n" * 1000))
    content[20] ^= 0xFF
    with pytest.raises(InputFileError, match="gzip data is broken"):
        lines_of(tmp_path / "a", bytes(content))


def test_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be read: No such file"):
        EventFile(tmp_path / "absent", "clickscore")


def test_position_reaches_the_size(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(b"{}\n" * 1000))
    with EventFile(path, "clickscore") as file:
        assert file.bytes_read == 0
        assert len(list(file)) == 1000
        assert file.bytes_read == file.size == path.stat().st_size


def test_errors_are_grouped_whatever_byte_they_are_at() -> None:
    errors = LineErrors(show=2)
    for number, byte in enumerate((4, 9, 11), start=1):
        errors.add(f"JSON is malformed: invalid character (byte {byte})", number)
    errors.add("the row is not UTF-8", 7)
    assert errors.total == 4
    assert errors.report() == [
        "3 x JSON is malformed: invalid character (lines 1, 2, ...)",
        "1 x the row is not UTF-8 (line 7)",
    ]


def test_errors_of_endless_kinds_stay_bounded() -> None:
    errors = LineErrors(show=1)
    for number in range(10_000):
        errors.add(f"unknown behaviour '{number}'", number)
    assert errors.total == 10_000
    assert len(errors.report()) == MAX_REASONS + 1


@pytest.mark.parametrize(
    ("folder", "file_format", "rows", "distinct"),
    [("rees46_head", "rees46", 17_434, 17_429), ("taobao_userbehavior", "taobao", 110_300, None)],
)
@pytest.mark.slow
def test_real_file_is_read_whole(folder: str, file_format: Format, rows: int, distinct: int | None) -> None:
    path = DATA / folder / "events.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    with EventFile(path, file_format) as file:
        lines = list(file)
    assert len(lines) == rows
    assert not [line for line in lines if line.error]
    if distinct:
        assert len({line.value for line in lines}) == distinct
