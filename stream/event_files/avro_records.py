# pyright: basic
"""Avro records: read the bytes of a record by the schema with which they were written.

https://avro.apache.org/docs/1.12.0/specification/. A schema comes from a registry that any producer may write to, so
it is bounded. It has no recursion, which would let a small record nest without end. A record's JSON has at most
`MAX_GROWTH` characters for each byte of the record, and `MAX_FREE_TEXT` more: elements of a list without bytes, or with
long names of fields, would make gigabytes of a small record.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import orjson
from fastavro.schema import SchemaParseException, UnknownType

from clickscore.stream.kafka.schema_registry import UnknownSchemaError

MAX_DEPTH = 32
"""Deepest nesting of a schema."""
MAX_TYPES = 2_000
"""Most types in a schema: a named type counts once for each place in which it is used."""
MAX_GROWTH = 128
"""Most characters of JSON for each byte of a record: names of 100 characters for one-byte numbers are possible."""
MAX_FREE_TEXT = 1024 * 1024
"""Most characters of JSON beyond `MAX_GROWTH`: fields that have names and no bytes."""
PRIMITIVE_TEXT = 24
"""Longest JSON of a number. Texts and bytes have longer JSON, and more bytes with it."""
TIME_TYPES = frozenset(
    {
        *(f"{zone}timestamp-{unit}" for zone in ("", "local-") for unit in ("millis", "micros", "nanos")),
        "time-millis",
        "time-micros",
    }
)
"""Logical types that stay the numbers that are stored: a mapping names the unit."""

LIBRARY_PREFIX = "__"
"""Beginning of the names by which fastavro marks a schema as checked: a schema from outside must not have them."""

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def avro_reader(schema: Any, dependencies: Sequence[Any]) -> Callable[[bytes], bytes]:
    """Return the function that reads a record and returns it as JSON.

    Args:
        schema: The schema, as a value of JSON.
        dependencies: Schemas of the types that it refers to, each behind those that it needs itself.

    Raises:
        UnknownSchemaError: The schema is wrong or has no bounds.
    """
    named: dict[str, Any] = {}
    try:
        for dependency in dependencies:
            fastavro.parse_schema(_foreign_schema(dependency), named_schemas=named)
        parsed = fastavro.parse_schema(_foreign_schema(schema), named_schemas=named)
        if _Bounds(named).check(parsed, ()) > MAX_FREE_TEXT:
            message = f"it makes records of more than {MAX_FREE_TEXT} characters without bytes"
            raise ValueError(message)
    except (SchemaParseException, UnknownType, *_FAULTS) as exc:
        message = f"the Avro schema cannot be used: {exc}"
        raise UnknownSchemaError(message) from exc

    def read(payload: bytes) -> bytes:
        """Return a record as JSON.

        Raises:
            ValueError: The bytes are no record of the schema.
        """
        source = io.BytesIO(payload)
        try:
            value = fastavro.schemaless_reader(source, parsed, None)
            text = orjson.dumps(value, default=_to_json)
        except _FAULTS as exc:
            message = f"the bytes are no record of their Avro schema ({str(exc) or type(exc).__name__})"
            raise ValueError(message) from exc
        if source.read(1):
            message = "bytes follow behind the Avro record"
            raise ValueError(message)
        return text

    return read


_FAULTS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What fastavro raises on broken bytes and wrong schemas."""


class _Bounds:
    """Checks that a record's JSON is not much larger than its bytes."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._types = 0

    def check(self, schema: Any, parents: tuple[str, ...]) -> int:
        """Return the free text of a value; refuse a schema without bounds.

        The free text is the length of a value's JSON less `MAX_GROWTH` characters for each of its bytes, for the value
        with most of it. It is negative where the bytes of every value allow more text than the value has.

        Args:
            schema: A parsed schema.
            parents: Names of the types around it.
        """
        self._types += 1
        if len(parents) > MAX_DEPTH or self._types > MAX_TYPES:
            message = "it is nested too deeply, or has too many types"
            raise ValueError(message)
        if isinstance(schema, list):
            return max([self.check(branch, (*parents, "")) for branch in schema], default=0) - MAX_GROWTH
        kind = schema["type"] if isinstance(schema, dict) else schema
        if kind in _PRIMITIVES:
            return len("null") if kind == "null" else PRIMITIVE_TEXT - MAX_GROWTH
        if not isinstance(schema, dict):
            if kind in parents:
                message = f"the type {kind} contains itself"
                raise ValueError(message)
            return self.check(self._named[kind], parents)
        return self._check_complex(kind, schema, parents)

    def _check_complex(self, kind: str, schema: Mapping[str, Any], parents: tuple[str, ...]) -> int:
        inner = (*parents, schema.get("name", ""))
        if kind in ("array", "map"):
            element = self.check(schema["items" if kind == "array" else "values"], inner)
            key = 0 if kind == "array" else len('"":') - MAX_GROWTH
            if element + key > 0:
                message = f"the elements of a list have more than {MAX_GROWTH} characters for each byte"
                raise ValueError(message)
            return len("[]") - MAX_GROWTH
        if kind in ("record", "error"):
            names = sum([len(orjson.dumps(field["name"])) + len(":,") for field in schema["fields"]])
            return len("{}") + names + sum([self.check(field["type"], inner) for field in schema["fields"]])
        if kind == "fixed":
            return PRIMITIVE_TEXT - MAX_GROWTH * int(schema["size"])
        if kind == "enum":
            return max([len(orjson.dumps(symbol)) for symbol in schema["symbols"]], default=0) - MAX_GROWTH
        return self.check(kind, inner)


def _foreign_schema(schema: Any) -> Any:
    """Return a schema whose times are plain numbers, without the library's own marks of a checked schema."""
    if isinstance(schema, list):
        return [_foreign_schema(branch) for branch in schema]
    if isinstance(schema, dict):
        return {
            name: _foreign_schema(value)
            for name, value in schema.items()
            if not (name.startswith(LIBRARY_PREFIX) or (name == "logicalType" and value in TIME_TYPES))
        }
    return schema


def _to_json(value: Any) -> str:
    """Return a value that JSON does not have as text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (Decimal, UUID, date)):
        return str(value)
    raise TypeError(type(value).__name__)
