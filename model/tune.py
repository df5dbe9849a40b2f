"""Tune: hyper-parameters searched on validation, one training a trial; a search that was killed goes on."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState
from rich.console import Console

from clickscore.model.checkpoint import EpochResult
from clickscore.model.config import TrainConfig, override
from clickscore.model.dataset import Dataset
from clickscore.model.errors import TrainingError
from clickscore.model.train import STOPPING_METRIC, fit

SPACE: Mapping[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-3, 1.6e-2, log=True),
    "steps": IntDistribution(100, 400, log=True),
    "weight_decay": FloatDistribution(1e-3, 0.1, log=True),
    "dropout": FloatDistribution(0, 0.5),
    "item_dropout": FloatDistribution(0, 0.6),
    "temperature": FloatDistribution(0.05, 0.1),
    "neighbours": IntDistribution(4, 40, log=True),
}
"""What is searched: nothing that a worker would pay for, such as `dim` or `layers`."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
BEFORE_PRUNING = 5
"""Whole trials that others are compared with."""


class SearchResult(NamedTuple):
    """What a search has found so far."""

    trials: int
    """That have ended."""
    best: int
    """Which of them, from 1; the first is the preset as it was given."""
    score: float
    """Its `STOPPING_METRIC` on validation."""
    config: TrainConfig


def tune(
    dataset: Dataset,
    preset: TrainConfig,
    *,
    trials: int,
    memory: Path,
    console: Console,
    space: Mapping[str, BaseDistribution] = SPACE,
    before_pruning: int = BEFORE_PRUNING,
) -> Iterator[SearchResult]:
    """Search for a better preset until so many trials have ended, those of earlier runs included.

    The first trial is the preset itself, so what is found is no worse on validation. What a trial tries depends on the
    trials before it alone, so a search that goes on finds what an unbroken one would. A trial that is worse than the
    median of the others after as many epochs is stopped; one that was killed is tried again.

    Args:
        dataset: Its training sessions are learned, its validation sessions judge, its held-out ones are not looked at.
        preset: Where the search starts.
        trials: How many, in all.
        memory: File that remembers the trials; a trial's checkpoint lies beside it for as long as it runs.
        console: Where progress is shown.
        space: What is searched, and within what bounds.
        before_pruning: Whole trials that others are compared with.

    Yields:
        What is known before the first trial of this run, if anything is, and after each.

    Raises:
        TrainingError: The file is something else, or remembers another search.
    """
    study = _study(memory, {"preset": msgspec.to_builtins(preset), "sessions": dataset.report.sha256}, before_pruning)
    if not study.trials:
        of_preset = msgspec.to_builtins(preset)
        study.enqueue_trial({name: (of_preset | of_preset["model"])[name] for name in space})
    for killed in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(killed.number, state=TrialState.FAIL)
        study.enqueue_trial(killed.params)
    if ended := _ended(study):
        yield _found(study, preset)
    while ended < trials:
        study.sampler = optuna.samplers.TPESampler(seed=ended)
        console.print(f"trial {ended + 1} of {trials}")
        trial = study.ask(dict(space))
        score = _score(trial, dataset, override(preset, trial.params), memory.parent, console)
        study.tell(trial, score, TrialState.PRUNED if score is None else TrialState.COMPLETE)
        ended = _ended(study)
        yield _found(study, preset)


def _score(trial: Trial, dataset: Dataset, config: TrainConfig, folder: Path, console: Console) -> float | None:
    """Train once and return how good that was, none where it was stopped early."""

    def told(epoch: EpochResult) -> None:
        trial.report(epoch.metrics[STOPPING_METRIC], epoch.number)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        with tempfile.TemporaryDirectory(dir=folder) as checkpoint:
            record, _ = fit(dataset, config, Path(checkpoint), console, told)
    except optuna.TrialPruned:
        return None
    return record.epochs[record.best_epoch - 1].metrics[STOPPING_METRIC]


def _study(memory: Path, origin: dict[str, object], before_pruning: int) -> optuna.Study:
    """Return the search that a file remembers, or a new one.

    Raises:
        TrainingError: The file is something else, or remembers another search.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            study_name="clickscore",
            storage=JournalStorage(JournalFileBackend(str(memory))),
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=before_pruning),
            load_if_exists=True,
        )
    except (ValueError, KeyError) as exc:
        message = f"{memory} is something else than the memory of a search"
        raise TrainingError(message) from exc
    if study.user_attrs.get("origin", origin) != origin:
        message = f"{memory} remembers a search from another preset or on other sessions: name a new --out"
        raise TrainingError(message)
    study.set_user_attr("origin", origin)
    return study


def _ended(study: optuna.Study) -> int:
    return len(study.get_trials(states=ENDED))


def _found(study: optuna.Study, preset: TrainConfig) -> SearchResult:
    best = study.best_trial
    ended = [trial.number for trial in study.get_trials(states=ENDED)]
    return SearchResult(len(ended), ended.index(best.number) + 1, study.best_value, override(preset, best.params))
