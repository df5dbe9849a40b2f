"""Training progress: a bar in a terminal, else a line every half minute, both with the time that remains."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINE_PERIOD_S = 30.0
"""Time between two lines without a terminal: a log of a training of an hour has 120 of them."""
FIRST_LINE_S = 5.0
"""Time before the first line, s: enough steps for an estimate."""
STEP_MEMORY = 0.98
"""Weight of earlier steps in the mean time of a step: a mean over about 50 steps follows a change of load."""
HEAD_SECONDS_PER_ROW = 1.5e-3
"""Time to fit and calibrate trees and regression, s a prefix. Measured: 0.5 to 1.5 ms for large sets; 1.6 ms of CPU
time for 8,500 to 12,000 prefixes, which took twice as long on busy cores."""


class WorkPlan(NamedTuple):
    """Work of a training, so far as its amount is known in advance."""

    epochs: int
    """Epochs, without an early stop."""
    steps: int
    """Steps of an epoch."""
    validation_steps: float = 0.0
    """Steps that take about as long as one validation; used until a validation was measured."""
    final_steps: int = 0
    """Steps of the final pass."""
    head_rows: int = 0
    """Prefixes to fit trees and regression on; 0 without them."""


class TimeEstimate:
    """Estimates the time that remains, from the measured times of steps and validations."""

    def __init__(self, plan: WorkPlan, epochs_done: int = 0) -> None:
        self._plan = plan
        self._steps_done = epochs_done * plan.steps
        self._validations_done = epochs_done
        self._step_weight = self._step_seconds = 0.0
        self._validation_seconds: float | None = None

    def add_step(self, seconds: float) -> None:
        """Count a step and its time."""
        self._steps_done += 1
        self._step_weight = STEP_MEMORY * self._step_weight + 1
        self._step_seconds = STEP_MEMORY * self._step_seconds + seconds

    def add_validation(self, seconds: float) -> None:
        """Count a validation and its time."""
        self._validations_done += 1
        self._validation_seconds = seconds

    @property
    def seconds(self) -> float:
        """Seconds to the end of the training, if no early stop shortens it."""
        plan, step = self._plan, self._step_seconds / max(self._step_weight, 1.0)
        steps = plan.epochs * plan.steps - self._steps_done + plan.final_steps
        validation = plan.validation_steps * step if self._validation_seconds is None else self._validation_seconds
        validations = plan.epochs - self._validations_done
        return max(0.0, steps * step + validations * validation + plan.head_rows * HEAD_SECONDS_PER_ROW)


class TrainingProgress:
    """Shows steps, loss and the time that remains: as a bar in a terminal, else as a line now and then."""

    def __init__(
        self,
        console: Console,
        plan: WorkPlan,
        *,
        epochs_done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the display; a `with` statement shows it.

        Args:
            console: Console for the bar or the lines.
            plan: Work of the training.
            epochs_done: Epochs of earlier runs of the same training.
            clock: Clock in seconds.
        """
        self.console = console
        self._plan = plan
        self._clock = clock
        self._estimate = TimeEstimate(plan, epochs_done)
        self._name, self._epoch_steps, self._validation = "", 0, ""
        self._mark = clock()
        self._next_line = self._mark + FIRST_LINE_S
        columns = ("{task.fields[loss]}", "{task.fields[validation]}", "{task.fields[remaining]}")
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            *(TextColumn(text) for text in columns),
            console=console,
            disable=not console.is_terminal,
        )
        total, completed = plan.epochs * plan.steps, epochs_done * plan.steps
        self._task = self._bar.add_task("", total=total, completed=completed, loss="", validation="", remaining="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, name: str) -> None:
        """Begin a part of the training, such as an epoch."""
        self._name, self._epoch_steps = name, 0
        self._mark = self._clock()
        self._bar.update(self._task, description=name)

    def advance(self, loss: float) -> None:
        """Count a step, and show the mean loss of the part so far."""
        now = self._clock()
        self._estimate.add_step(now - self._mark)
        self._mark = now
        self._epoch_steps += 1
        remaining = f"about {format_duration(self._estimate.seconds)} left"
        self._bar.update(self._task, advance=1, loss=f"loss {loss:.3f}", remaining=remaining)
        if not self.console.is_terminal and now >= self._next_line:
            self._next_line = now + LINE_PERIOD_S
            steps = f"step {self._epoch_steps:,} of {self._plan.steps:,}"
            self.console.print(f"{self._name}, {steps}: loss {loss:.3f}, {remaining}")

    def end_validation(self, result: str) -> None:
        """Count a validation that began after the last step, and show its result."""
        now = self._clock()
        self._estimate.add_validation(now - self._mark)
        self._mark = now
        self._bar.update(self._task, validation=result)


def format_duration(seconds: float) -> str:
    """Return a duration in words of at most two units, such as `1 h 20 min`."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
