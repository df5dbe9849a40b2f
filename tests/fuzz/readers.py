"""Readers: mutated files of every format and compression, each line of them read, or refused in words."""

import bz2
import gzip
import io
import json
import lzma
import random
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.formats.mapping_files import SHIPPED_MAPPINGS, mapping_text
from clickscore.stream.event_files.lines import Line
from clickscore.stream.event_files.time_order import OrderedEventFile, plan_reading
from tests.fuzz.judge import FaultError, Outcomes, judge_lines, line_outcome
from tests.fuzz.mutation import ODD_TEXTS, mutated_bytes, mutated_cells, mutated_record, odd_value
from tests.fuzz.samples import SOURCES, Source, event

LINES = 100
"""Lines of a file of text."""
RESUMED_LINES = 1_000
"""Lines of a file whose reading is resumed: several chunks."""
ROWS = 1_000
"""Rows of a Parquet file."""
LATENESS_MS = 300_000
BEGAN = 1_767_605_400_000


class OpenFile(Protocol):
    """An open file of events."""

    ignored: int

    def __iter__(self) -> Iterator[Line]: ...


Reader = Callable[[Path, str], AbstractContextManager[OpenFile]]
"""Opens a file of a format."""


@contextmanager
def ordered(path: Path, file_format: str) -> Iterator[OpenFile]:
    """Open a file as `replay` does: a first pass finds the order of time."""
    file_format, plan = plan_reading(path, file_format, LATENESS_MS, requires_event=False)
    with OrderedEventFile(path, file_format, plan) as file:
        yield file


class TextFile(NamedTuple):
    """Content of a file of text, in UTF-8."""

    content: bytes
    format: str
    has_header: bool
    separator: str
    """Text between two cells of CSV; empty for other lines."""
    raw: bool


def text_file(chance: random.Random, lines: int = LINES) -> TextFile:
    """Return a file of `lines` values; the first is good, so that it tells format and dialect."""
    source = chance.choice((None, *SOURCES))
    separator = chance.choice(source.separators) if source else ""
    if source is None:
        good = [event(chance, number, BEGAN + 1_000 * number) for number in range(lines)]
        texts = [mutated_record(chance, value, 0.6 if number else 0) for number, value in enumerate(good)]
    else:
        texts = _source_lines(chance, source, lines, separator)
    end = chance.choice((b"\n", b"\n", b"\r\n", b"\n\n"))
    content = end.join(texts) + chance.choice((b"", end))
    return TextFile(
        content,
        source.format if source else "clickscore",
        has_header=bool(source and source.header),
        separator="" if source and source.separators == ("\t",) else separator,  # TSV has no quotes
        raw=source is None,
    )


def _source_lines(chance: random.Random, source: Source, lines: int, separator: str) -> list[bytes]:
    if source.objects:
        return [mutated_record(chance, chance.choice(source.objects), 0.6 if number else 0) for number in range(lines)]
    texts = [
        mutated_cells(chance, chance.choice(source.rows), separator, 0.6 if number else 0) for number in range(lines)
    ]
    return [separator.join(source.header).encode(), *texts] if source.header else texts


def _zipped(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("events", content)
    return archive.getvalue()


def packings() -> dict[str, Callable[[bytes], bytes]]:
    """Return the compressions by name."""
    import zstandard  # noqa: PLC0415 (of the files extra)

    return {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zip": _zipped,
        "zst": zstandard.compress,
    }


def fuzz_text(
    chance: random.Random, folder: Path, *, readers: tuple[Reader, ...] = (EventFile, EventFile, ordered)
) -> Outcomes:
    """Read a mutated file of text, and return the outcome of each of its lines.

    Args:
        chance: Source of chance.
        folder: Folder for the file.
        readers: Readers to choose from.
    """
    text = text_file(chance)
    content = text.content
    encoding = chance.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-be"))
    if encoding.startswith("utf-16"):
        content = content.decode(errors="replace").encode()
        data = (b"" if encoding == "utf-16" else b"\xfe\xff") + content.decode().encode(encoding)
    else:
        data = content.decode(errors="surrogateescape").encode(encoding, "surrogateescape")
    pack = chance.choice((None, None, None, *packings().values()))
    path = folder / "text"
    path.write_bytes(pack(data) if pack else data)
    try:
        with chance.choice(readers)(path, text.format) as file:
            lines = list(file)
            ignored = file.ignored
    except InputFileError as exc:
        _require_words(exc, path)
        sent = sum(1 for line in content.split(b"\n") if line.strip()) - text.has_header
        return Counter({"refused with the file": sent})
    return judge_lines(
        content.split(b"\n"), lines, ignored, has_header=text.has_header, separator=text.separator, raw=text.raw
    )


def fuzz_resume(chance: random.Random, folder: Path) -> Outcomes:
    """Read a mutated file of text, and again from a position within: the rest must be equal."""
    text = text_file(chance, RESUMED_LINES)
    path = folder / "resumed"
    path.write_bytes(text.content)
    with EventFile(path, text.format) as file:
        chunks = [(list(chunk), file.position) for chunk in file.chunks()]
        ignored = file.ignored
    index = chance.randrange(len(chunks))
    with EventFile(path, text.format, chunks[index][1]) as file:
        resumed = list(file)
    rest = [line for chunk, _ in chunks[index + 1 :] for line in chunk]
    if resumed != rest:
        raise FaultError(f"after {chunks[index][1]} {len(resumed)} lines follow, not {len(rest)}, or others")
    lines = [line for chunk, _ in chunks for line in chunk]
    return judge_lines(
        text.content.split(b"\n"), lines, ignored, has_header=text.has_header, separator=text.separator, raw=text.raw
    )


def fuzz_container(chance: random.Random, folder: Path) -> Outcomes:
    """Read a file whose bytes are mutated as a whole: compressed, in UTF-16, or plain; the file is one value."""
    text = text_file(chance, lines=20)
    form = chance.choice(("plain", "utf-16", *packings()))
    data = text.content
    if form == "utf-16":
        data = data.decode(errors="replace").encode("utf-16")
    elif form != "plain":
        data = packings()[form](data)
        if chance.random() < 0.2:
            data += packings()[form](text.content)
    path = folder / "container"
    path.write_bytes(mutated_bytes(chance, data))
    file_format = chance.choice(("auto", "auto", text.format, "clickscore", "csv", "taobao", "segment"))
    return _read_any(path, file_format, chance.choice((EventFile, ordered)))


def _read_any(path: Path, file_format: str, reader: Reader) -> Outcomes:
    """Read a broken file of any content; the file is one value."""
    try:
        with reader(path, file_format) as file:
            for line in file:
                line_outcome(line, raw=True)
    except InputFileError as exc:
        _require_words(exc, path)
        return Counter({"refused": 1})
    return Counter({"events": 1})


def _require_words(exc: InputFileError, path: Path) -> None:
    if path.name not in str(exc) or len(str(exc)) < len(str(path)) + 10:
        raise FaultError(f"the refusal of a file does not say enough: {exc}") from exc


# Mappings


def fuzz_mapping(chance: random.Random, folder: Path) -> Outcomes:
    """Read good lines by a mutated mapping; the mapping is one value."""
    source = chance.choice([source for source in SOURCES if source.format in SHIPPED_MAPPINGS])
    mapping = folder / "mapping.toml"
    mapping.write_bytes(_mutated_mapping(chance, mapping_text(source.format)))
    path = folder / "text"
    path.write_bytes(b"\n".join(_source_lines(chance, source, 5, source.separators[0])))
    try:
        with EventFile(path, str(mapping)) as file:
            for line in file:
                line_outcome(line, raw=False)
    except InputFileError as exc:
        if not str(exc).strip():
            raise FaultError("a mapping is refused without words") from exc
        return Counter({"refused": 1})
    return Counter({"events": 1})


def _mutated_mapping(chance: random.Random, text: bytes) -> bytes:
    lines = text.split(b"\n")
    for _ in range(chance.choice((1, 1, 2, 4))):
        index = chance.randrange(len(lines))
        kind = chance.random()
        key, equals, _ = lines[index].partition(b" = ")
        if kind < 0.4 and equals:
            lines[index] = key + equals + _toml_value(chance)
        elif kind < 0.6:
            lines[index] = mutated_bytes(chance, lines[index] or b"x")
        elif kind < 0.8:
            del lines[index]
            lines = lines or [b""]
        else:
            lines.insert(index, chance.choice(lines))
    return b"\n".join(lines)


_JMESPATHS = (
    "@", "a.b[0]", "a[?b=='c']", "length(@)", "sum(events)", "max_by(@, &a)", "to_number('x')", "keys(@)", "a[::0]",
    "join(',', @)", "sort_by(@, &x)", "merge(@, @)", "abs('x')", "[*].*", "a.*.b", "a || b", "!a", "type(@)", "*[0]",
)  # fmt: skip


def _toml_value(chance: random.Random) -> bytes:
    value = chance.choice(
        (*_JMESPATHS, *ODD_TEXTS, "ms", "us", "s", "iso", 0, -1, 10**30, 1.5, True, [], ["a", "b"], [[]])
    )
    return json.dumps(value).encode()


# Parquet


def fuzz_parquet_rows(chance: random.Random, folder: Path) -> Outcomes:
    """Read a Parquet file of odd columns and values, and return the outcome of each row."""
    file_format = chance.choice(("clickscore", "csv", "taobao", "rees46", "gorse"))
    path = _parquet_file(chance, folder, file_format, ROWS)
    try:
        with chance.choice((EventFile, EventFile, ordered))(path, file_format) as file:
            lines = list(file)
            ignored = file.ignored
    except InputFileError as exc:
        _require_words(exc, path)
        return Counter({"refused with the file": ROWS})
    texts = [b"row"] * ROWS
    return judge_lines(texts, lines, ignored, has_header=False, separator="", raw=file_format == "clickscore")


def fuzz_parquet_bytes(chance: random.Random, folder: Path) -> Outcomes:
    """Read a Parquet file with mutated bytes; the file is one value."""
    file_format = chance.choice(("clickscore", "csv"))
    data = _parquet_file(chance, folder, file_format, chance.choice((3, 50))).read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    begin = len(data) - footer if chance.random() < 0.6 else 4  # the footer has the structure of the file
    changed = data[:begin] + mutated_bytes(chance, data[begin:-8])
    if len(changed) == len(data) - 8 or chance.random() < 0.7:
        length = min(len(changed), max(0, footer - 8 + len(changed) - len(data) + 8))
        changed += length.to_bytes(4, "little") + b"PAR1"
    path = folder / "bytes.parquet"
    path.write_bytes(changed)
    return _read_any(path, chance.choice(("auto", file_format)), EventFile)


_PARQUET_ROWS: dict[str, tuple[dict[str, Any], ...]] = {
    source.format: tuple(dict(zip(source.header or (), row, strict=True)) for row in source.rows)
    for source in SOURCES
    if source.header and source.format in ("csv", "rees46", "gorse")
} | {
    "taobao": (
        {"user_id": "1", "item_id": "100", "category_id": "7", "behavior": "pv", "timestamp": "1511668800"},
        {"user_id": "1", "item_id": "101", "category_id": "7", "behavior": "buy", "timestamp": "1511669100"},
    ),
}


def _parquet_file(chance: random.Random, folder: Path, file_format: str, rows: int) -> Path:
    """Write a Parquet file; columns that Parquet cannot hold are drawn again."""
    import pyarrow as pa  # noqa: PLC0415 (of the files extra)
    import pyarrow.parquet as pq  # noqa: PLC0415

    path = folder / "rows.parquet"
    while True:
        table = _table(pa, chance, file_format, rows)
        try:
            pq.write_table(
                table,
                path,
                compression=chance.choice(("none", "snappy", "gzip", "zstd", "lz4", "brotli")),
                row_group_size=chance.choice((1, 7, 100, 10_000)) if rows < 100 else chance.choice((100, 10_000)),
                use_dictionary=chance.random() < 0.5,
                data_page_version=chance.choice(("1.0", "2.0")),
            )
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # a time beyond 64 bits, a dictionary without texts
            continue
        return path


def _table(pa: Any, chance: random.Random, file_format: str, rows: int) -> Any:
    values = [_parquet_row(chance, file_format, number) for number in range(rows)]
    names = list(dict.fromkeys(name for row in values for name in row))
    if chance.random() < 0.05:
        names.remove(chance.choice(names))
    columns = {name: _column(pa, chance, [row.get(name) for row in values]) for name in names}
    if chance.random() < 0.1:
        columns[chance.choice(("more", "", "TS", "user_id "))] = pa.array([{"a": [1]}] * rows)
    return pa.table(columns)


def _parquet_row(chance: random.Random, file_format: str, number: int) -> dict[str, Any]:
    if file_format == "clickscore":
        row = event(chance, number, BEGAN + 1_000 * number)
    else:
        row = dict(chance.choice(_PARQUET_ROWS[file_format]))
    if chance.random() < 0.4:
        key = chance.choice(list(row))
        row[key] = chance.choice((None, odd_value(chance), chance.choice(ODD_TEXTS)))
    return row


def _column(pa: Any, chance: random.Random, values: list[Any]) -> Any:
    """Return a column of the type that most values have; values of other types become null or text."""
    present = [value for value in values if value is not None]
    numbers = [value for value in present if isinstance(value, int | float) and not isinstance(value, bool)]
    if present and len(numbers) * 2 > len(present):
        return _number_column(pa, chance, [value if value in numbers else None for value in values])
    texts = [None if value is None else str(value).encode(errors="replace").decode() for value in values]
    kind = chance.random()
    if kind < 0.4:
        end = chance.choice((b"", b"", b"\xff"))
        times = pa.array([datetime(2026, 1, 5, 9, 30, tzinfo=UTC)] * len(texts), pa.timestamp("us", "UTC"))
        return chance.choice(
            (
                pa.array([None if text is None else text.encode() + end for text in texts]),
                pa.array(texts, pa.large_string()),
                pa.array(texts).dictionary_encode(),
                pa.array(texts).dictionary_encode(),
                pa.array([[text] for text in texts]),
                times.cast(pa.timestamp(chance.choice(("s", "ms", "us", "ns")), "UTC")),
            )
        )
    return pa.array(texts)


def _number_column(pa: Any, chance: random.Random, values: list[Any]) -> Any:
    whole = [int(value) if value is not None and -(2**63) <= value < 2**63 else None for value in values]
    kind = chance.random()
    if kind < 0.4:
        return pa.array(whole, pa.int64())
    if kind < 0.6:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if kind < 0.7:
        return pa.array([None if value is None else Decimal(value) for value in whole], pa.decimal128(30, 4))
    small = [None if value is None else value % 2**31 for value in whole]
    return chance.choice(
        (
            pa.array(whole, pa.timestamp(chance.choice(("s", "ms", "us", "ns")))),
            pa.array(small, pa.int32()),
            pa.array(small, pa.duration("ms")),
            pa.array([None if value is None else str(value) for value in whole]),
        )
    )
