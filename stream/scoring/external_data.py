"""External data: find the tensors of an ONNX file whose data lie in another file.

ONNX Runtime would read such a file from the process's working directory, outside the content hash of the bundle.
Serving has no `onnx` package, so this module walks through the protobuf messages of the file by itself
(https://protobuf.dev/programming-guides/encoding/). Field numbers are those of `onnx.proto`.
"""

from collections.abc import Iterator

LOCATION = b"location"
"""Key of an external tensor's file name; ONNX Runtime refuses external data without it."""
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""

MAX_VARINT = 10
"""Bytes of the longest number: 64 bits, 7 a byte."""

_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
"""Kind of each message field that leads to a tensor, by the kind of message and field number."""
TENSOR_NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14
"""Fields of a tensor; `DATA_LOCATION` 1 means external."""


def find_external_tensors(model: bytes) -> list[str]:
    """Return the names of the tensors whose data lie outside an ONNX file.

    Args:
        model: ONNX file. Bytes that are no protobuf messages give an incomplete list; ONNX Runtime refuses them.
    """
    if LOCATION not in model:
        return []  # the usual case: a search over the bytes takes no time, and the walk takes 0.3 s per MB of trees
    names: list[str] = []
    pending = [("model", memoryview(model))]  # a list in place of recursion: a file may nest graphs as deep as it likes
    while pending:
        kind, message = pending.pop()
        try:
            if kind == "tensor":
                names += _name_if_external(message)
                continue
            for number, value in read_fields(message):
                child = _CHILDREN[kind].get(number)
                if child and not isinstance(value, int):
                    pending.append((child, value))
        except (IndexError, ValueError):
            continue
    return names


def _name_if_external(tensor: memoryview) -> list[str]:
    """Return the name of a tensor whose data lie in another file, as a list of one; else an empty list."""
    name, is_external = "", False
    for number, value in read_fields(tensor):
        if number == TENSOR_NAME and not isinstance(value, int):
            name = bytes(value).decode(errors="replace")
        is_external |= number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)
    return [name] if is_external else []


def read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field of a message.

    Raises:
        IndexError: The message ends within a field.
        ValueError: A wire type is unknown.
    """
    index = 0
    while index < len(message):
        tag, index = read_varint(message, index)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, index = read_varint(message, index)
            yield number, value
        elif wire_type == LENGTH_DELIMITED:
            length, index = read_varint(message, index)
            yield number, message[index : index + length]
            index += length
        elif wire_type in (FIXED64, FIXED32):
            index += 8 if wire_type == FIXED64 else 4
        else:
            error = f"{wire_type} is no wire type of protobuf"
            raise ValueError(error)


def read_varint(message: memoryview, index: int) -> tuple[int, int]:
    """Return a number, 7 bits a byte with the lowest first, and the index behind the number."""
    value = 0
    for position in range(MAX_VARINT):
        byte = message[index + position]
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:  # the highest bit says that the number goes on
            return value, index + position + 1
    error = "a number has more than 64 bits"
    raise ValueError(error)
