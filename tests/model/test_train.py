import dataclasses
import io

import pytest
import torch
from rich.console import Console

import model.train as training
from model.checkpoint import load_checkpoint, load_tensors, read_card
from model.errors import TrainingError
from model.train import train
from model.transformer import SessionTransformer
from tests.model.builders import TINY, dataset

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


def test_training_learns_what_follows_what(data, tmp_path):
    config = dataclasses.replace(TINY, epochs=12)
    card = train(data, config, tmp_path, quiet())
    best = card.epochs[card.best - 1].metrics
    assert best["mrr@20"] > 2 * best["popular_mrr@20"]


def test_same_seed_gives_the_same_weights(data, trained, tmp_path):
    train(data, TINY, tmp_path, quiet())
    assert same(weights(tmp_path), weights(trained))


def test_other_seed_gives_other_weights(data, trained, tmp_path):
    train(data, dataclasses.replace(TINY, seed=1), tmp_path, quiet())
    assert not same(weights(tmp_path), weights(trained))


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_killed_training_ends_with_the_same_weights(data, trained, tmp_path, epoch):
    with pytest.raises(Killed):
        train(data, TINY, tmp_path, KilledConsole(epoch))
    card = train(data, TINY, tmp_path, quiet())
    assert same(weights(tmp_path), weights(trained))
    assert card == read_card(trained)


def test_killed_training_repeats_no_finished_epoch(data, tmp_path):
    with pytest.raises(Killed):
        train(data, TINY, tmp_path, KilledConsole(3))
    said = io.StringIO()
    train(data, TINY, tmp_path, Console(file=said, width=200))
    assert "epoch 3:" in said.getvalue()
    assert "epoch 2:" not in said.getvalue()


def test_finished_training_is_not_run_again(data, trained):
    before = (trained / "weights.pt").stat().st_mtime_ns
    assert train(data, TINY, trained, quiet()).finished
    assert (trained / "weights.pt").stat().st_mtime_ns == before


def test_finished_training_keeps_no_state_of_the_optimizer(trained):
    assert sorted(path.name for path in trained.iterdir()) == [
        "checkpoint.json",
        "held_out.npz",
        "items.txt",
        "weights.pt",
    ]


def test_checkpoint_needs_nothing_else(data, trained):
    loaded = load_checkpoint(trained)
    assert loaded.card.config == TINY
    assert loaded.vocabulary.items == data.vocabulary.items
    assert loaded.card.popular == data.vocabulary.items
    assert loaded.held_out.items.tolist() == data.held_out.items.tolist()


def test_best_epoch_is_that_of_the_best_validation_mrr(trained):
    card = read_card(trained)
    assert card.best == max(card.epochs, key=lambda epoch: epoch.metrics["mrr@20"]).number


def test_training_stops_when_it_gets_no_better(data, tmp_path):
    config = dataclasses.replace(TINY, epochs=40, patience=1)
    card = train(data, config, tmp_path, quiet())
    assert len(card.epochs) < 40
    assert len(card.epochs) == card.best + 1


def test_folder_of_another_training_is_refused(data, trained):
    with pytest.raises(TrainingError, match="other settings or sessions"):
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


def test_training_that_was_killed_as_it_began_goes_on(data, trained, tmp_path):
    with pytest.raises(Killed):
        train(data, TINY, tmp_path, KilledConsole(1))
    (tmp_path / "items.txt").unlink()
    (tmp_path / "held_out.npz").unlink()
    train(data, TINY, tmp_path, quiet())
    assert same(weights(tmp_path), weights(trained))


def test_card_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "checkpoint.json").write_text("{}")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_checkpoint(tmp_path)


def test_weights_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_tensors(tmp_path / "weights.pt")


def test_padding_row_is_never_trained(trained):
    assert not weights(trained)["item.weight"][0].any()


def test_learning_rate_rises_in_a_line_and_falls_to_its_last_share():
    config = dataclasses.replace(TINY, warmup=10, learning_rate=1.0)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)
    rates = []
    for step in range(200):
        training._set_rate(optimizer, step, 200, config)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:2] == pytest.approx([1 / 11, 2 / 11])
    assert max(rates) == rates[10] == 1
    assert rates[-1] == pytest.approx(training.LAST_RATE, abs=1e-3)


def test_tables_norms_and_biases_have_no_weight_decay():
    network = SessionTransformer(TINY.model, items=5)
    decayed, others = training._groups(network, TINY)
    names = {parameter: name for name, parameter in network.named_parameters()}
    assert others["weight_decay"] == 0
    assert "item.weight" in {names[parameter] for parameter in others["params"]}
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(names)
