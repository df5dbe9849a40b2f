"""Value faults: describe a wrong value in a sentence with the name of the field."""

import difflib
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import inspect

Step = str | int
"""A field or a key of an object, or an index of a list."""

_KINDS: Mapping[str, str] = {
    "bytes": "bytes in base64",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table of fields",
    "null": "nothing",
}
"""Types in msgspec's messages, in words."""

_BOUNDS: Mapping[str, str] = {">=": "at least", ">": "above", "<=": "at most", "<": "below"}

_UNITS: Mapping[str, tuple[str, str]] = {"str": ("character", "characters"), "bytes": ("byte", "bytes")}
"""What the length of a text and of bytes counts."""

SHOWN_CHARACTERS = 80
"""Characters of a wrong value in a sentence, at most."""


def describe_fault(fault: msgspec.ValidationError, value: object, kind: Any) -> str:  # noqa: ANN401 (any type that msgspec checks)
    """Return a sentence about a value refused by msgspec; a sentence of our own code is returned unchanged.

    msgspec's own message is returned where the value has another fault, as with a field that comes twice in JSON, and
    where the fault lies in a value of another type than structs, dictionaries and lists.

    Args:
        fault: The refusal.
        value: The refused value, of dictionaries, lists, texts and numbers.
        kind: Wanted type of the value.
    """
    if _fault_of(value, kind) != str(fault):
        return str(fault)
    words, _, position = str(fault).partition(" - at ")
    is_key = position.startswith("`key` in ")
    steps: list[Step] = []
    node: Any = value
    for name, index in re.findall(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]", position):
        step: Step = name or (int(index) if index != "..." else _find_key(str(fault), value, steps, kind))
        steps.append(step)
        node = node[step]
    schema = _schema_at(_type_info(kind), steps)
    if schema is None:
        return str(fault)
    field = _join(steps)
    if is_key:
        node = _find_key(str(fault), value, steps, kind)
        schema = _plain(schema).key_type
        field = f"a name in {field}"
    for pattern, describe in _DESCRIPTIONS:
        match = re.fullmatch(pattern, words)
        if match:
            return describe(field, node, schema, match)
    return words


_type_info = functools.cache(inspect.type_info)
"""Returns what msgspec knows of a type: it takes milliseconds, and the types of records are few."""


def _find_key(fault: str, value: Any, steps: Sequence[Step], kind: Any) -> str:  # noqa: ANN401
    """Return the key with a fault, by a check of each key alone: msgspec names no key.

    Args:
        fault: msgspec's message.
        value: The refused value.
        steps: Path of the object with the key.
        kind: Wanted type of the value.
    """
    node = value
    for step in steps:
        node = node[step]
    return next(key for key in node if _fault_of(_with_one_key(value, steps, key), kind) == fault)


def _fault_of(value: object, kind: Any) -> str:  # noqa: ANN401
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        return str(exc)
    return ""


def _with_one_key(value: Any, steps: Sequence[Step], key: str) -> Any:  # noqa: ANN401
    """Return a value with a single key in the object at a path."""
    if not steps:
        return {key: value[key]}
    part = _with_one_key(value[steps[0]], steps[1:], key)
    if isinstance(value, list):
        return [part if index == steps[0] else other for index, other in enumerate(value)]
    return {**value, steps[0]: part}


def _join(steps: Sequence[Step]) -> str:
    """Return a path in the words of the file: `pin[0].item`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _alternatives(schema: Any) -> list[Any]:  # noqa: ANN401
    """Return the allowed types of a schema, without descriptions and without null."""
    if isinstance(schema, inspect.Metadata):
        return _alternatives(schema.type)
    if isinstance(schema, inspect.UnionType):
        return [kind for part in schema.types for kind in _alternatives(part)]
    return [] if isinstance(schema, inspect.NoneType) else [schema]


def _plain(schema: Any) -> Any:  # noqa: ANN401
    """Return the first allowed type of a schema, without a description."""
    return _alternatives(schema)[0]


def _part(kind: Any, step: Step) -> Any:  # noqa: ANN401
    """Return the schema of the part at a step of an allowed type; None for a type without such a part."""
    if isinstance(kind, inspect.StructType):
        names = range(len(kind.fields)) if kind.array_like else [field.encode_name for field in kind.fields]
        return next((field.type for name, field in zip(names, kind.fields, strict=True) if name == step), None)
    if isinstance(kind, inspect.DictType):
        return kind.value_type
    return kind.item_type if isinstance(kind, inspect.CollectionType) else None


def _schema_at(schema: Any, steps: Sequence[Step]) -> Any:  # noqa: ANN401
    """Return the schema of the value at a path; None for a part of another type."""
    for step in steps:
        schema = next(filter(None, (_part(kind, step) for kind in _alternatives(schema))), None)
    return schema


def _pattern_words(schema: Any) -> str | None:  # noqa: ANN401
    """Return the words of a type for a pattern, from `extra={"words": ...}`; None without words."""
    if isinstance(schema, inspect.UnionType):
        return next(filter(None, map(_pattern_words, schema.types)), None)
    if isinstance(schema, inspect.Metadata):
        return (schema.extra or {}).get("words") or _pattern_words(schema.type)
    return None


def show_value(value: object) -> str:
    """Return a wrong value for a sentence, cut after `SHOWN_CHARACTERS`."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _describe_unknown(field: str, node: Any, schema: Any, match: re.Match[str]) -> str:  # noqa: ANN401
    del node
    name, names = match[1], [known.encode_name for known in _plain(schema).fields]
    similar = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {similar[0]}?" if similar else f"the fields are {', '.join(names)}"
    return f"unknown field {f'{field}.' if field else ''}{name} ({hint})"


def _describe_missing(field: str, node: Any, schema: Any, match: re.Match[str]) -> str:  # noqa: ANN401
    del node, schema
    return f"{f'{field}.' if field else ''}{match[1]} is missing"


def _describe_type(field: str, node: Any, schema: Any, match: re.Match[str]) -> str:  # noqa: ANN401
    del schema
    kinds = [_KINDS.get(kind, kind) for kind in match[1].split(" | ") if kind != "null"]
    return f"{field or 'it'} must be {' or '.join(kinds)}, not {show_value(node)}"


def _describe_bound(field: str, node: Any, schema: Any, match: re.Match[str]) -> str:  # noqa: ANN401
    del schema
    return f"{field} must be {_BOUNDS[match[1]]} {match[2].removesuffix('.0')}, not {show_value(node)}"


def _describe_length(field: str, node: Any, schema: Any, match: re.Match[str]) -> str:  # noqa: ANN401
    del schema
    noun, plural = _UNITS.get(match[1], ("entry", "entries"))
    count = "" if match[1] == "bytes" else f", not {len(node)}"  # the value may be bytes in base64
    return f"{field} must have {_BOUNDS[match[2]]} {match[3]} {noun if match[3] == '1' else plural}{count}"


def _describe_pattern(field: str, node: Any, schema: Any, match: re.Match[str]) -> str:  # noqa: ANN401
    return f"{field} must {_pattern_words(schema) or f'match {match[1]}'}, not {show_value(node)}"


def _describe_choice(field: str, node: Any, schema: Any, match: re.Match[str]) -> str:  # noqa: ANN401
    del match
    return f"{field} must be one of {', '.join(map(str, _plain(schema).values))}, not {show_value(node)}"


_DESCRIPTIONS: Sequence[tuple[str, Callable[[str, Any, Any, re.Match[str]], str]]] = (
    (r"Object contains unknown field `(.+)`", _describe_unknown),
    (r"Object missing required field `(.+)`", _describe_missing),
    (r"Expected `(.+)`, got `.+`", _describe_type),
    (r"Expected `\w+` (>=|>|<=|<) (.+)", _describe_bound),
    (r"Expected `(\w+)` of length (>=|<=) (\d+)", _describe_length),
    (r"Expected `str` matching regex '(.+)'", _describe_pattern),
    (r"Invalid enum value .+", _describe_choice),
)
"""Messages of msgspec, each with the function for the same in words."""
