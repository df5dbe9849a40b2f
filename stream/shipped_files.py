"""Shipped files: TOML files that come with the package, found by name, and files of the user, read by path."""

from importlib.resources import files
from pathlib import Path

from clickscore.stream.errors import ClickscoreError

TOML_SUFFIX = ".toml"
"""Suffix that tells the path of a file from the name of a shipped file."""


class ShippedFiles:
    """The TOML files in a folder of the package."""

    def __init__(self, package: str, folder: str, noun: str, error: type[ClickscoreError]) -> None:
        """List the files.

        Args:
            package: Name of the package with the folder.
            folder: Name of the folder.
            noun: What a file holds, for messages.
            error: Error for a file that does not exist or cannot be read.
        """
        self._folder = files(package) / folder
        self._noun = noun
        self._error = error
        names = [file.name for file in self._folder.iterdir()]
        self.names = tuple(sorted(name.removesuffix(TOML_SUFFIX) for name in names if name.endswith(TOML_SUFFIX)))
        """Names of the files, without the suffix."""

    def read(self, name: str) -> bytes:
        """Return the text of a shipped file, or of a file of the user.

        Args:
            name: Name of a shipped file, or path of a TOML file.

        Raises:
            ClickscoreError: There is no such file, or it cannot be read.
        """
        if name in self.names:
            return (self._folder / f"{name}{TOML_SUFFIX}").read_bytes()
        if not name.endswith(TOML_SUFFIX):
            message = (
                f"there is no {self._noun} {name}: use one of {', '.join(self.names)}, or the path of a .toml file"
            )
            raise self._error(message)
        try:
            return Path(name).read_bytes()
        except OSError as exc:
            message = f"the {self._noun} {name} cannot be read: {exc.strerror or exc}"
            raise self._error(message) from exc
