import numpy as np
import pytest
import torch

from clickscore.export.export_bundle import extract_weights
from clickscore.export.random_bundle import write_random_bundle
from clickscore.export.to_onnx import to_onnx
from clickscore.model.evaluation.bundle_metrics import evaluate_bundle, evaluate_graph
from clickscore.model.examples import make_examples
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.predict import Predictions, compute_metrics, evaluate_model, ranking_score
from tests.model.builders import TINY, dataset, flat
from tests.model.networks import network

pytestmark = pytest.mark.train

ROWS = np.array([1, 2, 3, 4, 0, 0, 0, 0])


def predictions(ranks: list[int], purchase: float = 0.5) -> Predictions:
    return Predictions(np.array(ranks), np.full((len(ranks), 5), 0.2), np.full(len(ranks), purchase))


def test_events_that_nothing_follows_are_not_ranked():
    examples = make_examples(flat(["view:a view:b"]), ROWS, 50)
    assert compute_metrics(predictions([1, 0]), examples)["hit_rate@20"] == 1


def test_next_item_that_is_unknown_is_a_miss():
    examples = make_examples(flat(["view:a view:e", "view:a view:b"]), ROWS, 50)
    assert compute_metrics(predictions([0, 1, 0]), examples)["mrr@20"] == 0.5


def test_popularity_ranks_an_item_by_its_row():
    examples = make_examples(flat(["view:a view:d", "view:a view:e"]), ROWS, 50)
    assert compute_metrics(predictions([0, 0, 0]), examples)["popular_mrr@20"] == 0.125


def test_score_grows_with_items_that_are_found_and_with_their_order():
    worse, more, higher = (
        {"hit_rate@20": hits, "mrr@20": order} for hits, order in ((0.17, 0.084), (0.19, 0.08), (0.17, 0.09))
    )
    assert ranking_score(worse) < ranking_score(higher) < ranking_score(more)


def test_purchase_rate_is_the_share_of_events_before_a_purchase():
    examples = make_examples(flat(["view:a view:b purchase:b view:c"]), ROWS, 50)
    assert compute_metrics(predictions([1, 1, 1, 1]), examples)["purchase_rate"] == 0.5


def test_graph_has_the_metrics_of_its_model(tmp_path):
    data = dataset(tmp_path)
    model, table = network(TINY.model, len(data.vocabulary))
    graph = open_graph(to_onnx(extract_weights(model, table), TINY.model))
    assert evaluate_graph(graph, data.training) == pytest.approx(evaluate_model(model, table, data.training), rel=1e-3)


def test_bundle_is_evaluated_on_files(tmp_path):
    data = dataset(tmp_path)
    write_random_bundle(tmp_path / "bundle", data.vocabulary.items, TINY.model)
    metrics = evaluate_bundle(tmp_path / "bundle", [tmp_path / "sessions.jsonl"])
    assert metrics["sessions"] == 200
    assert 0 < metrics["hit_rate@20"] < 1


def test_model_with_equal_scores_for_all_hits_nothing(tmp_path):
    data = dataset(tmp_path)
    model, table = network(TINY.model, len(data.vocabulary))
    torch.nn.init.zeros_(model.repeats.table)
    torch.nn.init.zeros_(model.repeats.readiness.weight)
    torch.nn.init.zeros_(model.repeats.readiness.bias)
    assert evaluate_model(model, torch.zeros_like(table), data.training)["hit_rate@20"] == 0
