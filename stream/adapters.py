"""Adapters: event files of several shapes, read as the lines that `clickstream-events` would hold.

* `clickscore`  JSON lines as the topic holds them; passed on byte for byte, even broken ones, as a topic would
* `taobao`      Taobao UserBehavior: user, item, category, behaviour, seconds; no header
* `rees46`      REES46 stores: a header names the columns
* `csv`         any shop's rows: a header names event_time, event_type, item, category, user, session, price

Files may be plain, gzip, Zstandard or Parquet: their first bytes say which. Where a source has no event ids, an id is
the hash of its row, so that an exact duplicate repeats it, in any process.
"""

import csv
import io
import math
import re
import select
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self

import msgspec
import xxhash

from schemas.events import AnyEvent, Cart, Favourite, Purchase, RemoveFromCart, View, decode_record, encode_event
from stream.errors import InputFileError
from stream.parquet import EVENT_COLUMNS, PARQUET_MAGIC, ParquetRows, csv_line, event_line

Format = Literal["clickscore", "taobao", "rees46", "csv"]

CHUNK_BYTES = 64 * 1024
MAX_LINE_BYTES = 1024 * 1024
"""A longer line is an error in words: no event is near it, and a file without line ends must not fill the memory."""
LIVE_WAIT_SECONDS = 0.1
"""How long a read waits on a silent pipe, before its reader may do something else."""

MAX_REASONS = 100
"""Reasons that `Faults` keeps apart: one that repeats what stands in the line could be new each time."""

_PARTICULAR = re.compile(r" \(byte \d+\)")

HeadedEvent = Callable[[list[str], str, tuple[int, ...]], AnyEvent]
"""Makes an event of a row, its id, and where the columns are."""
ItemEventClass = type[View] | type[Cart] | type[RemoveFromCart] | type[Favourite] | type[Purchase]

TAOBAO_CLASSES: dict[str, ItemEventClass] = {"pv": View, "cart": Cart, "fav": Favourite, "buy": Purchase}
TAOBAO_COLUMNS = ("user_id", "item_id", "category_id", "behavior", "timestamp")
"""As its authors name them, which a Parquet file must; the CSV names none."""
REES46_CLASSES: dict[str, ItemEventClass] = {
    "view": View,
    "cart": Cart,
    "remove_from_cart": RemoveFromCart,
    "purchase": Purchase,
}
REES46_COLUMNS = (
    "event_time",
    "event_type",
    "product_id",
    "category_id",
    "category_code",
    "brand",
    "price",
    "user_id",
    "user_session",
)

CSV_CLASSES: dict[str, ItemEventClass] = {
    "view": View,
    "cart": Cart,
    "remove_from_cart": RemoveFromCart,
    "favourite": Favourite,
    "follow": Favourite,
    "purchase": Purchase,
}
CSV_COLUMNS = ("event_time", "event_type", "item", "category", "user", "session", "price")
"""The time is ISO 8601, UTC unless it says otherwise; category, session and price may be empty."""


GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Place(NamedTuple):
    """How far a file has been read, so that reading can go on there."""

    number: int = 0
    """Lines read; rows, of a Parquet file."""
    offset: int = 0
    """Bytes that they take, decompressed; 0 of a Parquet file."""


BEGINNING = Place()


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of a file: a record for the topic, or an error in words."""

    number: int
    """From 1, the header included."""
    value: bytes = b""
    """The record's value."""
    key: bytes | None = None
    """The user id; none where a broken line of a `clickscore` file does not say."""
    ts: int | None = None
    """Event time in ms, where the line says it."""
    error: str | None = None
    """Why there is no record."""

    @property
    def routing(self) -> bytes:
        """What chooses the partition: the key, or the value of a record without one, so that a rerun does the same."""
        return self.value if self.key is None else self.key


def event_id_of(row: bytes) -> str:
    """Return the id of an event whose source has none: equal rows, and only those, have equal ids."""
    return xxhash.xxh3_128_hexdigest(row)


def taobao_event(row: list[str], event_id: str) -> AnyEvent:
    """Return the event of a row: user_id, item_id, category_id, behaviour, seconds since the epoch.

    Raises:
        ValueError: The row is malformed, in words.
    """
    if len(row) != 5:
        message = f"{len(row)} columns instead of 5"
        raise ValueError(message)
    user, item, category, behaviour, seconds = row
    kind = TAOBAO_CLASSES.get(behaviour)
    if kind is None:
        message = f"unknown behaviour {behaviour!r}"
        raise ValueError(message)
    if not (seconds.isascii() and seconds.removeprefix("-").isdigit()):
        message = "the timestamp is no whole number of seconds"
        raise ValueError(message)
    return kind(event_id=event_id, user_id=user, ts=int(seconds) * 1000, item_id=item, category=category or None)


def rees46_event(row: list[str], event_id: str, columns: tuple[int, ...] = tuple(range(9))) -> AnyEvent:
    """Return the event of a row; `columns` says where each of `REES46_COLUMNS` stands in it.

    The category is its name where the shop has one, else its number.

    Raises:
        ValueError: The row is malformed, in words.
    """
    try:
        time, kind_name, item, category_id, category, _, price, user, session = [row[column] for column in columns]
    except IndexError:
        message = "fewer columns than the header has"
        raise ValueError(message) from None
    kind = REES46_CLASSES.get(kind_name)
    if kind is None:
        message = f"unknown event_type {kind_name!r}"
        raise ValueError(message)
    return kind(
        event_id=event_id,
        user_id=user,
        ts=_rees46_ts(time),
        session_id=session or None,
        item_id=item,
        price=_price(price),
        category=category or category_id or None,
    )


def csv_event(row: list[str], event_id: str, columns: tuple[int, ...] = tuple(range(7))) -> AnyEvent:
    """Return the event of a row; `columns` says where each of `CSV_COLUMNS` stands in it.

    Raises:
        ValueError: The row is malformed, in words.
    """
    try:
        time, kind_name, item, category, user, session, price = [row[column] for column in columns]
    except IndexError:
        message = "fewer columns than the header has"
        raise ValueError(message) from None
    kind = CSV_CLASSES.get(kind_name)
    if kind is None:
        message = f"unknown event_type {kind_name!r}"
        raise ValueError(message)
    return kind(
        event_id=event_id,
        user_id=user,
        ts=_iso_ts(time.removesuffix(" UTC")),
        session_id=session or None,
        item_id=item,
        price=_price(price),
        category=category or None,
    )


@lru_cache(maxsize=1024)  # neighbours in a file share their second
def _iso_ts(time: str) -> int:
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        message = "event_time is not like `2018-03-01 00:00:06`"
        raise ValueError(message) from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


@lru_cache(maxsize=1024)  # neighbours in a file share their second
def _rees46_ts(time: str) -> int:
    try:
        if not time.endswith(" UTC"):
            raise ValueError  # noqa: TRY301 (no zone and a wrong date are the same fault)
        return int(datetime.fromisoformat(time.removesuffix(" UTC")).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        message = "event_time is not like `2019-10-01 00:00:00 UTC`"
        raise ValueError(message) from None


def _price(text: str) -> float | None:
    if not text:
        return None
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not math.isfinite(price):
        message = "price is no number"
        raise ValueError(message)
    return price


class _Head(msgspec.Struct, gc=False):
    """What routing and pacing need of a line that is passed on as it is."""

    user_id: str | None = None
    ts: int | None = None


_decode_head = msgspec.json.Decoder(_Head).decode


def _clickscore_line(number: int, line: bytes) -> Line:
    try:
        head = _decode_head(line)
    except ValueError:  # broken, or of other types: whoever decodes it whole will say so
        return Line(number, line)
    return Line(number, line, head.user_id.encode() if head.user_id else None, head.ts)


def _row_line(number: int, line: bytes, to_event: Callable[[list[str], str], AnyEvent]) -> Line:
    row = line.removesuffix(b"\r")
    try:
        event = to_event(_columns(row), event_id_of(row))
        value = encode_event(event)
        decode_record(value)  # the schema's bounds: a struct that is built is not checked
    except UnicodeDecodeError:
        return Line(number, error="the row is not UTF-8")
    except (ValueError, csv.Error) as exc:
        return Line(number, error=str(exc))
    return Line(number, value, event.user_id.encode(), event.ts)


def _columns(row: bytes) -> list[str]:
    text = row.decode()
    return next(csv.reader([text], strict=True)) if '"' in text else text.split(",")


def _taobao_line(number: int, line: bytes) -> Line:
    return _row_line(number, line, taobao_event)


def _rees46_line(number: int, line: bytes) -> Line:
    """Return the line of a row whose columns stand in the order of `REES46_COLUMNS`."""
    return _row_line(number, line, rees46_event)


def _csv_line(number: int, line: bytes) -> Line:
    """Return the line of a row whose columns stand in the order of `CSV_COLUMNS`."""
    return _row_line(number, line, csv_event)


_OF_PARQUET = {
    "clickscore": (EVENT_COLUMNS, event_line, _clickscore_line),
    "taobao": (TAOBAO_COLUMNS, csv_line(TAOBAO_COLUMNS), _taobao_line),
    "rees46": (REES46_COLUMNS, csv_line(REES46_COLUMNS), _rees46_line),
    "csv": (CSV_COLUMNS, csv_line(CSV_COLUMNS), _csv_line),
}
"""Of each format: the columns that a Parquet file must have, how a row becomes a line of text, and that a `Line`."""


class _Headed:
    """Lines of a file whose first one says in which column is what."""

    def __init__(self, path: Path, names: Sequence[str], to_event: HeadedEvent, kind: str) -> None:
        self._path, self._names, self._to_event, self._kind = path, names, to_event, kind
        self._columns: tuple[int, ...] = ()

    def __call__(self, number: int, line: bytes) -> Line | None:
        if number > 1:
            return _row_line(number, line, lambda row, event_id: self._to_event(row, event_id, self._columns))
        names = line.decode("utf-8-sig", errors="replace").strip().split(",")
        lacking = [name for name in self._names if name not in names]
        if lacking:
            message = f"{self._path} is no {self._kind} file: its first line does not name {', '.join(lacking)}"
            raise InputFileError(message)
        self._columns = tuple(names.index(name) for name in self._names)
        return None


class EventFile:
    """An open event file, a context manager: iterate over its lines, or over `chunks` of them as they come.

    Raises:
        InputFileError: It cannot be opened or read on, or is not of this format.
    """

    def __init__(self, path: Path, file_format: Format, start: Place = BEGINNING) -> None:
        """Open a file to read from `start` on, which is a `place` that an earlier reading came to."""
        self.path = path
        self.place = start
        """How far the lines that were yielded go."""
        self.live = str(path) == "-"
        """Whether it is stdin, where silence is no end."""
        self.position = 0
        """Bytes read so far, as they lie on disk."""
        try:
            # Unbuffered: what a pipe holds is to be had now, not once a buffer is full.
            self._raw = io.FileIO(sys.stdin.fileno() if self.live else path, closefd=not self.live)
            self.size = 0 if self.live else path.stat().st_size
            """Bytes on disk, 0 where nobody knows."""
        except OSError as exc:
            raise self._unreadable(exc.strerror or str(exc)) from exc
        self._format: Format = file_format
        self._to_line: Callable[[int, bytes], Line | None] = {
            "clickscore": _clickscore_line,
            "taobao": _taobao_line,
            "rees46": _Headed(path, REES46_COLUMNS, rees46_event, "REES46"),
            "csv": _Headed(path, CSV_COLUMNS, csv_event, "csv"),
        }[file_format]
        self._parquet = not self.live and _begins_with(self._raw, PARQUET_MAGIC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def __iter__(self) -> Iterator[Line]:
        return (line for chunk in self.chunks() for line in chunk)

    def chunks(self) -> Iterator[list[Line]]:
        """Yield lines as they come, some at a time; an empty list where a live file has been silent for a moment."""
        return self._rows() if self._parquet else self._texts()

    def _texts(self) -> Iterator[list[Line]]:
        number, offset = self.place
        if number and self._format in ("rees46", "csv"):
            self._learn_header()
        for texts, taken in _split(self._bytes(offset)):
            lines: list[Line] = []
            for text in texts:
                number += 1
                if len(text) > MAX_LINE_BYTES:
                    lines.append(Line(number, error=f"longer than {MAX_LINE_BYTES} bytes"))
                elif text and not text.isspace():
                    line = self._to_line(number, text)
                    if line:
                        lines.append(line)
            self.place = Place(number, offset + taken)
            yield lines

    def _learn_header(self) -> None:
        """Read the first line, which says what the columns are."""
        with EventFile(self.path, self._format) as head:
            first = next(texts for texts, _ in _split(head._bytes(0)) if texts)[0]
        self._to_line(1, first)

    def _rows(self) -> Iterator[list[Line]]:
        """Yield the rows of a Parquet file as lines; a row's number is its place from 1."""
        columns, to_text, to_line = _OF_PARQUET[self._format]
        rows = ParquetRows(self.path, columns, to_text)
        number = self.place.number
        for texts in rows.chunks(number):
            lines = [to_line(number + at, text) for at, text in enumerate(texts, start=1)]
            number += len(texts)
            self.position = self.size * number // rows.count
            self.place = Place(number)
            yield lines

    def _bytes(self, skip: int) -> Iterator[bytes]:
        """Yield the file's content, decompressed, after so many bytes; nothing for now where a live one is silent.

        Raises:
            InputFileError: It cannot be read on.
        """
        inflate: _Inflate | None = None
        try:
            while True:
                if self.live and not select.select([self._raw], [], [], LIVE_WAIT_SECONDS)[0]:
                    yield b""
                    continue
                data = self._raw.read(CHUNK_BYTES)
                if not data:
                    break
                if not self.position:
                    inflate = _inflate_for(data)
                self.position += len(data)
                content = inflate(data) if inflate else data
                if skip >= len(content):
                    skip -= len(content)
                    continue
                yield content[skip:]
                skip = 0
            if inflate and not inflate.complete:
                raise self._unreadable(f"its {inflate.name} data ends early")
        except OSError as exc:
            raise self._unreadable(exc.strerror or str(exc)) from exc
        except BrokenDataError as exc:
            raise self._unreadable(str(exc)) from exc

    def _unreadable(self, why: str) -> InputFileError:
        return InputFileError(f"{'stdin' if self.live else self.path} cannot be read: {why}")


class BrokenDataError(Exception):
    """What is wrong with compressed data, in words."""


class _Member(Protocol):
    """A decompressor of one gzip member or Zstandard frame, as `zlib` and `zstandard` have them."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Inflate:
    """Decompresses gzip or Zstandard piece by piece, several members in a row as `cat` makes them."""

    def __init__(self, name: str, begin: Callable[[], _Member], error: type[Exception]) -> None:
        self.name = name
        self.complete = False
        self._begin = begin
        self._error = error
        self._member = begin()

    def __call__(self, data: bytes) -> bytes:
        pieces: list[bytes] = []
        while data:
            if self._member.eof:
                data = data.lstrip(b"\0")  # padding between members
                if not data:
                    break
                self._member = self._begin()
            try:
                pieces.append(self._member.decompress(data))
            except self._error as exc:
                message = f"its {self.name} data is broken: {exc}"
                raise BrokenDataError(message) from exc
            data = self._member.unused_data
        self.complete = self._member.eof
        return b"".join(pieces)


def _inflate_for(head: bytes) -> _Inflate | None:
    """Return what decompresses a file that begins so; none where it is plain.

    Raises:
        InputFileError: It is compressed by something that is not installed.
    """
    if head.startswith(GZIP_MAGIC):
        return _Inflate("gzip", lambda: zlib.decompressobj(wbits=31), zlib.error)
    if not head.startswith(ZSTD_MAGIC):
        return None
    try:
        import zstandard  # noqa: PLC0415 (of the `files` extra)
    except ModuleNotFoundError as exc:
        message = "a Zstandard file needs the files extra: pip install 'clickscore[files]'"
        raise InputFileError(message) from exc
    return _Inflate("Zstandard", zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError)


def _begins_with(raw: io.FileIO, magic: bytes) -> bool:
    """Look at a file's first bytes; a pipe is left as it is."""
    if not raw.seekable():
        return False
    head = raw.read(len(magic))
    raw.seek(0)
    return head == magic


def _split(chunks: Iterator[bytes]) -> Iterator[tuple[list[bytes], int]]:
    """Yield complete lines without their ends, and the bytes taken so far; of a line above the bound a part that shows.

    The bytes taken are those of the lines that were yielded, with their ends.
    """
    rest = b""
    fed = left = 0  # bytes in all, and of the line that is not complete
    for chunk in chunks:
        fed += len(chunk)
        *lines, tail = chunk.split(b"\n")
        if lines:
            lines[0] = rest + lines[0]
            rest, left = tail, len(tail)
        else:
            rest, left = (rest + tail)[: MAX_LINE_BYTES + 1], left + len(tail)
        yield lines, fed - left
    if rest:
        yield [rest], fed


class Faults:
    """What was wrong with lines: how many by reason, and the first numbers of each."""

    def __init__(self, show: int) -> None:
        self._show = show
        self._counts: Counter[str] = Counter()
        self._first: dict[str, list[int]] = {}

    def add(self, reason: str, number: int) -> None:
        """Count one line, by a reason without what is particular to it."""
        reason = _PARTICULAR.sub("", reason)
        if reason not in self._counts and len(self._counts) >= MAX_REASONS:
            reason = "other reasons"
        self._counts[reason] += 1
        first = self._first.setdefault(reason, [])
        if len(first) < self._show:
            first.append(number)

    @property
    def total(self) -> int:
        """How many lines were wrong."""
        return self._counts.total()

    def report(self) -> list[str]:
        """Return a line a reason, the most frequent first."""
        return [
            f"{count:,} x {reason} (line{'s' if count > 1 else ''} {', '.join(map(str, self._first[reason]))}"
            f"{', ...' if count > len(self._first[reason]) else ''})"
            for reason, count in self._counts.most_common()
        ]
