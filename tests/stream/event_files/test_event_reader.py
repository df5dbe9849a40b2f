"""Reader: files that are read on from the position of an earlier reading, and Parquet."""

import csv
import gzip
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickscore.schemas.events import Favourite, View, decode_record
from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.event_reader import EventFile, LinePosition
from clickscore.stream.event_files.formats.rees46 import REES46
from clickscore.stream.event_files.formats.registry import ROW_FORMATS, Format
from clickscore.stream.event_files.formats.shop_csv import SHOP_CSV
from clickscore.stream.event_files.formats.taobao import TAOBAO
from clickscore.stream.event_files.lines import Line
from tests.integration.event_log import event_log

DATA = Path(__file__).parents[3].parent / "shared" / "data"
ROW = ("2019-10-01 00:00:03 UTC", "purchase", "1004856", "20530", "a.b", "samsung", "130.76", "543272936", "8187d148")


def read_on(path: Path, file_format: Format, chunks: int) -> tuple[list[Line], list[Line], LinePosition]:
    """Return the lines of some chunks, those that a second reading finds from there, and where that was."""
    with EventFile(path, file_format) as file:
        reading = file.chunks()
        first = [line for _ in range(chunks) for line in next(reading, [])]
        position = file.position
    with EventFile(path, file_format, position) as file:
        return first, list(file), position


def all_lines(path: Path, file_format: Format) -> list[Line]:
    with EventFile(path, file_format) as file:
        return list(file)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    path.write_bytes(b"\n".join(record.value or b"" for record in event_log(3_000, seed=5)))
    return path


@pytest.mark.parametrize("packed", ["plain", "gz", "zst"])
@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_reading_goes_on_where_it_stopped(log: Path, packed: str, chunks: int, tmp_path: Path) -> None:
    path = tmp_path / "events"
    content = log.read_bytes()
    if packed == "gz":
        content = gzip.compress(content[:100_000]) + gzip.compress(content[100_000:])
    elif packed == "zst":
        zstandard = pytest.importorskip("zstandard")
        content = zstandard.compress(content[:100_000]) + zstandard.compress(content[100_000:])
    path.write_bytes(content)
    first, rest, position = read_on(path, "clickscore", chunks)
    assert position.number > 0
    assert first + rest == all_lines(path, "clickscore")


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([b"", b" ", b"short", b"x" * 40_000, b"y" * 1_200_000]), max_size=12), st.integers(0, 9)
)
def test_position_counts_lines_of_every_length(
    tmp_path_factory: pytest.TempPathFactory, texts: list[bytes], chunks: int
) -> None:
    path = tmp_path_factory.mktemp("position") / "events"
    path.write_bytes(b"\n".join(texts))
    first, rest, _ = read_on(path, "clickscore", chunks)
    assert first + rest == all_lines(path, "clickscore")


def test_rees46_goes_on_with_the_columns_of_its_header(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    rows = [",".join((*reversed(ROW), str(number))) for number in range(3_000)]
    path.write_text("\n".join([",".join(reversed(REES46.columns)), *rows]), encoding="utf-8")
    first, rest, position = read_on(path, "rees46", 2)
    assert 0 < position.number < 3_000
    assert [line.error for line in first + rest] == [None] * 3_000
    assert first + rest == all_lines(path, "rees46")


def test_zstandard_file_that_ends_early_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "events.zst"
    path.write_bytes(pytest.importorskip("zstandard").compress(b"{}\n" * 1000)[:-5])
    with pytest.raises(InputFileError, match="its Zstandard data ends early"):
        all_lines(path, "clickscore")


def test_zstandard_file_that_is_broken_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "events.zst"
    path.write_bytes(pytest.importorskip("zstandard").compress(bytes(range(256)) * 99)[:9] + b"\xff" * 100)
    with pytest.raises(InputFileError, match="its Zstandard data is broken"):
        all_lines(path, "clickscore")


# Parquet


def parquet(path: Path, columns: dict[str, list[Any]], rows: int = 1000) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return path


@pytest.mark.slow
def test_parquet_of_events_is_read_by_the_names_of_their_fields(tmp_path: Path) -> None:
    at = datetime(2026, 3, 1, 8, 0, 0, 1000, tzinfo=UTC)
    columns = {
        "type": ["view", "search"],
        "event_id": ["e1", "e2"],
        "user_id": ["ann", "bob"],
        "ts": [at, at],
        "item_id": [17, None],
        "query": [None, "tea"],
    }
    view, search = [decode_record(line.value) for line in all_lines(parquet(tmp_path / "a", columns), "clickscore")]
    assert view == decode_record(b'{"type":"view","event_id":"e1","user_id":"ann","ts":1772352000001,"item_id":"17"}')
    assert search == decode_record(
        b'{"type":"search","event_id":"e2","user_id":"bob","ts":1772352000001,"query":"tea"}'
    )


TS = 1_772_352_000_001


@pytest.mark.slow
def test_parquet_row_without_an_id_gets_one_that_an_equal_row_repeats(tmp_path: Path) -> None:
    columns = {"type": ["view"] * 3, "user_id": ["ann"] * 3, "ts": [TS, TS, TS + 1], "item_id": ["i"] * 3}
    first, again, other = all_lines(parquet(tmp_path / "a", columns), "clickscore")
    assert first.value == again.value
    assert decode_record(first.value) != decode_record(other.value)
    assert first.key == b"ann"


@pytest.mark.slow
def test_parquet_of_rees46_gives_the_events_of_its_csv(tmp_path: Path) -> None:
    csv = tmp_path / "events.csv"
    csv.write_text(f"{','.join(REES46.columns)}\n{','.join(ROW)}\n", encoding="utf-8")
    columns: dict[str, list[Any]] = {name: [value] for name, value in zip(REES46.columns, ROW, strict=True)}
    columns |= {"event_time": [datetime(2019, 10, 1, 0, 0, 3)], "price": [130.76], "product_id": [1004856]}  # noqa: DTZ001
    (from_parquet,) = all_lines(parquet(tmp_path / "a", columns), "rees46")
    (from_csv,) = all_lines(csv, "rees46")
    assert from_parquet.value == from_csv.value


def test_csv_columns_are_found_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        "user,event_time,event_type,item,category,session,price\n"
        "ann,2018-03-01 00:00:06,view,i,tea,s,9.5\n"
        "ann,2018-03-01T01:00:07+01:00,follow,i,,,\n"
        "ann,2018-03-01 00:00:08,comment,i,,,\n"
        "ann,yesterday,view,i,,,\n",
        encoding="utf-8",
    )
    view, follow, comment, yesterday = all_lines(path, "csv")
    first, second = decode_record(view.value), decode_record(follow.value)
    assert isinstance(first, View)
    assert (first.user_id, first.item_id, first.category, first.session_id, first.price) == (
        "ann",
        "i",
        "tea",
        "s",
        9.5,
    )
    assert isinstance(second, Favourite)
    assert (first.ts, second.ts) == (1_519_862_406_000, 1_519_862_407_000)
    assert comment.error == "unknown event_type 'comment'"
    assert yesterday.error == "event_time is not like `2018-03-01 00:00:06`"


def test_csv_goes_on_with_the_columns_of_its_header(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    rows = [",".join(reversed(SHOP_CSV.columns)), *(f"9.5,s,ann,tea,i{n},view,2018-03-01 00:00:06" for n in range(4))]
    path.write_text("\n".join(rows), encoding="utf-8")
    first, rest, _ = read_on(path, "csv", 2)
    assert first + rest == all_lines(path, "csv")


@pytest.mark.slow
def test_parquet_of_taobao_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    columns = {name: [value] for name, value in zip(TAOBAO.columns, [1, 2, 3, "buy", 1_511_658_000], strict=True)}
    (line,) = all_lines(parquet(tmp_path / "a", columns), "taobao")
    (row,) = all_lines_of(tmp_path / "b", b"1,2,3,buy,1511658000")
    assert line.value == row.value


def all_lines_of(path: Path, content: bytes) -> list[Line]:
    path.write_bytes(content)
    return all_lines(path, "taobao")


CELLS = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" ,\"'aé"), max_size=8)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ROW_FORMATS)
@settings(max_examples=10)  # each example opens a Parquet file, which starts a process
@given(data=st.data())
@pytest.mark.slow
def test_parquet_gives_the_very_records_of_the_csv_of_its_rows(
    tmp_path_factory: pytest.TempPathFactory, file_format: Format, data: st.DataObject
) -> None:
    row_format = ROW_FORMATS[file_format]
    known = {
        "event_time": st.sampled_from(["2019-10-01 00:00:03 UTC", "2019-10-01 00:00:04 UTC", "noon"]),
        "timestamp": st.sampled_from(["1511658000", "-5", "1.5"]),
        "event_type": st.sampled_from(["view", "cart", "gift"]),
        "behavior": st.sampled_from(["pv", "buy", "hug"]),
        "price": st.sampled_from(["", "9.5", "-1", "dear"]),
    }
    cells = st.tuples(*(known.get(name, CELLS) for name in row_format.columns))
    rows = data.draw(st.lists(cells, min_size=1, max_size=10))
    folder = tmp_path_factory.mktemp("rows")
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([*([row_format.columns] if row_format.has_header else []), *rows])
    columns = {
        name: [cell or None for cell in cells]
        for name, cells in zip(row_format.columns, zip(*rows, strict=True), strict=True)
    }
    from_csv = all_lines(folder / "a.csv", file_format)
    from_parquet = all_lines(parquet(folder / "a.parquet", columns), file_format)
    assert facts(from_parquet) == facts(from_csv)


def facts(lines: list[Line]) -> list[tuple[bytes, bytes | None, int | None, str | None]]:
    """Return all of the lines but their numbers, which count a header."""
    return [(line.value, line.key, line.ts, line.error) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "file_format"), [("rees46_head", "rees46"), ("taobao_userbehavior", "taobao")])
@pytest.mark.slow
def test_parquet_of_a_real_log_with_typed_columns_gives_the_records_of_its_csv(
    folder: str, file_format: Format, tmp_path: Path
) -> None:
    path = DATA / folder / "events.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    row_format = ROW_FORMATS[file_format]
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[row_format.has_header :]
    columns = {
        name: typed(name, cells) for name, cells in zip(row_format.columns, zip(*rows, strict=True), strict=True)
    }
    from_parquet = all_lines(parquet(tmp_path / "a", columns, rows=5_000), file_format)
    assert facts(from_parquet) == facts(all_lines(path, file_format))


def typed(name: str, cells: Sequence[str]) -> list[Any]:
    """Return the cells of a column in its natural type; a price stays text, since the number 33.20 reads 33.2."""
    if name == "event_time":
        return [datetime.fromisoformat(cell.removesuffix(" UTC")).replace(tzinfo=UTC) for cell in cells]
    if name in {"product_id", "item_id", "category_id", "user_id", "timestamp"}:
        return [int(cell) if cell else None for cell in cells]
    return [cell or None for cell in cells]


@pytest.mark.parametrize("chunks", [0, 1, 3])
@pytest.mark.slow
def test_parquet_reading_goes_on_within_and_between_row_groups(tmp_path: Path, chunks: int) -> None:
    columns = {"type": ["view"] * 900, "user_id": ["u"] * 900, "ts": list(range(900)), "item_id": ["i"] * 900}
    path = parquet(tmp_path / "a", columns, rows=250)
    first, rest, position = read_on(path, "clickscore", chunks)
    assert position.number == min(900, 250 * chunks)
    assert [line.ts for line in first + rest] == list(range(900))
    with EventFile(path, "clickscore", LinePosition(333)) as file:
        assert [line.ts for line in file] == list(range(333, 900))


@pytest.mark.slow
def test_parquet_without_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="it has no column type, ts"):
        all_lines(parquet(tmp_path / "a", {"user_id": ["ann"]}), "clickscore")


@pytest.mark.slow
def test_broken_parquet_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputFileError, match="cannot be read"):
        all_lines(path, "clickscore")
