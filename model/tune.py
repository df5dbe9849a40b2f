"""Tune: search hyper-parameters on validation with TPE, one training a trial; a killed search continues."""

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
from clickscore.model.predict import RANKING_SCORE, ranking_score
from clickscore.model.train import fit

SEARCH_SPACE: Mapping[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-3, 1.6e-2, log=True),
    "steps": IntDistribution(100, 400, log=True),
    "weight_decay": FloatDistribution(1e-3, 0.1, log=True),
    "dropout": FloatDistribution(0, 0.5),
    "item_dropout": FloatDistribution(0, 0.6),
    "temperature": FloatDistribution(0.05, 0.1),
    "neighbours": IntDistribution(4, 40, log=True),
}
"""Searched settings and their bounds. Settings that cost serving time, such as `dim` and `layers`, are left out."""
ENDED_STATES = (TrialState.COMPLETE, TrialState.PRUNED)
TRIALS_BEFORE_PRUNING = 5
"""Complete trials before the median rule may stop one: a median of fewer says little."""


class SearchResult(NamedTuple):
    """Best trial of a search so far."""

    trials: int
    """Number of ended trials."""
    best: int
    """Number of the best trial, from 1; trial 1 is the preset."""
    score: float
    """Validation `RANKING_SCORE` of the best trial."""
    config: TrainConfig
    """Config of the best trial."""


def tune(
    dataset: Dataset,
    preset: TrainConfig,
    *,
    trials: int,
    journal: Path,
    console: Console,
    space: Mapping[str, BaseDistribution] = SEARCH_SPACE,
    trials_before_pruning: int = TRIALS_BEFORE_PRUNING,
) -> Iterator[SearchResult]:
    """Search for a better preset until `trials` trials have ended, those of earlier runs included.

    The first trial is the preset itself, so the result is never worse on validation. A trial's settings depend on the
    earlier trials alone (TPE, NeurIPS 2011, seeded by their number), so a continued search gives the result of an
    unbroken one. A trial below the median of the others after the same epoch is stopped; a killed trial is run again.

    Args:
        dataset: Training and validation sessions; the held-out sessions are not used.
        preset: Config of the first trial.
        trials: Number of trials, in all runs together.
        journal: File of the trials. The checkpoint of a running trial lies beside the file.
        console: Console for progress.
        space: Searched settings and their bounds.
        trials_before_pruning: Complete trials before a trial may be stopped.

    Yields:
        The result of earlier runs, if there were any, then the result after each trial.

    Raises:
        TrainingError: The file is no journal, or the journal of another search.
    """
    origin = {"preset": msgspec.to_builtins(preset), "sessions": dataset.report.sha256, "score": RANKING_SCORE}
    study = _open_study(journal, origin, trials_before_pruning)
    if not study.trials:
        fields = msgspec.to_builtins(preset)
        study.enqueue_trial({name: (fields | fields["model"])[name] for name in space})
    for killed in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(killed.number, state=TrialState.FAIL)
        study.enqueue_trial(killed.params)
    if ended := _count_ended(study):
        yield _best_result(study, preset)
    while ended < trials:
        study.sampler = optuna.samplers.TPESampler(seed=ended)
        console.print(f"trial {ended + 1} of {trials}")
        trial = study.ask(dict(space))
        score = _run_trial(trial, dataset, override(preset, trial.params), journal.parent, console)
        study.tell(trial, score, TrialState.PRUNED if score is None else TrialState.COMPLETE)
        ended = _count_ended(study)
        yield _best_result(study, preset)


def _run_trial(trial: Trial, dataset: Dataset, config: TrainConfig, folder: Path, console: Console) -> float | None:
    """Train once and return the best validation score, None if the trial was stopped early."""

    def report_epoch(epoch: EpochResult) -> None:
        trial.report(ranking_score(epoch.metrics), epoch.number)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        with tempfile.TemporaryDirectory(dir=folder) as checkpoint:
            record, _ = fit(dataset, config, Path(checkpoint), console, report_epoch)
    except optuna.TrialPruned:
        return None
    return ranking_score(record.epochs[record.best_epoch - 1].metrics)


def _open_study(journal: Path, origin: Mapping[str, object], trials_before_pruning: int) -> optuna.Study:
    """Return the search of a journal, or a new search.

    Raises:
        TrainingError: The file is no journal, or the journal of another search.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            study_name="clickscore",
            storage=JournalStorage(JournalFileBackend(str(journal))),
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=trials_before_pruning),
            load_if_exists=True,
        )
    except (ValueError, KeyError) as exc:
        message = f"{journal} is no journal of a search: name another --out"
        raise TrainingError(message) from exc
    if study.user_attrs.get("origin", origin) != origin:
        message = (
            f"{journal} remembers a search from another preset, on other sessions or by another score: name a new --out"
        )
        raise TrainingError(message)
    study.set_user_attr("origin", dict(origin))
    return study


def _count_ended(study: optuna.Study) -> int:
    return len(study.get_trials(states=ENDED_STATES))


def _best_result(study: optuna.Study, preset: TrainConfig) -> SearchResult:
    best = study.best_trial
    ended = [trial.number for trial in study.get_trials(states=ENDED_STATES)]
    return SearchResult(len(ended), ended.index(best.number) + 1, study.best_value, override(preset, best.params))
