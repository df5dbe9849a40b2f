"""Mapping files: find the shipped mappings, and read a mapping by name or by path."""

from functools import cache

from clickscore.stream.event_files.formats.mapping import EventMapping, MappingError, decode_mapping
from clickscore.stream.shipped_files import TOML_SUFFIX, ShippedFiles

_SHIPPED = ShippedFiles("clickscore.stream.event_files.formats", "mappings", "mapping", MappingError)

SHIPPED_MAPPINGS = _SHIPPED.names
"""Names of the mappings that come with the package."""


def is_mapping(name: str) -> bool:
    """Return whether the name of a format is a shipped mapping or the path of a mapping."""
    return name in SHIPPED_MAPPINGS or name.endswith(TOML_SUFFIX)


def read_mapping(name: str) -> EventMapping:
    """Return the mapping with a name.

    Args:
        name: Name of a shipped mapping, or path of a TOML file.

    Raises:
        MappingError: There is no such mapping, or it is wrong.
    """
    return _shipped_mapping(name) if name in SHIPPED_MAPPINGS else decode_mapping(mapping_text(name), name)


def mapping_text(name: str) -> bytes:
    """Return the TOML text of a mapping.

    Args:
        name: Name of a shipped mapping, or path of a TOML file.

    Raises:
        MappingError: There is no such mapping.
    """
    return _SHIPPED.read(name)


@cache
def _shipped_mapping(name: str) -> EventMapping:
    return decode_mapping(mapping_text(name), name)
