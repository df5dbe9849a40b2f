"""Field differences: the fields in which two decisions as JSON differ."""

from collections.abc import Iterator

import msgspec

from clickscore.schemas.explanations import FieldDifference


def find_differences(published: bytes, recomputed: bytes) -> list[FieldDifference]:
    """Return the fields that differ; empty where only the bytes do.

    Args:
        published: Published decision; empty where there is none.
        recomputed: The same decision, made again.
    """
    left, right = dict(_leaves("", _decode(published))), dict(_leaves("", _decode(recomputed)))
    return [
        FieldDifference(name, left.get(name, "(none)"), right.get(name, "(none)"))
        for name in {**right, **left}
        if left.get(name) != right.get(name)
    ]


def _decode(value: bytes) -> object:
    return msgspec.json.decode(value) if value else {}


def _leaves(path: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield the path and the JSON of each leaf of a JSON value."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), child)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _leaves(f"{path}[{index}]", child)
    else:
        yield path, msgspec.json.encode(value).decode()
