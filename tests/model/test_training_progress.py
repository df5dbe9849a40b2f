import io
import re

import pytest
from rich.console import Console

from clickscore.model.training_progress import (
    FIRST_LINE_S,
    LINE_PERIOD_S,
    TimeEstimate,
    TrainingProgress,
    WorkPlan,
    format_duration,
)

STEP_S, VALIDATION_S = 0.5, 20.0


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def train(console: Console, plan: WorkPlan) -> float:
    """Run a training of steps and validations of constant time; return its seconds."""
    clock = Clock()
    with TrainingProgress(console, plan, clock=clock) as progress:
        for epoch in range(plan.epochs):
            progress.start(f"epoch {epoch + 1} of {plan.epochs}")
            for _ in range(plan.steps):
                clock.now += STEP_S
                progress.advance(3.0)
            clock.now += VALIDATION_S
            progress.end_validation("done")
    return clock.now - 100.0


def test_progress_within_an_epoch_is_printed_without_a_terminal():
    file = io.StringIO()
    seconds = train(Console(file=file, width=200), WorkPlan(epochs=2, steps=200, validation_steps=50))
    lines = file.getvalue().splitlines()
    assert re.fullmatch(r"epoch 1 of 2, step 10 of 200: loss 3\.000, about [34] min left", lines[0])
    assert seconds / LINE_PERIOD_S - 1 <= len(lines) <= seconds / LINE_PERIOD_S + 2
    assert sum("epoch 2 of 2" in line for line in lines) >= 2


def test_terminal_gets_a_bar_and_no_lines():
    file = io.StringIO()
    train(Console(file=file, width=200, force_terminal=True), WorkPlan(epochs=1, steps=200))
    assert "step 10 of 200" not in file.getvalue()
    assert "left" in file.getvalue()


@pytest.mark.parametrize("validation_steps", [20, 80])  # half of the true time, and twice the true time
def test_time_left_is_right_within_a_factor_of_two(validation_steps):
    plan = WorkPlan(epochs=3, steps=100, validation_steps=validation_steps, final_steps=60)
    estimate, now, ratios = TimeEstimate(plan), 0.0, []
    total = 3 * (100 * STEP_S + VALIDATION_S) + 60 * STEP_S
    for _ in range(plan.epochs):
        for _ in range(plan.steps):
            now += STEP_S
            estimate.add_step(STEP_S)
            ratios.append(estimate.seconds / (total - now))
        now += VALIDATION_S
        estimate.add_validation(VALIDATION_S)
        ratios.append(estimate.seconds / (total - now))
    assert 0.5 < min(ratios) <= max(ratios) < 2


def test_continued_training_counts_its_earlier_epochs():
    estimate = TimeEstimate(WorkPlan(epochs=4, steps=10), epochs_done=3)
    estimate.add_step(1.0)
    assert estimate.seconds == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (89, "89 s"), (120, "2 min"), (3540, "59 min"), (4800, "1 h 20 min")]
)
def test_duration_is_given_in_words(seconds, words):
    assert format_duration(seconds) == words


def test_first_line_comes_early():
    assert FIRST_LINE_S < LINE_PERIOD_S
