"""Bundle options: the choices of an export and their defaults, importable where the train extra is not installed."""

CANDIDATES = 64
"""Default number of candidates per session: a policy may drop most candidates and still fill a list."""
PRECISIONS = ("fp32", "int8")
"""Names of the rankings in `export.ranking.RANKINGS`."""
