"""A bundle of several trainings ranks by the mean of their scores."""

import dataclasses
import shutil

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from clickscore.export.commands import export
from clickscore.export.export_bundle import export_bundle, extract_weights
from clickscore.export.parity import compare
from clickscore.export.random_bundle import random_weights
from clickscore.export.ranking import BlockwiseTopK, ExactTopK
from clickscore.export.session_graph import Weights
from clickscore.export.shortlist import QuantisedShortlist
from clickscore.export.to_onnx import to_onnx
from clickscore.model.checkpoint import load_checkpoint, load_tensors, read_record, save_tensors, write_record
from clickscore.model.config import ModelConfig
from clickscore.model.onnx_runtime import explain_scores, open_graph, run_graph
from clickscore.model.prefix_features import EventBatch
from clickscore.model.train import train
from clickscore.model.training_batches import PaddedBatch
from clickscore.schemas.manifest import Manifest, decode_manifest
from clickscore.stream.commands.bundle import bundle as bundle_command
from clickscore.stream.scoring.bundle import check_bundle
from tests.export.test_session_neighbours_graph import draw, make_index, scores_by_row
from tests.export.test_to_onnx import part
from tests.model.builders import TINY, dataset
from tests.model.networks import network
from tests.refusals import refusal

CONFIG = ModelConfig(dim=16, ffn=16, layers=2, max_length=20)
ITEMS, LARGE = 400, 3_000
RANKINGS = {"exact": ExactTopK(), "blockwise": BlockwiseTopK(), "quantised": QuantisedShortlist()}


def draw_weights(count: int, items: int = ITEMS) -> list[Weights]:
    return [random_weights(CONFIG, items, seed) for seed in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("indexed", [False, True])
def test_scores_are_the_mean_of_the_trainings(count, indexed):
    batch, neighbours = draw(20, 8), make_index() if indexed else None
    first, *others = weights = draw_weights(count)
    single = [scores_by_row(to_onnx(own, CONFIG, ITEMS, neighbours=neighbours), batch) for own in weights]
    scores = scores_by_row(to_onnx(first, CONFIG, ITEMS, neighbours=neighbours, mean_with=others), batch)
    assert scores == pytest.approx(np.mean(single, axis=0), abs=2e-5)


def test_probabilities_are_of_the_first_training():
    first, *others = draw_weights(2)
    outputs, usual = (
        run_graph(open_graph(to_onnx(first, CONFIG, mean_with=rest)), draw(20, 8)) for rest in (others, [])
    )
    assert [output.tobytes() for output in outputs[2:]] == [output.tobytes() for output in usual[2:]]


def explain_by_row(model: bytes, batch: PaddedBatch) -> np.ndarray:
    """Return the reasons of all items in order of row: (sessions, items, length)."""
    graph = open_graph(model)
    order = np.argsort(run_graph(graph, batch)[0], axis=1)
    return np.take_along_axis(explain_scores(graph, batch, ITEMS), order[:, :, None], axis=1)


@pytest.mark.parametrize("indexed", [False, True])
def test_reasons_are_the_mean_of_the_trainings(indexed):
    batch, neighbours = draw(20, 8), make_index() if indexed else None
    first, *others = weights = draw_weights(2)
    single = [explain_by_row(to_onnx(own, CONFIG, ITEMS, neighbours=neighbours), batch) for own in weights]
    reasons = explain_by_row(to_onnx(first, CONFIG, ITEMS, neighbours=neighbours, mean_with=others), batch)
    assert reasons == pytest.approx(np.mean(single, axis=0), abs=2e-5)


@pytest.mark.parametrize("kind", RANKINGS)
def test_every_ranking_finds_the_best_of_the_mean(kind):
    batch = draw(20, 8)
    first, *others = draw_weights(2, LARGE)
    rows, scores, *_ = run_graph(
        open_graph(to_onnx(first, CONFIG, 20, ranking=RANKINGS[kind], mean_with=others)), batch
    )
    best_rows, best_scores, *_ = run_graph(open_graph(to_onnx(first, CONFIG, 20, mean_with=others)), batch)
    assert rows.tolist() == best_rows.tolist()
    assert scores == pytest.approx(best_scores, abs=1e-5)


@pytest.mark.parametrize("kind", RANKINGS)
def test_session_has_the_same_bits_in_any_batch(kind):
    first, *others = draw_weights(2, LARGE)
    model = to_onnx(first, CONFIG, 20, ranking=RANKINGS[kind], neighbours=make_index(LARGE), mean_with=others)
    graph, batch = open_graph(model), draw(33, 8)
    together = (*run_graph(graph, batch), explain_scores(graph, batch, 20))
    for size in (1, 2, 7):
        for start in range(0, 34 - size, size):
            which = slice(start, start + size)
            outputs = (*run_graph(graph, part(batch, which)), explain_scores(graph, part(batch, which), 20))
            for output, other in zip(together, outputs, strict=True):
                assert output[which].tobytes() == other.tobytes()


def reseed(checkpoint, folder):
    """Copy a checkpoint into a folder as if it was trained with the next seed."""
    shutil.copytree(checkpoint, folder)
    record = read_record(checkpoint)
    config = dataclasses.replace(record.config, seed=record.config.seed + 1)
    write_record(folder, msgspec.structs.replace(record, config=config))
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two checkpoints of the same sessions with other seeds and other item vectors."""
    folder = tmp_path_factory.mktemp("checkpoints")
    train(dataset(tmp_path_factory.mktemp("sessions")), TINY, folder / "first", Console(quiet=True))
    reseed(folder / "first", folder / "second")
    tensors = load_tensors(folder / "second" / "weights.pt")
    tensors["item"][1:] += torch.randn(tensors["item"][1:].shape, generator=torch.Generator().manual_seed(0))
    save_tensors(folder / "second" / "weights.pt", tensors)
    return folder


@pytest.fixture(scope="module")
def bundles(checkpoints, tmp_path_factory):
    """A bundle of each checkpoint."""
    folder = tmp_path_factory.mktemp("bundles")
    for name in ("first", "second"):
        export_bundle(checkpoints / name, folder / name)
    return folder


def run(*arguments: object):
    return CliRunner().invoke(export, [str(argument) for argument in arguments])


def read_manifest(folder) -> Manifest:
    return decode_manifest((folder / "manifest.json").read_bytes())


@pytest.mark.train
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_bundle_of_two_checkpoints_ranks_by_their_mean(checkpoints, bundles, tmp_path, precision):
    arguments = ("--mean-with", checkpoints / "second", "--out", tmp_path / "mean", "--precision", precision)
    assert run(checkpoints / "first", *arguments).output.startswith("parity: 100.00% of")
    assert check_bundle(tmp_path / "mean") == []
    first, mean = read_manifest(bundles / "first"), read_manifest(tmp_path / "mean")
    assert (first.trainings, mean.trainings) == (1, 2)
    assert (mean.metrics, mean.training_data) == (first.metrics, first.training_data)
    checked = CliRunner().invoke(bundle_command, ["check", str(tmp_path / "mean")]).output
    assert "scores: the mean of 2 trainings; probabilities and metrics: of the first one" in checked

    batch = draw(20, 8, mean.items)
    batch = EventBatch(batch.items, batch.actions, np.zeros_like(batch.items), batch.lengths)
    scores, *single = (
        scores_by_row((path / "model.onnx").read_bytes(), batch)
        for path in (tmp_path / "mean", bundles / "first", bundles / "second")
    )
    assert scores == pytest.approx(np.mean(single, axis=0), abs=2e-5)
    assert np.abs(single[0] - single[1]).max() > 0.1


@pytest.mark.train
def test_graph_of_one_training_is_not_the_mean_of_two(checkpoints):
    (model, table), second = network(CONFIG, ITEMS), network(CONFIG, ITEMS)
    graph = open_graph(to_onnx(extract_weights(model, table), CONFIG))
    examples = load_checkpoint(checkpoints / "first").held_out
    assert compare(graph, model, table, examples, mean_with=[second]).problems == []
    second[0].repeats.readiness.bias.data += 1
    assert "scores differ" in compare(graph, model, table, examples, mean_with=[second]).problems[0]


def rewrite(folder, **changes):
    """Change fields of a checkpoint's record."""
    write_record(folder, msgspec.structs.replace(read_record(folder), **changes))


def change_sessions(folder):
    rewrite(folder, report=dataclasses.replace(read_record(folder).report, sha256="0"))


def change_items(folder):
    items = (folder / "items.txt").read_text().splitlines()
    (folder / "items.txt").write_text("".join(f"{item}\n" for item in reversed(items)))


def change_model(folder):
    config = read_record(folder).config
    rewrite(folder, config=dataclasses.replace(config, model=dataclasses.replace(config.model, temperature=0.1)))


def take_the_same_seed(folder):
    rewrite(folder, config=dataclasses.replace(read_record(folder).config, seed=TINY.seed))


def end_early(folder):
    rewrite(folder, finished=False)
    (folder / "best.pt").write_bytes((folder / "weights.pt").read_bytes())


@pytest.fixture
def second(checkpoints, tmp_path):
    """A copy of the second checkpoint, to be changed."""
    return shutil.copytree(checkpoints / "second", tmp_path / "second")


@pytest.mark.train
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_sessions, "cannot enter the mean: it was trained on other sessions. Train all checkpoints on the same"),
        (change_items, "cannot enter the mean: it knows other items"),
        (change_model, "cannot enter the mean: its model has other settings"),
        (take_the_same_seed, "cannot enter the mean: another checkpoint has the same seed, 0"),
        (end_early, "holds a training that has not ended"),
    ],
)
def test_checkpoint_without_a_mean_is_refused(checkpoints, second, tmp_path, change, message):
    change(second)
    result = run(checkpoints / "first", "--mean-with", second, "--out", tmp_path / "mean")
    assert message in refusal(result)
    assert not (tmp_path / "mean").exists()


@pytest.mark.train
def test_mean_cannot_be_trainable(checkpoints, tmp_path):
    arguments = ("--mean-with", checkpoints / "second", "--out", tmp_path / "mean", "--trainable")
    message = refusal(run(checkpoints / "first", *arguments))
    assert "a mean of checkpoints cannot be fine-tuned: leave out --trainable" in message


@pytest.mark.train
def test_unfinished_training_of_a_mean_is_marked(checkpoints, second, tmp_path):
    end_early(second)
    run(checkpoints / "first", "--mean-with", second, "--out", tmp_path / "mean", "--unfinished")
    assert read_manifest(tmp_path / "mean").unfinished.startswith("best of 3 of")
