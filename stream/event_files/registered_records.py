"""Registered records: Avro, Protobuf and JSON in Confluent's wire format, made JSON by the schemas of a registry.

https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format: a record
is the byte 0, the schema id in four bytes, and the payload. Records are decoded on their way to `clickstream-events`.
So the log of the events has JSON alone, and a replay needs no registry.
"""

import struct
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Protocol

from clickscore.schemas.topics import MAX_ERROR_CHARACTERS
from clickscore.stream.errors import ExtraMissingError
from clickscore.stream.kafka.schema_registry import (
    RegisteredSchema,
    UnknownSchemaError,
    descriptor_bytes,
    json_value,
)

MAGIC = 0
"""First byte of a record with a schema id."""
HEADER = struct.Struct(">bi")
"""The first byte, and the schema id."""
MAX_SCHEMAS = 1_000
"""Most schemas that are kept; the one that was used longest ago goes first."""
MAX_REFUSED_IDS = 10_000
"""Most refused ids that are remembered."""
REFUSED_S = 60.0
"""How long an id stays refused, s: a producer may register a schema after its first record has come."""
MAX_MISSES = 100
"""Most ids without a schema within `REFUSED_S` that the registry is asked for. Then records with further new ids are
dead letters for the rest of that time: a producer of random ids must not slow the relay down to a request each."""

Reader = Callable[[bytes], bytes]
"""Returns the payload of a record as JSON; raises ValueError where it does not fit the schema."""


class Registry(Protocol):
    """Knows schemas by id."""

    async def find(self, schema_id: int) -> RegisteredSchema:
        """Return the schema of an id, with its dependencies.

        Raises:
            UnknownSchemaError: There is no such schema, or it cannot be used.
        """
        ...


class RecordDecoder:
    """Decodes records with a schema id. All other records stay as they are."""

    def __init__(self, registry: Registry, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start without schemas.

        Args:
            registry: Registry to ask, once for each id.
            monotonic: Returns a time that never goes back, s.
        """
        self._registry = registry
        self._monotonic = monotonic
        self._readers: OrderedDict[int, Reader] = OrderedDict()
        self._refused: OrderedDict[int, tuple[float, str]] = OrderedDict()
        self._misses: list[float] = []

    async def prepare(self, values: Iterable[bytes | None]) -> None:
        """Ask the registry for the schemas of records that are not known yet.

        The most frequent ids come first: random ids before them leave no good schema without a request.
        """
        now = self._monotonic()
        ids = Counter(found for value in values if (found := schema_id_of(value)) is not None and found >= 0)
        for schema_id, _ in ids.most_common():
            if schema_id in self._readers:
                self._readers.move_to_end(schema_id)
                continue
            refused = self._refused.get(schema_id)
            if refused is None or now - refused[0] >= REFUSED_S:
                await self._load(schema_id, now)

    async def _load(self, schema_id: int, now: float) -> None:
        """Ask for a schema, unless too many ids were asked for in vain.

        Args:
            schema_id: Id of the schema.
            now: The present time, s.
        """
        self._misses = [missed_at for missed_at in self._misses if now - missed_at < REFUSED_S]
        if len(self._misses) >= MAX_MISSES:
            return
        try:
            self._readers[schema_id] = make_reader(await self._registry.find(schema_id))
        except UnknownSchemaError as exc:
            self._misses.append(now)
            self._refused[schema_id] = (now, str(exc)[:MAX_ERROR_CHARACTERS])
            self._refused.move_to_end(schema_id)
            while len(self._refused) > MAX_REFUSED_IDS:
                self._refused.popitem(last=False)
        else:
            self._refused.pop(schema_id, None)
            while len(self._readers) > MAX_SCHEMAS:
                self._readers.popitem(last=False)

    def decode(self, value: bytes) -> bytes:
        """Return a record as JSON; a record without a schema id as it is.

        Raises:
            ValueError: The schema is unknown, or the bytes do not fit it.
        """
        if not value or value[0] != MAGIC:
            return value
        schema_id = schema_id_of(value)
        if schema_id is None:
            message = f"the record starts with the byte 0 and has {len(value)} bytes: too few for a schema id"
            raise ValueError(message)
        if schema_id < 0:
            message = f"schema id {schema_id}: ids of a registry are not negative"
            raise ValueError(message)
        reader = self._readers.get(schema_id)
        if reader is None:
            _, reason = self._refused.get(schema_id, (0.0, "too many unknown ids: the registry was not asked"))
            message = f"schema id {schema_id}: {reason}"
            raise ValueError(message)
        try:
            return reader(value[HEADER.size :])
        except ValueError as exc:
            message = f"schema id {schema_id}: {exc}"
            raise ValueError(message) from exc


def schema_id_of(value: bytes | None) -> int | None:
    """Return the schema id of a record; None for a record without one."""
    if value is None or len(value) < HEADER.size or value[0] != MAGIC:
        return None
    return HEADER.unpack_from(value)[1]


def make_reader(schema: RegisteredSchema) -> Reader:
    """Return the reader of a schema.

    Raises:
        UnknownSchemaError: The schema cannot be used.
        ExtraMissingError: The library of the format is not installed.
    """
    try:
        # Imported where they are used: the libraries belong to the registry extra.
        if schema.kind == "AVRO":
            from clickscore.stream.event_files.avro_records import avro_reader  # noqa: PLC0415

            return avro_reader(json_value(schema.text), [json_value(text) for _, text in schema.dependencies])
        if schema.kind == "PROTOBUF":
            from clickscore.stream.event_files.protobuf_records import ProtobufReader  # noqa: PLC0415

            files = [(name, descriptor_bytes(text)) for name, text in schema.dependencies]
            return ProtobufReader(descriptor_bytes(schema.text), files).read
    except ModuleNotFoundError as exc:
        message = f"schema_registry needs the registry extra ({exc.name} is missing): pip install '.[registry]'"
        raise ExtraMissingError(message) from exc
    return bytes  # the payload is JSON already
