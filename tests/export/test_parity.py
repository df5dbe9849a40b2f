import dataclasses

import numpy as np
import pytest
import torch

from export.parity import Parity, compare
from export.random_bundle import random_weights
from export.ship import weights_of
from export.to_onnx import to_onnx
from model.config import ModelConfig
from model.evaluate import open_graph
from model.features import Examples
from model.transformer import SessionTransformer

pytestmark = pytest.mark.train

CONFIG = ModelConfig(dim=32, ffn=64, max_length=20)


def network(items: int, config: ModelConfig = CONFIG) -> SessionTransformer:
    model = SessionTransformer(config, items).eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in random_weights(config, items).items()})
    return model


def sessions(items: int, count: int = 150, longest: int = 20) -> Examples:
    rng = np.random.default_rng(0)
    starts = np.cumsum([0, *rng.integers(1, longest + 1, count)])
    nothing = np.zeros(starts[-1], dtype=np.int64)
    rows, actions = rng.integers(1, items + 1, starts[-1]), rng.integers(1, 8, starts[-1])
    return Examples(rows, actions, nothing, nothing, nothing, starts)


def parity(items: int, config: ModelConfig = CONFIG) -> Parity:
    model = network(items, config)
    return compare(open_graph(to_onnx(weights_of(model), config)), model, sessions(items))


@pytest.mark.parametrize("items", [5, 300, 20_000])
def test_graph_says_what_the_model_says(items):
    found = parity(items)
    assert found.problems == []
    assert found.same_ranking > 0.999
    assert found.score_difference < 2e-5
    assert found.probability_difference < 1e-6


@pytest.mark.parametrize(
    "change", [{"layers": 1}, {"layers": 3}, {"heads": 1}, {"heads": 4}, {"max_length": 3}, {"dim": 48, "heads": 3}]
)
def test_graph_says_what_a_model_of_another_shape_says(change):
    assert parity(300, dataclasses.replace(CONFIG, **change)).problems == []


def test_no_answer_depends_on_its_batch():
    assert parity(300).depends_on_batch == 0


def test_graph_of_other_weights_does_not_agree():
    model = network(300)
    other = dict(weights_of(model))
    other["action.weight"] = other["action.weight"] * 1.5
    found = compare(open_graph(to_onnx(other, CONFIG)), model, sessions(300))
    assert "scores differ" in " ".join(found.problems)


def test_graph_whose_scores_are_no_numbers_does_not_agree():
    model = network(300)
    torch.nn.init.constant_(model.readout.bias, float("nan"))
    found = compare(open_graph(to_onnx(weights_of(model), CONFIG)), model, sessions(300))
    assert "scores differ" in found.problems[0]


def test_graph_of_another_purchase_head_does_not_agree():
    model = network(300)
    other = dict(weights_of(model))
    other["purchase.bias"] = other["purchase.bias"] + 1
    found = compare(open_graph(to_onnx(other, CONFIG)), model, sessions(300))
    assert [problem[:20] for problem in found.problems] == ["probabilities differ"]


def test_at_most_so_many_beginnings_are_compared():
    model = network(5)
    found = compare(open_graph(to_onnx(weights_of(model), CONFIG)), model, sessions(5), most=10)
    assert found.beginnings == 10


def test_answer_that_depends_on_its_batch_is_a_problem():
    assert Parity(100, 1.0, 0.0, 0.0, 3).problems == ["3 answers have other bits alone than in a batch"]
