"""JSON lines: events in the JSON of the topic, passed on byte for byte, even if a line is broken."""

from collections.abc import Mapping

import msgspec
import xxhash

from clickscore.schemas.json_depth import bounded_depth
from clickscore.stream.event_files.lines import Line

PARQUET_COLUMNS = ("type", "user_id", "ts")
"""Required columns of a Parquet file of events. All other columns are optional."""


class _LineHead(msgspec.Struct, gc=False):
    """Fields of a line for routing and pacing."""

    user_id: str | None = None
    ts: int | None = None


_decode_head = bounded_depth(msgspec.json.Decoder(_LineHead).decode)


def json_line(number: int, text: bytes) -> Line:
    """Return a line of JSON as a record with the same bytes."""
    try:
        head = _decode_head(text)
    except ValueError:  # broken JSON or wrong types: the worker decodes the whole line and reports the error
        return Line(number, text)
    return Line(number, text, head.user_id.encode() if head.user_id else None, head.ts)


def event_json(fields: Mapping[str, object]) -> bytes:
    """Return the JSON of an event; an event without an id gets the hash of the JSON of the remaining fields."""
    text = msgspec.json.encode(fields, enc_hook=str)
    if "event_id" in fields:
        return text
    return msgspec.json.encode({**fields, "event_id": xxhash.xxh3_128_hexdigest(text)}, enc_hook=str)
