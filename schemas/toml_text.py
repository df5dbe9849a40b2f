"""TOML text: read settings, policies, mappings and other tables, so that all of them refuse the same texts."""

import tomllib
from typing import Any


def parse_toml(text: bytes) -> dict[str, Any]:
    """Return the tables in a TOML text; editors on Windows begin it with a byte order mark, which is skipped.

    Raises:
        UnicodeDecodeError: The text is not UTF-8.
        ValueError: The text is no TOML. The message says where.
    """
    try:
        return tomllib.loads(text.decode("utf-8-sig"))
    except RecursionError as exc:
        message = "lists are nested too deeply"
        raise ValueError(message) from exc
