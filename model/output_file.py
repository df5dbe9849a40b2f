"""Output file: the type of an option that names a file to write."""

import os
from pathlib import Path
from typing import Any

import click

from clickscore.schemas.errors import OutputFileError

STANDARD_OUTPUT = Path("-")
"""Path that means standard output."""


class OutputFile(click.Path):
    """A file to write. A file without a folder is refused before the work begins, which may take hours."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ANN401 (click's)
        """Return the path.

        Args:
            value: Word of the command line.
            param: The option.
            ctx: Context of the command.

        Raises:
            OutputFileError: The file's folder does not exist.
        """
        file = Path(os.fsdecode(super().convert(value, param, ctx)))
        if file != STANDARD_OUTPUT and not file.parent.is_dir():
            message = f"{file} cannot be written: the folder {file.parent} does not exist. Create the folder first"
            raise OutputFileError(message)
        return file


OUTPUT_FILE = OutputFile(dir_okay=False, path_type=Path)
OUTPUT_FILE_OR_STDOUT = OutputFile(dir_okay=False, allow_dash=True, path_type=Path)
