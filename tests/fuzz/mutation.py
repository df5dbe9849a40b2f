"""Mutation: good values with mistakes in them, the same for the same seed.

Most mistakes are of structure: another type, a field twice, a number at its limit. Random bytes alone hardly get past
the first brace of a decoder.
"""

import json
import random
import re
from collections.abc import Sequence
from typing import Any

RAW = re.compile(r'"<<(.*?)>>"')
"""A text that stands for JSON which no JSON library writes, such as `1e400`."""

ODD_NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 0.5, -0.0, 1e-320, 1.7e308,
    "<<1e400>>", "<<-1e400>>", "<<1E5>>", "<<-0>>", "<<007>>", "<<+1>>", "<<.5>>", "<<1.>>", "<<0x10>>",
    "<<NaN>>",
    "<<Infinity>>", f"<<{'9' * 400}>>", f"<<{'9' * 5000}>>", f"<<0.{'0' * 400}1>>",
)  # fmt: skip
ODD_TIMES: tuple[Any, ...] = (
    -1, 0, 1_700_000_000, 946_684_799_999, 946_684_800_000, 253_402_300_799_999, 253_402_300_800_000,
    1_700_000_000_000_000, 1_700_000_000_000_000_000, "soon", "1700000000000", "2023-11-14T22:13:20Z", "-",
    "9999-99-99",
)  # fmt: skip
ODD_TEXTS: tuple[str, ...] = (
    "", " ", "\0", "\t", "a\nb", "a\r\nb", "\x1b]0;title\x07", "\x1b[2J", "\u202egnp.exe", "\u2066x", "\ufeffx",
    "\ufffd", "\ud800", "\udfff\ud800", "e\u0301" * 20, "\U0001f9e6", "\u00df" * 256, "x" * 256, "x" * 257, "x" * 1024,
    "x" * 1025, "\u0130", "\uff41", "\u0661\u0662", "\uff11\uff12", "1_000", "null", "None", "NaN", "inf", "-inf",
    "1e999", "=1+1", "<script>", "'; DROP TABLE", "../../etc/passwd", "%s%n", "{}", "[]", '"', '""', "\\", "\\u0000",
    "a,b", "a;b", "a|b",
)  # fmt: skip
ODD_BYTES: tuple[bytes, ...] = (
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b'"',
    b"\n",
    b"\r",
    b"{",
    b"]",
)


def odd_value(chance: random.Random) -> Any:
    """Return a JSON value that a field hardly expects."""
    kind = chance.random()
    if kind < 0.3:
        return chance.choice(ODD_NUMBERS)
    if kind < 0.6:
        return chance.choice(ODD_TEXTS)
    if kind < 0.75:
        return chance.choice(ODD_TIMES)
    if kind < 0.85:
        return chance.choice((None, True, False, [], {}, [[]], {"": None}, [None] * 50))
    return nested(chance, chance.choice((1, 5, 62, 63, 64, 65, 200, 5_000)))


def nested(chance: random.Random, depth: int) -> str:
    """Return arrays or objects within each other, sometimes one end short."""
    begin, end = chance.choice((("[", "]"), ('{"a":', "}")))
    inner = "" if begin == "[" else "1"
    return f"<<{begin * depth}{inner}{end * (depth - (chance.random() < 0.1))}>>"


def encoded(chance: random.Random, value: Any) -> bytes:
    """Return JSON of a value, with spaces and escapes or without."""
    text = json.dumps(
        value,
        ensure_ascii=chance.random() < 0.5,
        separators=(",", ":") if chance.random() < 0.8 else None,
    )
    return (RAW.sub(lambda raw: raw.group(1), text) if "<<" in text else text).encode("utf-8", "surrogatepass")


def mutated_record(chance: random.Random, record: dict[str, Any], mistakes: float = 0.6) -> bytes:
    """Return the JSON of a record, with a mistake or without.

    Args:
        chance: Source of chance.
        record: A good record.
        mistakes: Share of records with a mistake.
    """
    if chance.random() >= mistakes:
        return encoded(chance, record)
    kind = chance.random()
    if kind < 0.65:
        record = json.loads(json.dumps(record))
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            _mutate_field(chance, record)
        return encoded(chance, record)
    if kind < 0.72:
        return _with_field_twice(chance, record)
    return chance.randbytes(chance.randrange(1, 200)) if kind > 0.97 else _broken_text(chance, encoded(chance, record))


def _broken_text(chance: random.Random, text: bytes) -> bytes:
    kind = chance.random()
    if kind < 0.25:
        around = (b"[%b]", b"%b%b", b"\xef\xbb\xbf%b", b" \t%b ", b"%b,", b"null%b", b'"%b"')
        return chance.choice(around).replace(b"%b", text)
    return text[: chance.randrange(len(text))] if kind < 0.5 else mutated_bytes(chance, text)


def _mutate_field(chance: random.Random, record: dict[str, Any]) -> None:
    places = list(_places(record))
    if not places:
        return
    container, key = chance.choice(places)
    kind = chance.random()
    if kind < 0.6:
        container[key] = odd_value(chance)
    elif kind < 0.7:
        del container[key]
    elif kind < 0.8 and isinstance(container, dict):
        container[chance.choice((str(key).upper(), f"{key} ", f"x{key}", ""))] = container.pop(key)
    elif kind < 0.9 and isinstance(container, dict):
        container[chance.choice(("mood", "ts ", "", "\0", "x" * 300))] = odd_value(chance)
    else:
        container[key] = chance.choice(([container[key]], {"value": container[key]}, str(container[key])))


def _places(value: Any) -> Any:
    """Yield each container of a JSON value with each of its keys."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _with_field_twice(chance: random.Random, record: dict[str, Any]) -> bytes:
    key = chance.choice(list(record))
    again = encoded(chance, {key: chance.choice((odd_value(chance), record[key]))})
    text = encoded(chance, record)
    return again[:-1] + b"," + text[1:] if chance.random() < 0.5 else text[:-1] + b"," + again[1:]


def mutated_bytes(chance: random.Random, content: bytes) -> bytes:
    """Return the content with some bytes changed, doubled, moved or cut off."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 6))):
        position = chance.randrange(len(data) + 1)
        length = chance.choice((1, 1, 1, 2, 8, 64))
        piece = data[position : position + length]
        kind = chance.random()
        if kind < 0.3:
            change = chance.randbytes(len(piece))
        elif kind < 0.5:
            change = bytes(byte ^ 1 << chance.randrange(8) for byte in piece)
        else:
            change = chance.choice((b"", piece * 2, bytes(len(piece)), b"[{" * 40, chance.choice(ODD_BYTES)))
        data[position : position + length] = change
    if chance.random() < 0.1:
        del data[chance.randrange(len(data) + 1) :]
    return bytes(data)


def mutated_cells(chance: random.Random, cells: Sequence[str], separator: str, mistakes: float = 0.6) -> bytes:
    """Return a row of text of these cells, with a mistake or without.

    Args:
        chance: Source of chance.
        cells: Cells of a good row.
        separator: Text between two cells.
        mistakes: Share of rows with a mistake.
    """
    changed = list(cells)
    kind = chance.random() / mistakes if mistakes else 1.0
    if kind < 0.5:
        index = chance.randrange(len(changed))
        changed[index] = chance.choice(
            (*map(str, ODD_TIMES), *(str(number).strip("<>") for number in ODD_NUMBERS), *ODD_TEXTS)
        )
    elif kind < 0.65:
        del changed[chance.randrange(len(changed))]
    elif kind < 0.75:
        changed.insert(chance.randrange(len(changed) + 1), chance.choice(ODD_TEXTS))
    quotes = chance.random() < 0.3 or any(separator.strip() in cell or "\n" in cell for cell in changed)
    if quotes and chance.random() < 0.9:
        changed = ['"' + cell.replace('"', '""') + '"' for cell in changed]
    row = separator.join(changed).encode("utf-8", "surrogatepass")
    return mutated_bytes(chance, row) if 0.75 <= kind < 1 else row
