"""Command `clickscore train`: from closed sessions to a checkpoint. What needs torch is imported when it runs."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from model.config import PRESETS, TrainConfig, override
from model.dataset import Report, load_dataset
from model.errors import TrainingError

EXTRA = {"torch", "onnx"}
"""What the train extra brings."""


@click.command()
@click.argument(
    "sessions", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Checkpoint folder: a new one, or one to go on with.",
)
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), default="default", show_default=True, help="Size of model and run."
)
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the sessions, at most. Default: the preset's.")
@click.option("--seed", type=click.IntRange(min=0), help="Of weights, order and dropout. Default: the preset's.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: as many as there are cores.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another field of model.config, such as dim=128; repeatable.",
)
def train(
    *,
    sessions: tuple[Path, ...],
    out: Path,
    preset: str,
    epochs: int | None,
    seed: int | None,
    threads: int | None,
    changes: Sequence[str],
) -> None:
    """Train a model on closed SESSIONS: files of JSON lines, as the topic closed-sessions holds them, .gz too.

    The newest sessions are held out: part of them says when to stop, the others are what the bundle's metrics are
    measured on. The same command goes on where a killed run stopped.

    \b
    Example:
      clickscore train sessions.jsonl.gz --out checkpoint --preset small
      clickscore export checkpoint --out bundle
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    config = _config(preset, epochs, seed, changes)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        import torch  # noqa: PLC0415 (serving has no torch, and its help lists this command)

        from model.train import train as train_model  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    if threads:
        torch.set_num_threads(threads)

    dataset = load_dataset(sessions, config)
    _show(dataset.report, console)
    card = train_model(dataset, config, out, console)
    measured = card.epochs[card.best - 1].metrics
    figures = ", ".join(f"{name} {measured[name]:.4f}" for name in ("hit_rate@20", "mrr@20", "purchase_pr_auc"))
    console.print(f"kept epoch {card.best} of {len(card.epochs)}: validation {figures}")
    console.print(f"next: clickscore export {out} --out BUNDLE")


def missing_extra(exc: ModuleNotFoundError) -> Exception:
    """Return what to raise where a module is missing: a hint if it is one of the train extra's, else the bug itself."""
    if exc.name not in EXTRA:
        return exc
    return TrainingError(f"this needs the train extra ({exc.name} is missing): make setup-train")


def _config(preset: str, epochs: int | None, seed: int | None, changes: Sequence[str]) -> TrainConfig:
    pairs = [change.partition("=") for change in changes]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        message = f"--set takes NAME=VALUE, not {wrong[0]!r}"
        raise TrainingError(message)
    flags = {name: str(value) for name, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    return override(PRESETS[preset], {name: value for name, _, value in pairs} | flags)


def _show(report: Report, console: Console) -> None:
    """Print what was read, and what became of it."""
    console.print(f"read {report.lines:,} lines of {len(report.files)} file(s)")
    for reason, number in report.dropped.items():
        console.print(f"  left out: {number:,} x {reason}")
    if report.problem:
        console.print(f"  first malformed line: {report.problem}")
    console.print(f"  {report.sessions:,} sessions with {report.events:,} events, {report.items:,} known items")
    console.print(
        f"  training {report.training:,}, validation {report.validation:,}, held out {report.held_out:,} sessions"
    )
