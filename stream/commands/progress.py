"""Progress bars of commands, on stderr; a bar is shown only on a terminal."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Return a bar with name, share done, these columns and the elapsed time."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        *columns,
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
