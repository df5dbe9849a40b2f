"""Object search: whether a text is anywhere in an object and what it refers to."""

from collections.abc import Iterable, Iterator, Mapping


def mentions(value: object, text: str) -> bool:
    """Return whether a text is in any string or bytes that an object holds, at any depth."""
    encoded = text.encode()
    seen: dict[int, object] = {}  # by identity; the objects live as long as their identities are in use
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str) and text in part:
            return True
        if isinstance(part, bytes | bytearray) and encoded in part:
            return True
        if id(part) not in seen:
            seen[id(part)] = part
            waiting.extend(_parts(part))
    return False


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from value.keys()  # pyright: ignore[reportUnknownVariableType]
        yield from value.values()  # pyright: ignore[reportUnknownVariableType]
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray):
        yield from value  # pyright: ignore[reportUnknownVariableType]
    for name in getattr(value, "__struct_fields__", ()):
        yield getattr(value, name)
    if not isinstance(value, type):
        yield from getattr(value, "__dict__", {}).values()
