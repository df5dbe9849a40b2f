"""Bundle options: the choices of an export and their defaults, importable where the train extra is not installed."""

from pathlib import Path
from typing import NamedTuple

from clickscore.schemas.manifest import decode_manifest

CANDIDATES = 64
"""Default number of candidates per session: a policy may drop most candidates and still fill a list."""
PRECISIONS = ("fp32", "int8")
"""Names of the rankings in `export.shortlist.RANKINGS`."""


class ExportOptions(NamedTuple):
    """Choices of an export that the next bundle of the same model keeps."""

    candidates: int = CANDIDATES
    """Number of candidates per session."""
    precision: str = PRECISIONS[0]
    """Number format of the product with the whole catalogue."""
    session_neighbours: bool = True
    """Whether an index of session neighbours is in the graph, where the model has one."""


def read_export_options(bundle: Path) -> ExportOptions:
    """Return the choices that a bundle was exported with; the defaults for a folder without a manifest.

    A bundle with fewer items than it should have candidates has all its items as candidates.
    """
    path = bundle / "manifest.json"
    if not path.is_file():
        return ExportOptions()
    manifest = decode_manifest(path.read_bytes())
    has_all_items = manifest.candidates == manifest.items
    return ExportOptions(
        max(CANDIDATES, manifest.candidates) if has_all_items else manifest.candidates,
        manifest.precision,
        manifest.session_neighbours is not None,
    )
