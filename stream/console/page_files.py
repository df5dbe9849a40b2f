"""Page files: the files of the console's pages, with their media types."""

from functools import cache
from importlib.resources import files
from typing import NamedTuple

MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
"""Media types by the end of a file's name."""


class PageFile(NamedTuple):
    """A file of the pages."""

    content: bytes
    media_type: str


@cache
def page_files() -> dict[str, PageFile]:
    """Return all files of the pages by name. Nothing else is ever served."""
    folder = files("clickscore.stream.console") / "pages"
    return {
        entry.name: PageFile(entry.read_bytes(), MEDIA_TYPES[suffix])
        for entry in folder.iterdir()
        if (suffix := entry.name.rpartition(".")[2]) in MEDIA_TYPES
    }
