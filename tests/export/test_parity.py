import dataclasses

import numpy as np
import onnx
import pytest

from clickscore.export.export_bundle import extract_weights
from clickscore.export.parity import Parity, compare
from clickscore.export.to_onnx import to_onnx
from clickscore.model.config import ModelConfig
from clickscore.model.examples import Examples
from clickscore.model.onnx_runtime import open_graph
from tests.model.networks import network

pytestmark = pytest.mark.train

CONFIG = ModelConfig(dim=32, ffn=64, max_length=20)


def sessions(items: int, count: int = 150, longest: int = 20) -> Examples:
    """Return random sessions of few distinct items, so that many come again."""
    rng = np.random.default_rng(0)
    starts = np.cumsum([0, *rng.integers(1, longest + 1, count)])
    nothing = np.zeros(starts[-1], dtype=np.int64)
    rows, actions = rng.integers(1, min(items, 40) + 1, starts[-1]), rng.integers(1, 8, starts[-1])
    return Examples(rows, actions, nothing, nothing, nothing, starts)


def parity(items: int, config: ModelConfig = CONFIG) -> Parity:
    model, table = network(config, items)
    graph = open_graph(to_onnx(extract_weights(model, table), config))
    return compare(graph, model, table, sessions(items, longest=config.max_length))


@pytest.mark.parametrize("items", [5, 300, 20_000])
def test_graph_says_what_the_model_says(items):
    result = parity(items)
    assert result.problems == []
    assert result.same_ranking > 0.999
    assert result.score_difference < 2e-5
    assert result.probability_difference < 1e-6
    assert result.reason_difference < 1e-5


@pytest.mark.parametrize(
    "change", [{"layers": 1}, {"layers": 3}, {"heads": 1}, {"heads": 4}, {"max_length": 3}, {"dim": 48, "heads": 3}]
)
def test_graph_says_what_a_model_of_another_shape_says(change):
    assert parity(300, dataclasses.replace(CONFIG, **change)).problems == []


def test_graph_is_batch_invariant():
    assert parity(300).batch_dependent == 0


def changed(name: str, change: float) -> Parity:
    """Compare a model with the graph of one that has a weight multiplied."""
    model, table = network(CONFIG, 300)
    changed_weights = dict(extract_weights(model, table))
    changed_weights[name] = changed_weights[name] * np.float32(change)
    return compare(open_graph(to_onnx(changed_weights, CONFIG)), model, table, sessions(300))


@pytest.mark.parametrize(
    "name", ["action.weight", "readout.own.weight", "readout.distance", "repeats.table", "repeats.readiness.weight"]
)
def test_graph_of_other_weights_does_not_agree(name):
    assert "scores differ" in " ".join(changed(name, 1.5).problems)


def test_graph_whose_scores_are_no_numbers_does_not_agree():
    assert "scores differ" in changed("readout.own.weight", float("nan")).problems[0]


def test_graph_of_another_purchase_head_does_not_agree():
    assert [problem[:20] for problem in changed("purchase.weight", 2).problems] == ["probabilities differ"]


def test_graph_of_other_reasons_does_not_agree():
    model, table = network(CONFIG, 300)
    changed = onnx.load_model_from_string(to_onnx(extract_weights(model, table), CONFIG))
    (last,) = (node for node in changed.graph.node if node.output[0] == "reasons")
    last.output[0] = "right"
    changed.graph.node.append(onnx.helper.make_node("Add", ["right", "right"], ["reasons"]))
    problems = compare(open_graph(changed.SerializeToString()), model, table, sessions(300)).problems
    assert [problem[:14] for problem in problems] == ["reasons differ"]


def test_comparison_stops_at_the_limit():
    model, table = network(CONFIG, 5)
    graph = open_graph(to_onnx(extract_weights(model, table), CONFIG))
    assert compare(graph, model, table, sessions(5), limit=10).prefixes == 10


def test_graph_that_is_not_batch_invariant_is_a_problem():
    assert Parity(100, 1.0, 0.0, 0.0, 0.0, 3).problems == ["3 sessions get other bits alone than in a batch"]
