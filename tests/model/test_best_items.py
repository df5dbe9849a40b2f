"""Native operator: a failure of ONNX Runtime's interface is returned as it is, and nothing stays behind."""

import ctypes
import shutil
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import pytest

from clickscore.model.onnx_runtime import native_library

FUNCTIONS = 100
"""Functions in the table, at least those that the operator calls."""
COMPUTE = 18
"""Position of `compute_v2` in an operator, in sizes of a pointer."""
FAILURE, REFUSAL = 7, 8
"""Addresses that stand for the status of a failed call, and for a status that the operator makes itself."""

GET_DATA, GET_DIMENSIONS_COUNT, GET_DIMENSIONS, GET_SHAPE, GET_INPUT = 51, 61, 62, 65, 90


def _refuse(_: int, __: bytes) -> int:
    return REFUSAL


def _make_domain(_: bytes, domain: Any) -> None:
    domain[0] = 1


def _accept(_: int, __: int) -> None:
    """Take the domain of the operator."""


class Interface:
    """The part of ONNX Runtime's C interface that the operator calls. Each input has one axis of one number."""

    def __init__(self, failing: int, call: int) -> None:
        """Build the table of functions.

        Args:
            failing: Position of the function that fails.
            call: Number of the call that fails, from 1.
        """
        self._failing = failing
        self._remaining = call
        self.open_shapes = 0
        """Number of shapes that the operator has got and not released."""
        self.compute: Callable[[None, None], int | None] | None = None
        """Computes the outputs; present once the operator is registered."""
        self._data = ctypes.create_string_buffer(64)
        status, address = c_void_p, POINTER(c_void_p)
        types: dict[int, Any] = {
            0: (CFUNCTYPE(status, c_int, c_char_p), _refuse),
            26: (CFUNCTYPE(status, c_char_p, address), _make_domain),
            27: (CFUNCTYPE(status, c_void_p, POINTER(c_void_p)), self._register),
            28: (CFUNCTYPE(status, c_void_p, c_void_p), _accept),
            GET_DATA: (CFUNCTYPE(status, c_void_p, address), self._get_data),
            GET_DIMENSIONS_COUNT: (CFUNCTYPE(status, c_void_p, POINTER(c_size_t)), self._get_count),
            GET_DIMENSIONS: (CFUNCTYPE(status, c_void_p, POINTER(c_int64), c_size_t), self._get_dimensions),
            GET_SHAPE: (CFUNCTYPE(status, c_void_p, address), self._get_shape),
            GET_INPUT: (CFUNCTYPE(status, c_void_p, c_size_t, address), self._get_input),
            99: (CFUNCTYPE(None, c_void_p), self._release),
        }
        self._functions = {position: kind(function) for position, (kind, function) in types.items()}
        self._table = (c_void_p * FUNCTIONS)()
        for position, function in self._functions.items():
            self._table[position] = ctypes.cast(function, c_void_p).value
        self._get_api = CFUNCTYPE(c_void_p, c_uint32)(self._address)
        self.base = (c_void_p * 2)(ctypes.cast(self._get_api, c_void_p).value, None)

    def _status(self, position: int) -> int | None:
        """Return the status of a call."""
        if position == self._failing:
            self._remaining -= 1
            return FAILURE if self._remaining == 0 else None
        return None

    def _address(self, _: int) -> int:
        return ctypes.addressof(self._table)

    def _register(self, _: int, operator: Any) -> None:
        self.compute = CFUNCTYPE(c_void_p, c_void_p, c_void_p)(operator[COMPUTE])

    def _get_input(self, _: int, __: int, value: Any) -> int | None:
        failure = self._status(GET_INPUT)
        value[0] = None if failure else 1
        return failure

    def _get_shape(self, _: int | None, shape: Any) -> int | None:
        failure = self._status(GET_SHAPE)
        shape[0] = None if failure else 1
        self.open_shapes += failure is None
        return failure

    def _get_count(self, _: int | None, count: Any) -> int | None:
        count[0] = 1
        return self._status(GET_DIMENSIONS_COUNT)

    def _get_dimensions(self, _: int, dimensions: Any, count: int) -> int | None:
        for axis in range(count):
            dimensions[axis] = 1
        return self._status(GET_DIMENSIONS)

    def _get_data(self, _: int, data: Any) -> int | None:
        failure = self._status(GET_DATA)
        data[0] = None if failure else ctypes.addressof(self._data)
        return failure

    def _release(self, shape: int | None) -> None:
        self.open_shapes -= shape is not None


@pytest.mark.skipif(not native_library(), reason="no compiler at installation")
@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize("failing", [GET_INPUT, GET_SHAPE, GET_DIMENSIONS_COUNT, GET_DIMENSIONS, GET_DATA])
def test_failure_of_a_call_is_the_answer_and_leaves_nothing_behind(tmp_path: Path, failing: int, call: int):
    installed = native_library()
    assert installed
    # A copy has an interface of its own: ONNX Runtime keeps the installed library in this process.
    library = ctypes.CDLL(str(shutil.copy(installed, tmp_path / "library.so")))
    library.RegisterCustomOps.restype = c_void_p
    interface = Interface(failing, call)
    assert library.RegisterCustomOps(None, interface.base) is None
    if interface.compute is None:
        pytest.skip("the processor lacks AVX2")
    assert interface.compute(None, None) == FAILURE
    assert interface.open_shapes == 0
