"""Progress bars of commands, on stderr; a bar is shown only on a terminal."""

import contextlib
import time
from collections.abc import Callable, Generator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from clickscore.stream.replay.task import ReplayProgress


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Return a bar with name, share done, these columns and the elapsed time."""
    console = Console(stderr=True, markup=False)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        *columns,
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextlib.contextmanager
def replay_progress_bar(name: str) -> Generator[Callable[[list[ReplayProgress]], None]]:
    """Show a bar; give the function that updates the bar with the progress of all processes."""
    rate_column = TextColumn("{task.fields[records]:,} events, {task.fields[rate]:,.0f}/s")
    started_at = time.monotonic()
    with progress_bar(rate_column, TimeRemainingColumn()) as bar:
        bar_task = bar.add_task(name, total=None, records=0, rate=0.0)

        def update(progress: list[ReplayProgress]) -> None:
            totals = [process.total for process in progress]
            records = sum(process.records for process in progress)
            bar.update(
                bar_task,
                total=sum(totals) if all(totals) else None,
                completed=sum(process.completed for process in progress),
                records=records,
                rate=records / (time.monotonic() - started_at),
            )

        yield update
