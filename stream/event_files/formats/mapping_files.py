"""Mapping files: find the shipped mappings, and read a mapping by name or by path."""

from functools import cache
from importlib.resources import files
from pathlib import Path

from clickscore.stream.event_files.formats.mapping import EventMapping, MappingError, decode_mapping

MAPPING_SUFFIX = ".toml"
"""Suffix that tells the path of a mapping from the name of a format."""

_FOLDER = files("clickscore.stream.event_files.formats") / "mappings"

SHIPPED_MAPPINGS: tuple[str, ...] = tuple(
    sorted(file.name.removesuffix(MAPPING_SUFFIX) for file in _FOLDER.iterdir() if file.name.endswith(MAPPING_SUFFIX))
)
"""Names of the mappings that come with the package."""


def is_mapping(name: str) -> bool:
    """Return whether the name of a format is a shipped mapping or the path of a mapping."""
    return name in SHIPPED_MAPPINGS or name.endswith(MAPPING_SUFFIX)


def read_mapping(name: str) -> EventMapping:
    """Return the mapping with a name.

    Args:
        name: Name of a shipped mapping, or path of a TOML file.

    Raises:
        MappingError: There is no such mapping, or it is wrong.
    """
    return _shipped_mapping(name) if name in SHIPPED_MAPPINGS else decode_mapping(_read_file(name), name)


def mapping_text(name: str) -> bytes:
    """Return the TOML text of a mapping.

    Args:
        name: Name of a shipped mapping, or path of a TOML file.

    Raises:
        MappingError: There is no such mapping.
    """
    return (_FOLDER / f"{name}{MAPPING_SUFFIX}").read_bytes() if name in SHIPPED_MAPPINGS else _read_file(name)


@cache
def _shipped_mapping(name: str) -> EventMapping:
    return decode_mapping(mapping_text(name), name)


def _read_file(name: str) -> bytes:
    if not name.endswith(MAPPING_SUFFIX):
        message = f"there is no mapping {name}: use one of {', '.join(SHIPPED_MAPPINGS)}, or the path of a .toml file"
        raise MappingError(message)
    try:
        return Path(name).read_bytes()
    except OSError as exc:
        message = f"the mapping {name} cannot be read: {exc.strerror or exc}"
        raise MappingError(message) from exc
