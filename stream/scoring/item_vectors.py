"""Item vectors: the directions of a bundle's items, from the table of its graph, at a byte for each dimension.

The exporter names the table `table`: row 0 is padding, row r the item of line r in `items.txt`, as 32-bit floats. A
graph of another origin may have none. ONNX Runtime does not give the table back, and the file may be replaced while a
worker runs, so the directions are kept: 3 MB for 50,000 items of 64 dimensions.
"""

from collections.abc import Sequence

import numpy as np

from clickscore.stream.scoring.external_data import TENSOR_NAME, read_fields, read_varint

TABLE = b"table"
"""Name of the tensor."""
GRAPH, INITIALIZER = 7, 5
"""Fields of a model and of its graph that lead to a tensor."""
DIMENSIONS, DATA_TYPE, RAW_DATA = 1, 2, 9
"""Fields of a tensor."""
FLOAT32 = 1
"""Data type of a tensor of 32-bit floats."""


BLOCK = 65_536
"""Rows that become directions at once: their floats are a few MB."""


def read_directions(model: bytes, items: int) -> np.ndarray | None:
    """Return the direction of each item as 8-bit integers: (items + 1, dimensions), row 0 for padding; None without.

    Args:
        model: ONNX file that ONNX Runtime has accepted.
        items: Number of items.
    """
    graphs = [value for number, value in read_fields(memoryview(model)) if number == GRAPH]
    for graph in graphs:
        for number, tensor in read_fields(graph) if not isinstance(graph, int) else ():
            if number == INITIALIZER and not isinstance(tensor, int):
                table = _read_table(tensor, items)
                if table is not None:
                    return _directions(table)
    return None


def _directions(table: np.ndarray) -> np.ndarray:
    """Return the vectors of a table, each scaled so that its largest number is 127, as 8-bit integers."""
    directions = np.zeros(table.shape, dtype=np.int8)
    for start in range(0, len(table), BLOCK):
        block = np.nan_to_num(table[start : start + BLOCK], posinf=0.0, neginf=0.0)
        largest = np.abs(block).max(axis=1, keepdims=True)
        directions[start : start + BLOCK] = np.rint(block * (127 / np.where(largest > 0, largest, 1.0)))
    return directions


def _read_table(tensor: memoryview, items: int) -> np.ndarray | None:
    """Return the table in a tensor; None for a tensor of another name, type or shape."""
    shape: list[int] = []
    name, data_type, data = b"", 0, memoryview(b"")
    for number, value in read_fields(tensor):
        if number == DIMENSIONS:
            shape += [value] if isinstance(value, int) else _unpacked(value)
        elif number == DATA_TYPE and isinstance(value, int):
            data_type = value
        elif number == TENSOR_NAME and not isinstance(value, int):
            name = bytes(value)
        elif number == RAW_DATA and not isinstance(value, int):
            data = value
    is_table = name == TABLE and data_type == FLOAT32 and len(shape) == 2 and shape[0] == items + 1
    if not is_table or len(data) != 4 * shape[0] * shape[1]:
        return None
    return np.frombuffer(data, dtype="<f4").reshape(shape)


def _unpacked(numbers: memoryview) -> list[int]:
    """Return the numbers of a packed field."""
    values: list[int] = []
    index = 0
    while index < len(numbers):
        value, index = read_varint(numbers, index)
        values.append(value)
    return values


def unit_vectors(directions: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """Return the vectors of some rows at length 1; zeros for row 0: (rows, dimensions).

    Args:
        directions: Direction of each item: (items + 1, dimensions).
        rows: Row of each item; 0 for an unknown item.
    """
    index = np.array(rows, dtype=np.int64)
    vectors = directions[index].astype(np.float64) * (index > 0)[:, None]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)
