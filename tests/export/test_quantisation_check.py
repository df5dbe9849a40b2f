import dataclasses

import numpy as np
import onnx
import pytest

from clickscore.export.errors import ExportError
from clickscore.export.quantisation_check import measure_fidelity
from clickscore.export.random_bundle import random_weights
from clickscore.export.ranking import ExactTopK
from clickscore.export.shortlist import QuantisedShortlist
from clickscore.export.to_onnx import to_onnx
from clickscore.model.config import ModelConfig
from clickscore.model.onnx_runtime import open_graph, run_graph
from clickscore.model.training_batches import pad_prefixes
from tests.export.test_parity import sessions

pytestmark = pytest.mark.train

CONFIG = ModelConfig(dim=32, ffn=64, max_length=20)
ITEMS = 20_000


@pytest.fixture(scope="module")
def weights():
    return random_weights(CONFIG, ITEMS)


@pytest.fixture(scope="module")
def exact(weights):
    return open_graph(to_onnx(weights, CONFIG, 20, ranking=ExactTopK()))


def test_quantised_graph_loses_nothing(weights, exact):
    quick = open_graph(to_onnx(weights, CONFIG, 20, ranking=QuantisedShortlist()))
    report = measure_fidelity(quick, exact, sessions(ITEMS), every_event=False)
    assert report.beginnings > 1_000
    assert (report.overlap, report.hr, report.mrr) == (1, 0, 0)


def test_graph_of_coarse_vectors_says_what_it_loses(weights, exact):
    coarse = weights | {"table": np.round(weights["table"] * 64) / np.float32(64)}
    quick = open_graph(to_onnx(coarse, CONFIG, 20, ranking=QuantisedShortlist()))
    assert 0.5 < measure_fidelity(quick, exact, sessions(ITEMS), every_event=False).overlap < 1


def test_change_of_metrics_is_that_of_the_wanted_items(weights, exact):
    """Each whole session wants the exact graph's best item, which a graph of other weights hardly has."""
    examples = sessions(ITEMS, count=20)
    last = examples.starts[1:] - 1
    next_item = examples.next_item.copy()
    next_item[last] = run_graph(exact, pad_prefixes(examples, last))[0][:, 0]
    other_graph = open_graph(to_onnx(random_weights(CONFIG, ITEMS, seed=1), CONFIG, 20))
    report = measure_fidelity(other_graph, exact, dataclasses.replace(examples, next_item=next_item), every_event=False)
    assert (report.hr, report.mrr) == (pytest.approx(-1, abs=0.05), pytest.approx(-1, abs=0.05))
    assert report.overlap < 0.3


def test_graph_that_is_not_batch_invariant_is_refused(weights, exact):
    model = onnx.load_model_from_string(to_onnx(weights, CONFIG, 20))
    purchase = next(node for node in model.graph.node if "purchase" in node.output)
    purchase.output[0] = "own"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "zero"))
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["own", "zero"], ["of_all"], keepdims=1))
    model.graph.node.append(onnx.helper.make_node("Min", ["own", "of_all"], ["purchase"]))
    with pytest.raises(ExportError, match="not batch-invariant"):
        measure_fidelity(open_graph(model.SerializeToString()), exact, sessions(ITEMS), every_event=False)
