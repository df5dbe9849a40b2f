"""Packaged bundle: the demo's bundle, which is part of the package and has the name `demo`."""

from pathlib import Path

DEMO = "demo"
"""Name of the packaged bundle wherever a command or setting takes a bundle's folder; `./demo` is a folder."""
DEMO_FOLDER = Path(__file__).parents[1] / "stream" / "bundles" / "demo"


def resolve_folder(folder: str | Path) -> Path:
    """Return the folder of a bundle; the name `demo` stands for the packaged bundle."""
    return DEMO_FOLDER if str(folder) == DEMO else Path(folder)
