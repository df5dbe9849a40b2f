"""Bundle options: the choices of an export and their defaults, importable where the train extra is not installed."""

from typing import NamedTuple

CANDIDATES = 64
"""Default number of candidates per session: a policy may drop most candidates and still fill a list."""
PRECISIONS = ("fp32", "int8")
"""Names of the rankings in `export.shortlist.RANKINGS`."""


class ExportOptions(NamedTuple):
    """Choices of an export; the next bundle of the model keeps these choices."""

    candidates: int = CANDIDATES
    """Number of candidates per session."""
    precision: str = PRECISIONS[0]
    """Number format of the product with the whole catalogue."""
    session_neighbours: bool = True
    """Whether the graph has the index of session neighbours of the model."""
