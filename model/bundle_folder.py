"""Bundle folder: the type of every command argument and option that names a bundle."""

from pathlib import Path
from typing import Any

import click

from clickscore.model.packaged_bundle import resolve_folder


class BundleFolder(click.Path):
    """Folder of a bundle, or `demo` for the packaged bundle."""

    def __init__(self) -> None:
        """Take existing folders."""
        super().__init__(exists=True, file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 (click's)
        """Return the folder, or end the command where it does not exist.

        Args:
            value: Text of the option.
            param: The option.
            ctx: Context of the command.
        """
        return super().convert(resolve_folder(value), param, ctx)
