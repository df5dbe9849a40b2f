"""Mapping values: the value at a path of a record, as text, number or time."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

import jmespath
import jmespath.exceptions
import msgspec

from clickscore.stream.event_files.formats.rows import CACHED_TIMES

Paths = str | list[str]
"""A JMESPath, or several: the first path with a value counts. Null and empty text are no values."""

_EXPONENTS = {"s": 3, "ms": 0, "us": -3, "ns": -6}
"""Power of ten that turns a unit of time into ms."""
TIME_UNITS = {"s": 1000.0, "ms": 1.0, "us": 0.001, "ns": 0.000001}
"""Milliseconds of each unit of a numeric time."""

DATE_PATTERNS = {"yyyymmdd": "%Y%m%d", "yyyy-mm-dd": "%Y-%m-%d"}
"""Patterns of `datetime.strptime` for the named date units."""

_PLAIN_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DAY_MS = 86_400_000


Getter = Callable[[Mapping[str, Any]], Any]
"""Returns a value of a record, or None."""


class TimeSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Path to the time of an event, and the unit of the time."""

    path: Paths
    unit: str
    """`s`, `ms`, `us`, `ns`, `iso`, `iso_or_ms`, `yyyymmdd`, `yyyy-mm-dd`, or a pattern of strptime with a `%`."""
    add: Paths | None = None
    """Path to a number that is added to the time, such as the time since midnight."""
    add_unit: Literal["s", "ms", "us", "ns"] = "ms"


class TimeParser:
    """Reads the time of a record in ms."""

    def __init__(self, source: TimeSource, key: str) -> None:
        if source.unit not in (*TIME_UNITS, *DATE_PATTERNS, "iso", "iso_or_ms") and "%" not in source.unit:
            units = ", ".join((*TIME_UNITS, "iso", "iso_or_ms", *DATE_PATTERNS))
            message = f"the unit {source.unit!r} of {key} is not one of {units}, and no pattern like %d.%m.%Y"
            raise ValueError(message)
        self._unit = source.unit
        self._get = value_getter(source.path, f"{key}.path")
        self._add = value_getter(source.add, f"{key}.add")
        self._add_ms = TIME_UNITS[source.add_unit]

    def parse(self, scope: Mapping[str, Any]) -> int | None:
        """Return the time in ms since the epoch; None if the record has no value at the path."""
        value = self._get(scope)
        if value is None:
            return None
        ts = self._milliseconds(value)
        added = self._add(scope)
        return ts if added is None else ts + int(to_float(added, "the time to add") * self._add_ms)

    def _milliseconds(self, value: Any) -> int:  # noqa: ANN401 (a value of JSON)
        unit = self._unit
        if unit == "iso_or_ms":
            unit = "iso" if isinstance(value, str) and not _NUMBER.fullmatch(value) else "ms"
        if unit in TIME_UNITS:
            return _scale(value, unit)
        return _parse_date(str(value), DATE_PATTERNS.get(unit, unit))


def _scale(value: Any, unit: str) -> int:  # noqa: ANN401 (a value of JSON)
    """Return a numeric time in ms; whole numbers are computed without a float."""
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit() and len(value) <= 20:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value * 1000 if unit == "s" else value // {"ms": 1, "us": 1000, "ns": 1_000_000}[unit]
    number = to_float(value, "the time")
    exact = Decimal(value.strip() if isinstance(value, str) else repr(number))  # in floats, 1.001 s may be 1,000 ms
    return math.floor(exact.scaleb(_EXPONENTS[unit]))


@lru_cache(maxsize=CACHED_TIMES)
def _parse_date(text: str, unit: str) -> int:
    """Return a date or time in ms since the epoch; a time without a zone is UTC.

    Args:
        text: The date or time.
        unit: `iso`, or a pattern of strptime.

    Raises:
        ValueError: The text is not in the unit.
    """
    try:
        if unit == "iso":
            time = datetime.fromisoformat(text.strip().removesuffix(" UTC"))
        else:
            time = datetime.strptime(text.strip(), unit)  # noqa: DTZ007 (the zone follows)
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        since = time - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        message = "the time is not like " + ("`2026-03-01T08:00:00Z`" if unit == "iso" else f"`{unit}`")
        raise ValueError(message) from None
    return since.days * _DAY_MS + since.seconds * 1000 + since.microseconds // 1000


def path_list(paths: Paths | None) -> list[str]:
    """Return the paths as a list."""
    return [] if paths is None else [paths] if isinstance(paths, str) else paths


def value_getter(paths: Paths | None, key: str) -> Getter:
    """Return a function that gets the first value of some paths.

    Args:
        paths: Paths of a mapping; None gets no value.
        key: Key in the mapping, for messages.

    Raises:
        ValueError: A path is no JMESPath.
    """
    getters = [_path_getter(path, key) for path in path_list(paths)]
    if len(getters) == 1:
        get = getters[0]
        return lambda scope: None if (value := get(scope)) == "" else value

    def get_first(scope: Mapping[str, Any]) -> Any:  # noqa: ANN401 (a value of JSON)
        for get in getters:
            value = get(scope)
            if value is not None and value != "":
                return value
        return None

    return get_first


def _path_getter(path: str, key: str) -> Getter:
    """Return a function that gets the value at a path.

    Args:
        path: A JMESPath.
        key: Key in the mapping, for messages.

    Raises:
        ValueError: The path is no JMESPath.
    """
    if _PLAIN_PATH.fullmatch(path):  # a library call takes 20 times as long as a dictionary
        return _plain_getter(path.split("."))
    try:
        compiled: Any = jmespath.compile(path)
    except jmespath.exceptions.JMESPathError as exc:
        message = f"{key} has a path that is no JMESPath: {path!r}: {' '.join(str(exc).split())}"
        raise ValueError(message) from exc

    def search(scope: Mapping[str, Any]) -> Any:  # noqa: ANN401
        try:
            return compiled.search(scope)
        except jmespath.exceptions.JMESPathError as exc:
            message = f"{key}: {' '.join(str(exc).split())}"
            raise ValueError(message) from exc

    return search


def _plain_getter(names: Sequence[str]) -> Getter:
    def get(scope: Mapping[str, Any]) -> Any:  # noqa: ANN401
        value: Any = scope
        for name in names:
            if not isinstance(value, dict):
                return None
            value = value.get(name)
        return value

    return get


def missing_value(field: str, paths: Paths | None) -> str:
    """Return the message for a field without a value at any of its paths."""
    return f"{field} is missing: there is no value at {' or '.join(path_list(paths)) or 'any path'}"


def to_text(value: Any, field: str) -> str | None:  # noqa: ANN401
    """Return a value of JSON as text; a number becomes its digits, and null stays None.

    Raises:
        ValueError: The value is neither text nor a number; the message names the field.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    message = f"{field} is neither text nor a number"
    raise ValueError(message)


def to_float(value: Any, field: str) -> float:  # noqa: ANN401
    """Return a number, or text that is a number, as a float.

    Raises:
        ValueError: The value is no finite number; the message names the field.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        number = float(value) if is_number or (isinstance(value, str) and _NUMBER.fullmatch(value)) else math.nan
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        message = f"{field} is no number"
        raise ValueError(message)
    return number


def to_int(value: Any, field: str) -> int:  # noqa: ANN401
    """Return a whole number, or text that is one, as an int.

    Raises:
        ValueError: The value is no whole number; the message names the field.
    """
    number = to_float(value, field)
    if not number.is_integer():
        message = f"{field} is no whole number"
        raise ValueError(message)
    return int(number)
