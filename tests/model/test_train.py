import dataclasses
import io
import shutil

import msgspec
import numpy as np
import pytest
import torch
from rich.console import Console

import clickscore.model.train as training
from clickscore.export.export_bundle import export_bundle
from clickscore.model.checkpoint import (
    load_checkpoint,
    load_pairs,
    load_sessions,
    load_tensors,
    read_record,
    save_sessions,
)
from clickscore.model.config import TrainConfig
from clickscore.model.dataset import load_dataset, load_fine_tuning_data
from clickscore.model.errors import TrainingError
from clickscore.model.neighbours import add_counts, count_pairs, decay_counts, select_neighbours, weigh_by_age
from clickscore.model.predict import ranking_score
from clickscore.model.session_neighbours import IndexedSessions, index_sessions
from clickscore.model.train import fine_tune, refresh_neighbours, train
from clickscore.model.training_pass import (
    FINAL_RATE_SHARE,
    LearningRates,
    choose_batch_size,
    compute_loss,
    make_optimizer,
    prepare_pass,
)
from clickscore.model.transformer import NeighbourMatrix, SessionTransformer
from clickscore.schemas.manifest import decode_manifest
from tests.model.builders import TINY, closed, dataset, shoppers, write_sessions

pytestmark = pytest.mark.train


class Killed(Exception):  # noqa: N818 (it is no error)
    """Stands for a kill: the run ends here, and nothing is tidied up."""


class KilledConsole(Console):
    """A console whose run is killed when it says that some epoch has ended, before that epoch is saved."""

    def __init__(self, epoch: int) -> None:
        super().__init__(file=io.StringIO())
        self.epoch = epoch

    def print(self, *objects: object, **options: object) -> None:
        if " ".join(map(str, objects)).startswith(f"epoch {self.epoch}:"):
            raise Killed
        super().print(*objects, **options)


def quiet() -> Console:
    return Console(quiet=True)


def weights(folder) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder).model.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("sessions"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A checkpoint of three epochs."""
    folder = tmp_path_factory.mktemp("trained")
    train(data, TINY, folder, quiet())
    return folder


@pytest.mark.slow
def test_training_learns_what_follows_what(data, tmp_path):
    config = dataclasses.replace(TINY, epochs=12)
    record = train(data, config, tmp_path, quiet())
    best = record.epochs[record.best_epoch - 1].metrics
    assert best["mrr@20"] > 2 * best["popular_mrr@20"]


@pytest.mark.slow
def test_same_seed_gives_the_same_weights(data, trained, tmp_path):
    train(data, TINY, tmp_path, quiet())
    assert same(weights(tmp_path), weights(trained))


@pytest.mark.slow
def test_other_seed_gives_other_weights(data, trained, tmp_path):
    train(data, dataclasses.replace(TINY, seed=1), tmp_path, quiet())
    assert not same(weights(tmp_path), weights(trained))


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_killed_training_ends_with_the_same_weights(data, trained, tmp_path, epoch):
    with pytest.raises(Killed):
        train(data, TINY, tmp_path, KilledConsole(epoch))
    record = train(data, TINY, tmp_path, quiet())
    assert same(weights(tmp_path), weights(trained))
    assert record == read_record(trained)


@pytest.mark.slow
def test_killed_training_repeats_no_finished_epoch(data, tmp_path):
    with pytest.raises(Killed):
        train(data, TINY, tmp_path, KilledConsole(3))
    output = io.StringIO()
    train(data, TINY, tmp_path, Console(file=output, width=200))
    assert "epoch 3:" in output.getvalue()
    assert "epoch 2:" not in output.getvalue()


def test_finished_training_is_not_run_again(data, trained):
    modified_at = (trained / "weights.pt").stat().st_mtime_ns
    assert train(data, TINY, trained, quiet()).finished
    assert (trained / "weights.pt").stat().st_mtime_ns == modified_at


def test_finished_training_keeps_no_state_of_the_optimizer(trained):
    assert sorted(path.name for path in trained.iterdir()) == [
        "checkpoint.json",
        "held_out.npz",
        "items.txt",
        "pairs.npz",
        "stack.npz",
        "weights.pt",
    ]


@pytest.mark.slow
def test_training_that_was_killed_in_its_last_pass_ends_with_the_same_weights(data, trained, tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(training, "save_pairs", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(data, TINY, tmp_path, quiet())
    assert not read_record(tmp_path).finished
    assert read_record(tmp_path).epochs
    train(data, TINY, tmp_path, quiet())
    assert same(weights(tmp_path), weights(trained))


def test_neighbours_that_are_served_are_those_of_all_sessions(data, trained):
    pairs = count_pairs(data.sessions, weigh_by_age(len(data.sessions), TINY.neighbours_half))
    everyone = select_neighbours(pairs, len(data.vocabulary) + 1, TINY.model.neighbours)
    assert all(np.array_equal(*pair) for pair in zip(load_checkpoint(trained).neighbours, everyone, strict=True))
    assert np.array_equal(load_pairs(trained).counts, pairs.counts)


def test_metrics_are_of_sessions_that_were_not_learned_yet(data, trained):
    assert read_record(trained).held_out_metrics["sessions"] == len(data.held_out)


def test_training_calibrates_on_validation(data, trained):
    report = read_record(trained).calibration.report
    assert report.method == "Transformer, trees and regression, blended on validation"
    assert 0 < report.events < len(data.sessions.items)


def test_views_alone_need_no_trees(tmp_path):
    sessions = [closed(number, f"view:{number % 7} view:{(number + 1) % 7}") for number in range(60)]
    config = dataclasses.replace(TINY, epochs=1)
    views = load_dataset([write_sessions(tmp_path / "sessions.jsonl", sessions)], config)
    record = train(views, config, tmp_path / "checkpoint", quiet())
    assert record.calibration.report.method == "scale and bias on validation"
    assert load_checkpoint(tmp_path / "checkpoint").stack is None


def test_fine_tuned_stack_has_a_row_for_each_new_item(trained, newer, tmp_path):
    run_fine_tune(trained, newer, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert len(loaded.stack.item_features.categories) == len(loaded.vocabulary) + 1


def test_fold_learns_with_the_neighbours_of_the_others(data):
    network = SessionTransformer(TINY.model, len(data.vocabulary))
    counted = weigh_by_age(len(data.training), 0.5)
    training_pass = prepare_pass(data.training, counted, None, network, TINY, batch_size=16)
    for fold in range(TINY.folds):
        others = np.flatnonzero(training_pass.fold_index != fold)
        pairs = count_pairs(data.training.select(others), counted[others])
        expected = NeighbourMatrix(select_neighbours(pairs, len(network.item), 4), torch.device("cpu"))
        assert torch.equal(
            training_pass.neighbour_matrices[fold].multiply(network.item), expected.multiply(network.item)
        )


def test_event_counts_the_same_whatever_batch_it_is_in(data):
    network = SessionTransformer(dataclasses.replace(TINY.model, dropout=0, item_dropout=0), len(data.vocabulary))
    training_pass = prepare_pass(
        data.training, weigh_by_age(len(data.training), 0.5), None, network, TINY, batch_size=16
    )
    table = network.table(training_pass.neighbour_matrices[0])
    short, long = np.argsort(data.training.lengths)[[0, -1]]
    apart = [compute_loss(network, table, training_pass, np.array([number])).item() for number in (short, long)]
    assert compute_loss(network, table, training_pass, np.array([short, long])).item() == pytest.approx(sum(apart))


@pytest.fixture(scope="module")
def newer(trained, tmp_path_factory):
    """Sessions of the same shop with one item that is new to it."""
    path = tmp_path_factory.mktemp("newer") / "newer.jsonl"
    sessions = [closed(1000 + number, "view:item-1 view:new view:item-2") for number in range(60)]
    write_sessions(path, [*shoppers(100, seed=1), *sessions])
    return load_fine_tuning_data([path], TINY, load_checkpoint(trained).vocabulary)


def run_fine_tune(trained, newer, folder):
    return fine_tune(load_checkpoint(trained), load_pairs(trained), newer, folder, lineage="the first", console=quiet())


def test_fine_tuning_learns_new_items(trained, newer, tmp_path):
    run_fine_tune(trained, newer, tmp_path)
    loaded = load_checkpoint(tmp_path)
    row = loaded.vocabulary.row("new")
    assert row == len(loaded.vocabulary) == len(load_checkpoint(trained).vocabulary) + 1
    assert set(loaded.neighbours.rows[row, :2]) == {loaded.vocabulary.row("item-1"), loaded.vocabulary.row("item-2")}


def test_fine_tuning_says_what_it_came_from(trained, newer, tmp_path):
    record = run_fine_tune(trained, newer, tmp_path)
    assert record.lineage == ("the first",)
    assert record.held_out_metrics["sessions"] == len(newer.sample)
    assert record == read_record(tmp_path)


def test_fine_tuning_counts_neighbours_over_all_sessions_by_age(data, trained, newer, tmp_path):
    run_fine_tune(trained, newer, tmp_path)
    total = len(data.sessions) + len(newer.sessions)
    weights = weigh_by_age(total, TINY.neighbours_half)
    older = decay_counts(load_pairs(trained), len(newer.sessions) / total, TINY.neighbours_half)
    pairs = add_counts(older, count_pairs(newer.sessions, weights[len(data.sessions) :]))
    assert np.array_equal(load_pairs(tmp_path).keys, pairs.keys)
    assert np.array_equal(load_pairs(tmp_path).counts, pairs.counts)
    assert read_record(tmp_path).counted_sessions == total


def test_model_that_counted_without_age_is_not_run_fine_tune(trained, newer, tmp_path):
    previous = load_checkpoint(trained)
    old = previous._replace(record=msgspec.structs.replace(previous.record, counted_sessions=0))
    with pytest.raises(TrainingError, match="by age"):
        fine_tune(old, load_pairs(trained), newer, tmp_path, lineage="the first", console=quiet())


def test_training_that_has_not_ended_cannot_be_fine_tuned(tmp_path):
    with pytest.raises(TrainingError, match="has not ended"):
        load_pairs(tmp_path)


@pytest.mark.slow
def test_fine_tuning_gives_the_same_weights_again(trained, newer, tmp_path):
    run_fine_tune(trained, newer, tmp_path / "1")
    run_fine_tune(trained, newer, tmp_path / "2")
    assert same(weights(tmp_path / "1"), weights(tmp_path / "2"))


def test_finished_fine_tuning_is_not_run_again(trained, newer, tmp_path):
    run_fine_tune(trained, newer, tmp_path)
    modified_at = (tmp_path / "weights.pt").stat().st_mtime_ns
    assert run_fine_tune(trained, newer, tmp_path).finished
    assert (tmp_path / "weights.pt").stat().st_mtime_ns == modified_at


def test_fine_tuning_is_never_written_over_its_origin(trained, newer):
    with pytest.raises(TrainingError, match="holds another training"):
        run_fine_tune(trained, newer, trained)


def test_small_set_is_learned_in_smaller_batches():
    config = TrainConfig(batch=512, steps=200)
    assert [choose_batch_size(sessions, 200, config) for sessions in (100, 20_000, 10**6)] == [16, 100, 512]


def test_checkpoint_needs_nothing_else(data, trained):
    loaded = load_checkpoint(trained)
    assert loaded.record.config == TINY
    assert loaded.vocabulary.items == data.vocabulary.items
    assert loaded.record.popular_items == data.vocabulary.items
    assert loaded.held_out.items.tolist() == data.held_out.items.tolist()


def test_best_epoch_is_that_of_the_best_mean_of_hit_rate_and_mrr_on_validation(trained):
    record = read_record(trained)
    assert record.best_epoch == max(record.epochs, key=lambda epoch: ranking_score(epoch.metrics)).number


@pytest.mark.slow
def test_training_stops_when_it_gets_no_better(data, tmp_path):
    config = dataclasses.replace(TINY, epochs=40, patience=1)
    record = train(data, config, tmp_path, quiet())
    assert len(record.epochs) < 40
    assert len(record.epochs) == record.best_epoch + 1


def test_folder_of_another_training_is_refused(data, trained):
    with pytest.raises(TrainingError, match="holds another training"):
        train(data, dataclasses.replace(TINY, epochs=4), trained, quiet())


def test_folder_of_something_else_is_refused(data, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match="no checkpoint"):
        train(data, TINY, tmp_path, quiet())


def test_folder_without_a_finished_epoch_holds_no_trained_model(data, tmp_path):
    with pytest.raises(Killed):
        train(data, TINY, tmp_path, KilledConsole(1))
    with pytest.raises(TrainingError, match="holds no trained model"):
        load_checkpoint(tmp_path)


@pytest.mark.slow
def test_training_that_was_killed_as_it_began_goes_on(data, trained, tmp_path):
    with pytest.raises(Killed):
        train(data, TINY, tmp_path, KilledConsole(1))
    (tmp_path / "items.txt").unlink()
    (tmp_path / "held_out.npz").unlink()
    train(data, TINY, tmp_path, quiet())
    assert same(weights(tmp_path), weights(trained))


def test_record_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "checkpoint.json").write_text("{}")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_checkpoint(tmp_path)


def test_weights_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_tensors(tmp_path / "weights.pt")


def test_padding_row_is_never_trained(trained):
    assert not weights(trained)["item"][0].any()


def test_learning_rate_rises_in_a_line_and_falls_to_its_last_share():
    rates = [LearningRates(steps=200, peak=1.0, warmup=10).rate(step) for step in range(200)]
    assert rates[:2] == pytest.approx([1 / 11, 2 / 11])
    assert max(rates) == rates[10] == 1
    assert rates[-1] == pytest.approx(FINAL_RATE_SHARE, abs=1e-3)


def test_tables_norms_and_biases_have_no_weight_decay():
    network = SessionTransformer(TINY.model, items=5)
    decayed, others = make_optimizer(network, TINY).param_groups
    names = {parameter: name for name, parameter in network.named_parameters()}
    assert others["weight_decay"] == 0
    tables = {"item", "gate", "action.weight", "repeats.table", "readout.distance", "blocks.0.attention.distance"}
    assert tables <= {names[parameter] for parameter in others["params"]}
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_refreshed_neighbours_are_those_of_fine_tuning_and_the_weights_stay(trained, newer, tmp_path):
    """The counts do not depend on whether the model trains."""
    run_fine_tune(trained, newer, tmp_path / "tuned")
    previous = load_checkpoint(trained)
    record = refresh_neighbours(previous, load_pairs(trained), newer, tmp_path / "fresh", lineage="the first")
    fresh, tuned = load_checkpoint(tmp_path / "fresh"), load_checkpoint(tmp_path / "tuned")
    assert record.finished
    assert np.array_equal(fresh.neighbours.rows, tuned.neighbours.rows)
    assert np.array_equal(load_pairs(tmp_path / "fresh").counts, load_pairs(tmp_path / "tuned").counts)
    assert fresh.record.counted_sessions == tuned.record.counted_sessions
    rows = len(previous.model.item)
    assert torch.equal(fresh.model.item[:rows], previous.model.item)
    others = {name: weight for name, weight in previous.model.state_dict().items() if name != "item"}
    assert same(others, {name: weight for name, weight in fresh.model.state_dict().items() if name != "item"})


def test_neighbours_are_refreshed_once(trained, newer, tmp_path):
    previous, pairs = load_checkpoint(trained), load_pairs(trained)
    refresh_neighbours(previous, pairs, newer, tmp_path, lineage="the first")
    modified_at = (tmp_path / "weights.pt").stat().st_mtime_ns
    assert refresh_neighbours(previous, pairs, newer, tmp_path, lineage="the first").finished
    assert (tmp_path / "weights.pt").stat().st_mtime_ns == modified_at


@pytest.fixture
def with_index(data, trained, tmp_path):
    """The checkpoint, with an index of its sessions."""
    folder = tmp_path / "indexed"
    shutil.copytree(trained, folder)
    save_sessions(folder, IndexedSessions(index_sessions(data.sessions), 2.0))
    return folder


def test_warm_start_adds_its_sessions_to_the_index(data, with_index, newer, tmp_path):
    previous, pairs = load_checkpoint(with_index), load_pairs(with_index)
    refresh_neighbours(previous, pairs, newer, tmp_path / "fresh", lineage="the first")
    fine_tune(previous, pairs, newer, tmp_path / "tuned", lineage="the first", console=quiet())
    for name in ("fresh", "tuned"):
        checkpoint = load_checkpoint(tmp_path / name)
        indexed = index_sessions(newer.sessions, index_sessions(data.sessions))
        assert np.array_equal(load_sessions(tmp_path / name).items, indexed)
        assert checkpoint.session_neighbours().factor == 2.0
        assert len(checkpoint.session_neighbours().ends) == len(newer.vocabulary) + 1


def test_training_indexes_its_sessions_where_they_help_on_validation(tmp_path):
    """What follows the hub depends on the item before it, which a model that has hardly learned does not know."""
    sessions = [closed(number, f"view:from-{number % 50} view:hub view:to-{number % 50}") for number in range(500)]
    config = dataclasses.replace(TINY, epochs=1, learning_rate=1e-6, top_up_rate=1e-6)
    data = load_dataset([write_sessions(tmp_path / "sessions.jsonl", sessions)], config)
    train(data, config, tmp_path / "out", quiet())
    indexed = load_sessions(tmp_path / "out")
    assert indexed.factor > 0
    assert np.array_equal(indexed.items, index_sessions(data.sessions))
    export_bundle(tmp_path / "out", tmp_path / "bundle")
    manifest = decode_manifest((tmp_path / "bundle" / "manifest.json").read_bytes())
    assert manifest.session_neighbours.factor == indexed.factor
