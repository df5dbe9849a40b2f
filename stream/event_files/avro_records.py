# pyright: basic
"""Avro records: read the bytes of a record by the schema with which they were written.

https://avro.apache.org/docs/1.12.0/specification/. A schema comes from a registry that any producer may write to, so
it is bounded: no recursion, which would let a small record nest without end, and no elements without bytes, of which a
small record could have billions.
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
        _Bounds(named).check(parsed, ())
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
    """Checks that a record of a schema is not much larger than its bytes."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._types = 0

    def check(self, schema: Any, parents: tuple[str, ...]) -> int:
        """Return the smallest number of bytes of a value; refuse a schema without bounds.

        Args:
            schema: A parsed schema.
            parents: Names of the types around it.
        """
        self._types += 1
        if len(parents) > MAX_DEPTH or self._types > MAX_TYPES:
            message = "it is nested too deeply, or has too many types"
            raise ValueError(message)
        if isinstance(schema, list):
            return 1 + min([self.check(branch, (*parents, "")) for branch in schema], default=0)
        kind = schema["type"] if isinstance(schema, dict) else schema
        if kind in _PRIMITIVES:
            return {"null": 0, "float": 4, "double": 8}.get(kind, 1)
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
            if not element and kind == "array":
                message = "the elements of a list have no bytes"
                raise ValueError(message)
            return 1
        if kind in ("record", "error"):
            return sum([self.check(field["type"], inner) for field in schema["fields"]])
        if kind == "fixed":
            return int(schema["size"])
        if kind == "enum":
            return 1
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
