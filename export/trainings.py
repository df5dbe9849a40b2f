"""Trainings: load the checkpoints of an export, and refuse trainings whose scores have no mean."""

# pyright: standard
# torch does not type the result of a module.

from collections.abc import Sequence
from pathlib import Path

from clickscore.export.errors import ExportError
from clickscore.model.checkpoint import Checkpoint, TrainingRecord, load_checkpoint


def load_trainings(folders: Sequence[Path], *, unfinished: bool) -> list[Checkpoint]:
    """Return the checkpoints of folders, in their order.

    Args:
        folders: Folders that `clickscore train` wrote.
        unfinished: Accept trainings that have not ended.

    Raises:
        ExportError: A training has not ended, or the scores of two trainings have no mean.
        TrainingError: A checkpoint has no trained model.
    """
    trainings: list[Checkpoint] = []
    for folder in folders:
        trained = load_checkpoint(folder)
        progress = describe_progress(trained.record)
        if progress and not unfinished:
            message = (
                f"{folder} holds a training that has not ended ({progress}): go on with it by the same `clickscore "
                "train` command, or export it as it is with --unfinished"
            )
            raise ExportError(message)
        if problem := _find_difference(trained, trainings):
            message = f"{folder} cannot enter the mean: {problem}"
            raise ExportError(message)
        trainings.append(trained)
    return trainings


def describe_progress(record: TrainingRecord) -> str:
    """Return how far an unfinished training has come; an empty text for a finished one."""
    if record.finished:
        return ""
    return f"best of {len(record.epochs)} of at most {record.config.epochs} epochs, without calibration and final pass"


def _find_difference(trained: Checkpoint, trainings: Sequence[Checkpoint]) -> str:
    """Return why a training has no mean with other trainings; an empty text where the mean exists."""
    record = trained.record
    for training in trainings:
        if record.report.sha256 != training.record.report.sha256:
            return "it was trained on other sessions. Train all checkpoints on the same files"
        if trained.vocabulary.items != training.vocabulary.items:
            return "it knows other items. Train all checkpoints with the same min_count"
        if record.config.model != training.record.config.model:
            return "its model has other settings. Train all checkpoints with the same --preset and --set"
        if record.config == training.record.config:
            return f"another checkpoint has the same seed, {record.config.seed}. Train it with another --seed"
    return ""
