"""Own source: a command refuses to write over a file from which it reads."""

import os
from pathlib import Path

import click


def refuse_own_source(out: Path | None, *sources: object, option: str = "--out") -> None:
    """Refuse to write over a source of a command.

    Args:
        out: File to write; None for no file.
        sources: Files to read; whatever is no file, such as the name of a topic, is ignored.
        option: Name of the option for the file to write.

    Raises:
        UsageError: The file is a source.
    """
    if out is None or not out.exists():
        return
    paths = [source for source in sources if isinstance(source, str | Path)]
    if any(os.path.exists(path) and out.samefile(path) for path in paths):  # noqa: PTH110 (False for overlong names)
        message = f"{option} names {out}, from which the command reads: name another file"
        raise click.UsageError(message)
