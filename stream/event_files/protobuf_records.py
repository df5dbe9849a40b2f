# pyright: basic
"""Protobuf records: read the bytes of a record by the descriptor of its message.

https://protobuf.dev/programming-guides/encoding/. The registry gives descriptors, so no `.proto` text is parsed here.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import Error as JsonError
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from clickscore.stream.kafka.schema_registry import UnknownSchemaError

MAX_INDEXES = 16
"""Most numbers in the path to a message: its own, and those of the messages around it."""
MAX_NAME_CHARACTERS = 256
"""Longest full name of a message, field or enum value. JSON repeats a name for each element of a list: a small record
with long names would become gigabytes."""

_WELL_KNOWN = (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)


class ProtobufReader:
    """Reads records of the messages of a file of Protobuf."""

    def __init__(self, descriptor: bytes, dependencies: Sequence[tuple[str, bytes]]) -> None:
        """Build the messages.

        Args:
            descriptor: The file, as a serialized FileDescriptorProto.
            dependencies: Name and descriptor of the files that it imports, each behind those that it imports itself.

        Raises:
            UnknownSchemaError: A descriptor is broken, a name is too long, or an imported file is missing.
        """
        pool = descriptor_pool.DescriptorPool()
        known: set[str] = set()
        try:
            for module in _WELL_KNOWN:
                pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
                known.add(module.DESCRIPTOR.name)
            for name, text in (*dependencies, ("", descriptor)):
                file = descriptor_pb2.FileDescriptorProto.FromString(text)
                file.name = name or file.name or "events.proto"
                _check_names(file.package, (*file.message_type, *file.enum_type, *file.extension))
                if file.name not in known:
                    pool.AddSerializedFile(file.SerializeToString())
            self._file = pool.FindFileByName(file.name)
        except (DecodeError, KeyError, TypeError, ValueError) as exc:
            message = f"the Protobuf schema cannot be used: {exc}"
            raise UnknownSchemaError(message) from exc
        self._messages: dict[tuple[int, ...], Callable[[bytes], bytes]] = {}

    def read(self, payload: bytes) -> bytes:
        """Return a record as JSON; the payload begins with the path to its message.

        Raises:
            ValueError: The bytes are no record of the schema.
        """
        indexes, start = read_indexes(payload)
        reader = self._messages.get(indexes)
        if reader is None:
            reader = self._messages[indexes] = _message_reader(self._find(indexes))
        return reader(payload[start:])

    def _find(self, indexes: tuple[int, ...]) -> Descriptor:
        """Return the message of a path."""
        messages = list(self._file.message_types_by_name.values())
        found = None
        for index in indexes:
            if not 0 <= index < len(messages):
                message = f"the schema has no message of the path {list(indexes)}"
                raise ValueError(message)
            found = messages[index]
            messages = list(found.nested_types)
        assert found is not None
        return found


def _check_names(scope: str, parts: Iterable[Any]) -> None:
    """Raise ValueError where a name is too long.

    Args:
        scope: Full name of the package or message around the parts.
        parts: Descriptors of messages, fields, enums and values of enums.
    """
    for part in parts:
        name = f"{scope}.{part.name}"
        if len(name) > MAX_NAME_CHARACTERS:
            message = f"the name {name[:40]}... has more than {MAX_NAME_CHARACTERS} characters"
            raise ValueError(message)
        if isinstance(part, descriptor_pb2.DescriptorProto):
            _check_names(name, (*part.nested_type, *part.enum_type, *part.field, *part.extension))
        elif isinstance(part, descriptor_pb2.EnumDescriptorProto):
            _check_names(scope, part.value)


def read_indexes(payload: bytes) -> tuple[tuple[int, ...], int]:
    """Return the path to the message in a file, and the offset behind it.

    Confluent's format: a count and as many indexes, as numbers in base 128 with the sign in the lowest bit; a single 0
    stands for the first message.

    Raises:
        ValueError: The path is broken or too long.
    """
    count, position = _varint(payload, 0)
    if count == 0:
        return (0,), position
    if not 0 < count <= MAX_INDEXES:
        message = f"the path to the message has {count} numbers, not 1 to {MAX_INDEXES}"
        raise ValueError(message)
    indexes: list[int] = []
    for _ in range(count):
        index, position = _varint(payload, position)
        indexes.append(index)
    return tuple(indexes), position


def _varint(payload: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if position >= len(payload):
            break
        byte = payload[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position
    message = "the path to the message is broken"
    raise ValueError(message)


def _message_reader(descriptor: Descriptor) -> Callable[[bytes], bytes]:
    """Return the function that reads a message and returns it as JSON."""
    message_class = message_factory.GetMessageClass(descriptor)

    def read(payload: bytes) -> bytes:
        try:
            value = MessageToDict(message_class.FromString(payload), preserving_proto_field_name=True)
            return orjson.dumps(value)
        except (DecodeError, JsonError, KeyError, RecursionError, TypeError, ValueError) as exc:
            message = f"the bytes are no message {descriptor.full_name} of Protobuf ({str(exc) or type(exc).__name__})"
            raise ValueError(message) from exc

    return read
