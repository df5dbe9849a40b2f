"""Files as spreadsheets, warehouses and attackers write them: each is read, or refused in one sentence."""

import bz2
import gzip
import io
import lzma
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clickscore.schemas.events import AnyRecord, View, decode_record
from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.event_reader import EventFile, LinePosition
from clickscore.stream.event_files.formats.registry import Format
from clickscore.stream.event_files.lines import Line
from clickscore.stream.event_files.row_joiner import MAX_ROW_LINES

JSON_LINES = b"".join(
    b'{"type":"view","event_id":"e%d","user_id":"anna","ts":%d,"item_id":"i"}\n' % (n, 1767605400000 + n)
    for n in range(3)
)
SHOP = (
    "event_time,event_type,item,category,user,session,price\n"
    "2026-01-05 09:30:00,view,kettle,tea,anna,s1,9.5\n"
    "2026-01-05 09:30:01,cart,kettle,tea,anna,s1,9.5\n"
)
TAOBAO = "1,100,7,pv,1511668800\n1,101,7,buy,1511669100\n"


def read(path: Path, content: bytes, file_format: Format = "auto") -> list[Line]:
    path.write_bytes(content)
    with EventFile(path, file_format) as file:
        lines = list(file)
        file.require_event()
    return lines


def good(lines: list[Line]) -> list[AnyRecord]:
    assert [line.error for line in lines] == [None] * len(lines)
    return [decode_record(line.value) for line in lines]


# Text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", [JSON_LINES.decode(), SHOP, TAOBAO], ids=["json", "csv", "taobao"])
def test_encodings_of_a_text_give_equal_events(tmp_path: Path, encoding: str, text: str) -> None:
    assert read(tmp_path / "a", text.encode(encoding)) == read(tmp_path / "b", text.encode())


def zipped(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("folder/", b"")
        target.writestr("folder/events", content)
    return archive.getvalue()


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, gzip.compress, zipped])
def test_compressed_files_give_the_lines_of_the_plain_file(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    content = JSON_LINES * 5_000
    assert read(tmp_path / "a", pack(content)) == read(tmp_path / "b", content)


def test_members_of_bzip2_and_xz_in_a_row_are_one_file(tmp_path: Path) -> None:
    for compress in (bz2.compress, lzma.compress):
        assert read(tmp_path / "a", compress(JSON_LINES) + compress(JSON_LINES)) == read(tmp_path / "b", JSON_LINES * 2)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_reading_goes_on_within_a_compressed_file(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a"
    path.write_bytes(pack(JSON_LINES * 20_000))
    with EventFile(path, "clickscore") as file:
        chunks = file.chunks()
        first = next(chunks) + next(chunks)
        position = file.position
    with EventFile(path, "clickscore", position) as file:
        assert len(first) + len(list(file)) == 60_000


@pytest.mark.parametrize("separator", [";", "\t", "|", ", "])
def test_other_separators_give_the_events_of_commas(tmp_path: Path, separator: str) -> None:
    for text in (SHOP, TAOBAO):
        other = text.replace(",", separator)
        assert read(tmp_path / "a", other.encode()) == read(tmp_path / "b", text.encode())


def test_header_may_be_quoted_and_in_capitals_and_every_cell_quoted(tmp_path: Path) -> None:
    quoted = "\n".join(",".join(f'"{cell}"' for cell in row.split(",")) for row in SHOP.splitlines())
    for text in (quoted, SHOP.replace("event_time,event_type", "EVENT_TIME,Event_Type"), "\n" + SHOP):
        events = good(read(tmp_path / "a", text.encode()))
        assert [(event.ts, type(event).__name__) for event in events] == [
            (1767605400000, "View"),
            (1767605401000, "Cart"),
        ]


def test_header_of_taobao_is_no_row(tmp_path: Path) -> None:
    header = "user_id,item_id,category_id,behavior,timestamp\n"
    assert [line.value for line in read(tmp_path / "a", (header + TAOBAO).encode())] == [
        line.value for line in read(tmp_path / "b", TAOBAO.encode())
    ]


def test_quoted_cell_may_hold_line_breaks(tmp_path: Path) -> None:
    text = SHOP + '2026-01-05 09:30:02,view,"ket\ntle\r\n",tea,anna,s1,\n2026-01-05 09:30:03,view,pot,tea,anna,s1,\n'
    lines = read(tmp_path / "a", text.encode())
    broken = good(lines)[2]
    assert isinstance(broken, View)
    assert broken.item_id == "ket\ntle\r\n"
    assert [line.number for line in lines] == [2, 3, 4, 7]


def test_reading_goes_on_after_a_row_of_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text(SHOP + '2026-01-05 09:30:02,view,"a\nb",tea,anna,s1,\n' * 9_000, encoding="utf-8")
    with EventFile(path, "csv") as file:
        lines: list[Line] = []
        positions: list[LinePosition] = []
        for chunk in file.chunks():
            lines += chunk
            positions.append(file.position)
    assert len(lines) == 9_002
    with EventFile(path, "csv", positions[3]) as file:
        rest = list(file)
    assert rest == lines[-len(rest) :]
    assert 0 < len(rest) < 9_000


def test_stray_quote_costs_one_row(tmp_path: Path) -> None:
    row = "2026-01-05 09:30:02,view,pot,tea,anna,s1,\n"
    text = SHOP + '2026-01-05 09:30:02,view,"pot,tea,anna,s1,\n' + row * (MAX_ROW_LINES * 3)
    lines = read(tmp_path / "a", text.encode())
    assert [(line.number, line.error) for line in lines if line.error] == [(4, "unexpected end of data")]
    assert len(lines) == 3 + MAX_ROW_LINES * 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no event"),
        (SHOP.splitlines()[0].encode(), "holds no event in the format csv"),
        (b"hello\nworld\n", "the first lines tell no format: 'hello'"),
        (b'[{"type":"view"}]', "JSON array"),
        (zipped(b"")[:30], "its zip data is broken or encrypted"),
        (bytes(257) + b"ustar" + bytes(300), "a tar archive"),
        (b"%PDF-1.4 ...", "a PDF file"),
        ("a".encode("utf-32"), "UTF-32"),
        (b'{"type":"gift"}\n{broken\n', "line 1: Invalid value 'gift'"),
    ],
)
def test_file_without_one_event_is_refused_with_its_reason(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(InputFileError, match=words):
        read(tmp_path / "a", content)


@pytest.mark.parametrize(("text", "likely"), [(SHOP, "csv"), (TAOBAO, "taobao"), (JSON_LINES.decode(), "clickscore")])
@pytest.mark.parametrize("file_format", ["clickscore", "taobao", "rees46", "csv"])
def test_wrong_format_is_refused_with_the_likely_format(
    tmp_path: Path, text: str, likely: str, file_format: Format
) -> None:
    if file_format == likely:
        read(tmp_path / "a", text.encode(), file_format)
        return
    with pytest.raises(InputFileError, match=f"looks like --format {likely}"):
        read(tmp_path / "a", text.encode(), file_format)


# Bombs


LIMITED = """
import sys
from pathlib import Path
from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.event_reader import EventFile
with EventFile(Path(sys.argv[1]), "clickscore") as file:
    try:
        print(sum(len(chunk) for chunk in file.chunks()))
    except InputFileError as exc:
        print(exc)
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""

pytestmark = pytest.mark.slow  # most files are read by a process of their own


def megabytes_of_reading(path: Path) -> tuple[str, int]:
    """Read a file in a process of its own; return its report and its memory."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the memory of a process is read from /proc")
    ran = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    report, kilobytes = ran.stdout.strip().rsplit("\n", 1)
    return report, int(kilobytes) // 1024


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst", "zip"])
def test_file_that_unpacks_to_gigabytes_is_read_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bomb"
    megabyte = bytes(1024 * 1024)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("events", "w") as target:
            for _ in range(300):
                target.write(megabyte)
    else:
        zstandard = pytest.importorskip("zstandard")
        opened = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open, "zst": zstandard.open}[kind]
        with opened(path, "wb") as target:
            for _ in range(300):
                target.write(megabyte)
    assert path.stat().st_size < 1_000_000
    report, megabytes = megabytes_of_reading(path)
    assert report == "1"  # one line that is too long
    assert megabytes < 150


def test_gigabytes_of_line_ends_are_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb") as target:
        for _ in range(300):
            target.write(b"\n" * 1024 * 1024)
    report, megabytes = megabytes_of_reading(path)
    assert report == "0"
    assert megabytes < 150


@pytest.mark.parametrize("depth", [100, 5_000, 100_000])
def test_deep_line_is_a_line(tmp_path: Path, depth: int) -> None:
    deep = b'{"user_id":"u","ts":1767605400000,"x":' + b"[" * depth + b"]" * depth + b"}\n"
    *_, last = read(tmp_path / "a", JSON_LINES + deep, "clickscore")
    assert last.value == deep.strip()


# Parquet


def parquet(path: Path, **columns: Any) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), path, compression="zstd")
    return path


def parquet_lines(path: Path, file_format: Format = "auto") -> list[Line]:
    with EventFile(path, file_format) as file:
        lines = list(file)
        file.require_event()
    return lines


def shop_columns(**changes: Any) -> dict[str, Any]:
    columns = {
        "event_time": [datetime(2026, 1, 5, 9, 30, tzinfo=UTC)] * 2,
        "event_type": ["view", "view"],
        "item": ["kettle", "pot"],
        "category": ["tea", None],
        "user": ["anna", "anna"],
        "session": [None, None],
        "price": [9.5, None],
    }
    return columns | changes


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_parquet_keeps_parts_of_a_second(tmp_path: Path, unit: str) -> None:
    pa = pytest.importorskip("pyarrow")
    times = [datetime(2026, 1, 5, 9, 30, 0, 100_000, tzinfo=UTC), datetime(2026, 1, 5, 9, 30, 0, 400_000, tzinfo=UTC)]
    path = parquet(tmp_path / "a", **shop_columns(event_time=pa.array(times, pa.timestamp(unit, "UTC"))))
    lines = parquet_lines(path)
    assert [event.ts for event in good(lines)] == [1767605400100, 1767605400400]
    text = SHOP.splitlines()[0] + "\n2026-01-05 09:30:00.100 UTC,view,kettle,tea,anna,,9.5\n"
    assert read(tmp_path / "b", text.encode())[0].value == lines[0].value


def test_parquet_times_with_microseconds_give_events_of_their_own(tmp_path: Path) -> None:
    times = [datetime(2026, 1, 5, 9, 30, 0, 100_001, tzinfo=UTC), datetime(2026, 1, 5, 9, 30, 0, 100_002, tzinfo=UTC)]
    first, second = good(parquet_lines(parquet(tmp_path / "a", **shop_columns(event_time=times, item=["i", "i"]))))
    assert first.ts == second.ts == 1767605400100
    assert first != second


@pytest.mark.parametrize("zone", ["Europe/Berlin", "+05:30", "Mars/Base"])
def test_parquet_times_of_any_zone_are_read(tmp_path: Path, zone: str) -> None:
    pa = pytest.importorskip("pyarrow")
    times = pa.array([1767605400100, 1767605400200], pa.timestamp("ms", zone))
    lines = parquet_lines(parquet(tmp_path / "a", **shop_columns(event_time=times)))
    assert [event.ts for event in good(lines)] == [1767605400100, 1767605400200]


def test_parquet_of_taobao_may_have_a_timestamp_column(tmp_path: Path) -> None:
    columns = {"user_id": [1.0, None], "item_id": [2.0, 3.0], "category_id": [7, 7], "behavior": ["pv", "pv"]}
    times = [datetime(2026, 1, 5, 9, 30, tzinfo=UTC)] * 2
    view, without_user = parquet_lines(parquet(tmp_path / "a", **columns, timestamp=times))
    (event,) = good([view])
    assert isinstance(event, View)
    assert (event.user_id, event.item_id, event.ts) == ("1", "2", 1767605400000)
    assert without_user.error == "Expected `str` of length >= 1 - at `$.user_id`"


@pytest.mark.parametrize("price", [[Decimal("9.50"), None], [9.5, float("nan")]])
def test_parquet_price_may_be_decimal_or_no_number(tmp_path: Path, price: list[Any]) -> None:
    first, second = good(parquet_lines(parquet(tmp_path / "a", **shop_columns(price=price))))
    assert isinstance(first, View)
    assert isinstance(second, View)
    assert (first.price, second.price) == (9.5, None)


def test_parquet_of_events_reads_decimals_bytes_nan_and_floats_of_whole_numbers(tmp_path: Path) -> None:
    columns = {
        "type": [b"view", b"purchase"],
        "user_id": [b"anna", b"\xff"],
        "event_id": ["a", "b"],
        "ts": [1767605400000.0, 1767605400000.0],
        "item_id": [17.0, 18.0],
        "price": [Decimal("9.5"), Decimal("9.5")],
        "quantity": [None, 2.0],
        "position": [float("nan"), 1.0],
    }
    first, second = parquet_lines(parquet(tmp_path / "a", **columns))
    (event,) = good([first])
    assert isinstance(event, View)
    assert (event.user_id, event.item_id, event.price, event.position) == ("anna", "17", 9.5, None)
    assert second.error == "the column user_id is not UTF-8"


def test_parquet_price_that_is_infinite_is_an_error(tmp_path: Path) -> None:
    _, csv = parquet_lines(parquet(tmp_path / "a", **shop_columns(price=[1.0, float("inf")])))
    assert csv.error == "price is no number"


def test_parquet_price_beyond_the_bound_is_an_error(tmp_path: Path) -> None:
    _, csv = parquet_lines(parquet(tmp_path / "a", **shop_columns(price=[1.0, 1e13])))
    assert csv.error is not None
    assert "<= 1000000000000.0 - at `$.price`" in csv.error


def odd_times() -> dict[str, Any]:
    pa = pytest.importorskip("pyarrow")
    return {
        "duration": pa.array([1, 2], pa.duration("ns")),
        "time64": pa.array([1, 2], pa.time64("ns")),
        "time32": pa.array([1, 2], pa.time32("ms")),
        "far": pa.array([2**62, 2**61], pa.timestamp("ms")),
        "past": pa.array([-(2**62), -(2**61)], pa.timestamp("ms")),
        "list": pa.array([[1], [2]]),
        "struct": pa.array([{"a": 1}, {"a": 2}]),
        "bool": pa.array([True, False]),
        "null": pa.nulls(2),
        "date": pa.array([date(2026, 1, 5)] * 2),
    }


@pytest.mark.parametrize(
    "kind", ["duration", "time64", "time32", "far", "past", "list", "struct", "bool", "null", "date"]
)
@pytest.mark.parametrize("column", ["event_time", "ts"])
def test_parquet_column_of_an_odd_type_is_read_or_refused_in_words(tmp_path: Path, kind: str, column: str) -> None:
    values = odd_times()[kind]
    columns = shop_columns()
    if column == "ts":
        columns = {"type": ["view"] * 2, "user_id": ["u"] * 2, "ts": [1767605400000] * 2, "item_id": ["i"] * 2}
    path = parquet(tmp_path / "a", **(columns | {column: values}))
    try:
        lines = parquet_lines(path)
    except InputFileError as exc:
        assert str(path) in str(exc)  # noqa: PT017 (either is right)
    else:
        assert len(lines) == 2


def test_parquet_that_decodes_to_gigabytes_is_refused_row_by_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    rows = 4_096
    long = pa.DictionaryArray.from_arrays(
        pa.array([0] * (rows - 1) + [1], pa.int32()), pa.array(["x" * 1_000_000, "i"])
    )
    columns = {"type": ["view"] * rows, "event_id": ["e"] * rows, "user_id": ["u"] * rows, "ts": [1767605400000] * rows}
    path = parquet(tmp_path / "a", **columns, item_id=long)
    assert path.stat().st_size < 20_000
    *long_rows, last = parquet_lines(path)
    assert {line.error for line in long_rows} == {"longer than 131072 bytes"}
    assert last.error is None


def test_parquet_beyond_the_memory_limit_is_refused_in_words(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a", type=["view"] * 2, user_id=["u"] * 2, ts=[1767605400000] * 2, item_id=["a" * 600_000_000, "b"]
    )
    assert path.stat().st_size < 200_000
    with pytest.raises(InputFileError, match="cannot be read"):
        parquet_lines(path)


# Mutations


def seeds(tmp_path: Path) -> dict[str, bytes]:
    seeds = {
        "json": JSON_LINES,
        "csv": SHOP.encode() + b'2026-01-05 09:30:02,view,"ket\ntle",tea,anna,s1,\n',
        "taobao": TAOBAO.encode(),
        "utf16": SHOP.encode("utf-16"),
        "gz": gzip.compress(JSON_LINES),
        "bz2": bz2.compress(JSON_LINES),
        "xz": lzma.compress(JSON_LINES),
        "zip": zipped(JSON_LINES),
    }
    try:
        import zstandard  # noqa: PLC0415

        seeds["zst"] = zstandard.compress(JSON_LINES)
    except ModuleNotFoundError:
        pass
    return seeds


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return the content with some bytes changed, doubled, moved or cut off."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        position = chance.randrange(len(data) + 1)
        length = chance.choice([1, 2, 8, 64])
        piece = data[position : position + length]
        data[position : position + length] = chance.choice(
            [b"", piece * 2, chance.randbytes(len(piece)), bytes(len(piece)), b'"\n', b"[{" * 40, b"\xff\xfe"]
        )
        if chance.random() < 0.1:
            del data[chance.randrange(len(data) + 1) :]
    return bytes(data)


def test_mutated_files_are_read_or_refused_in_words(tmp_path: Path) -> None:
    chance = random.Random(11)
    path = tmp_path / "file"
    for _ in range(60):
        for content in seeds(tmp_path).values():
            path.write_bytes(mutated(content, chance))
            try:
                with EventFile(path, chance.choice(["auto", "auto", "clickscore", "csv", "taobao"])) as file:
                    assert sum(1 for _ in file) < 1_000
            except InputFileError as exc:
                assert str(path) in str(exc)  # noqa: PT017 (either is right)


def test_mutated_parquet_files_are_read_or_refused_in_words(tmp_path: Path) -> None:
    chance = random.Random(11)
    seed = parquet(tmp_path / "seed", **shop_columns()).read_bytes()
    path = tmp_path / "file"
    for _ in range(8):
        path.write_bytes(b"PAR1" + mutated(seed[4:-4], chance) + b"PAR1")
        try:
            with EventFile(path, "auto") as file:
                assert sum(1 for _ in file) < 1_000
        except InputFileError as exc:
            assert str(path) in str(exc)  # noqa: PT017 (either is right)
