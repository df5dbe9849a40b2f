import dataclasses

import optuna
import pytest
from click.testing import CliRunner
from rich.console import Console

import clickscore.model.tune as tuning
from clickscore.model.commands import train
from clickscore.model.commands import tune as tune_command
from clickscore.model.config import override, read_preset
from clickscore.model.errors import TrainingError
from clickscore.model.predict import ranking_score
from clickscore.model.tune import SEARCH_SPACE, SearchResult, tune
from tests.model.builders import TINY, dataset, shoppers, write_sessions

pytestmark = pytest.mark.train

PRESET = dataclasses.replace(TINY, epochs=2)


class Killed(BaseException):
    """Stands for a kill: nothing is tidied up."""


def search(data, folder, trials: int, preset=PRESET, **limits) -> list[SearchResult]:
    journal = folder / "preset.toml.trials"
    return list(tune(data, preset, trials=trials, journal=journal, console=Console(quiet=True), **limits))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("sessions"), count=120)


@pytest.fixture(scope="module")
def results(data, tmp_path_factory):
    """Results after each of four trials."""
    return search(data, tmp_path_factory.mktemp("results"), trials=4)


def test_first_trial_is_the_preset(results):
    assert (results[0].trials, results[0].best, results[0].config) == (1, 1, PRESET)


def test_best_is_never_worse_than_before(results):
    scores = [state.score for state in results]
    assert scores == sorted(scores)


def test_best_differs_from_the_preset_in_what_is_searched_alone(results):
    config = results[-1].config
    changes = {name: getattr(config, name, None) or getattr(config.model, name) for name in SEARCH_SPACE}
    assert override(PRESET, changes) == config


def test_score_is_that_of_the_validation_sessions(data, results, tmp_path):
    record, _ = tuning.fit(data, results[-1].config, tmp_path, Console(quiet=True), lambda _: None)
    assert ranking_score(record.epochs[record.best_epoch - 1].metrics) == results[-1].score


def test_search_that_goes_on_finds_the_same(data, results, tmp_path):
    search(data, tmp_path, trials=2)
    assert search(data, tmp_path, trials=4)[1:] == results[2:]


def test_search_that_is_over_says_what_it_found(data, results, tmp_path):
    search(data, tmp_path, trials=2)
    assert search(data, tmp_path, trials=2) == [results[1]]


def test_trial_that_was_killed_is_tried_again(data, results, tmp_path, monkeypatch):
    search(data, tmp_path, trials=1)
    with monkeypatch.context() as broken:
        broken.setattr(tuning, "fit", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            search(data, tmp_path, trials=2)
    assert [state.score for state in search(data, tmp_path, trials=2)] == [results[0].score, results[1].score]


def test_trial_leaves_nothing_but_what_is_remembered(data, tmp_path):
    search(data, tmp_path, trials=1)
    assert [path.name for path in tmp_path.iterdir()] == ["preset.toml.trials"]


def test_trial_that_lags_behind_is_stopped(data, tmp_path):
    hardly_learning = {"learning_rate": optuna.distributions.FloatDistribution(1e-12, 1e-11)}
    search(data, tmp_path, trials=3, space=hardly_learning, trials_before_pruning=1)
    storage = tuning.JournalStorage(tuning.JournalFileBackend(str(tmp_path / "preset.toml.trials")))
    states = [trial.state.name for trial in optuna.load_study(study_name="clickscore", storage=storage).trials]
    assert states == ["COMPLETE", "PRUNED", "PRUNED"]


def test_journal_of_another_search_is_refused(data, tmp_path):
    search(data, tmp_path, trials=1)
    with pytest.raises(TrainingError, match="another preset, on other sessions or by another score"):
        search(data, tmp_path, trials=1, preset=dataclasses.replace(PRESET, seed=5))


def test_file_of_something_else_is_refused(data, tmp_path):
    (tmp_path / "preset.toml.trials").write_text("a diary\n")
    with pytest.raises(TrainingError, match="no journal"):
        search(data, tmp_path, trials=1)


@pytest.mark.slow
def test_preset_that_was_found_trains(tmp_path):
    sessions, out = write_sessions(tmp_path / "sessions.jsonl", shoppers(100)), tmp_path / "preset.toml"
    small = ["--preset", "small", "--trials", "2", "--threads", "1", "--set", "dim=16", "--set", "epochs=1"]
    result = CliRunner().invoke(tune_command, ["--sessions", str(sessions), "--out", str(out), *small])
    assert result.exit_code == 0, result.output
    assert "trial 2 of 2" in result.output
    assert "best so far: validation mean of hit_rate@20 and mrr@20" in result.output
    assert read_preset(str(out)).model.dim == 16
    checkpoint = str(tmp_path / "checkpoint")
    assert CliRunner().invoke(train, [str(sessions), "--out", checkpoint, "--preset", str(out)]).exit_code == 0
