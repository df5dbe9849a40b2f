"""The graph finds the session neighbours of `model.session_neighbours`, with the same bits in any batch."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from clickscore.export.bundle_files import write_bundle
from clickscore.export.random_bundle import random_weights
from clickscore.export.ranking import BlockwiseTopK, ExactTopK, Ranking
from clickscore.export.shortlist import QuantisedShortlist
from clickscore.export.to_onnx import to_onnx
from clickscore.model.config import ModelConfig
from clickscore.model.examples import Examples
from clickscore.model.onnx_runtime import explain_scores, open_graph, run_graph, session_options
from clickscore.model.session_neighbours import (
    SHARE_SCALE,
    IndexedSessions,
    SessionIndex,
    compute_bonuses,
    find_neighbours,
    index_sessions,
    open_index,
)
from clickscore.model.training_batches import PaddedBatch
from clickscore.model.vocabulary import Vocabulary
from clickscore.stream.scoring.bundle import check_bundle

CONFIG = ModelConfig(dim=16, ffn=16, max_length=20)
ITEMS, FACTOR = 400, 3.0
RANKINGS: dict[str, Ranking] = {"exact": ExactTopK(), "blockwise": BlockwiseTopK(), "quantised": QuantisedShortlist()}


def make_index(items: int = ITEMS, sessions: int = 600) -> SessionIndex:
    """Return an index of random sessions of up to 10 of few items, so that items have many sessions."""
    rng = np.random.default_rng(1)
    starts = np.cumsum([0, *rng.integers(1, 11, sessions)])
    none = np.zeros(starts[-1], dtype=np.int64)
    examples = Examples(rng.integers(1, min(items, 60), starts[-1]), none, none, none, none, starts)
    return open_index(IndexedSessions(index_sessions(examples), FACTOR), items + 1)


def draw(sessions: int, width: int, items: int = 60) -> PaddedBatch:
    """Return sessions of all lengths up to a width."""
    rng = np.random.default_rng(width)
    lengths = 1 + np.arange(sessions) % width
    rows = rng.integers(1, items, (sessions, width)) * (np.arange(width) < lengths[:, None])
    return PaddedBatch(rows, np.minimum(rows, 1), lengths)


def scores_by_row(model: bytes, batch: PaddedBatch) -> np.ndarray:
    """Return the scores in order of row."""
    rows, scores, _, _ = run_graph(open_graph(model), batch)
    return np.take_along_axis(scores, np.argsort(rows, axis=1), axis=1)


def expected_bonuses(index: SessionIndex, batch: PaddedBatch) -> np.ndarray:
    """Return the bonus of each item, in order of row."""
    found = find_neighbours(index, batch)
    weights = [
        np.bincount(rows, weights=parts.sum(axis=0), minlength=ITEMS + 1)[1:]
        for rows, parts in zip(found.rows, found.parts, strict=True)
    ]
    return compute_bonuses(np.array(weights), found.totals, index.factor)


@pytest.mark.parametrize("kind", RANKINGS)
@pytest.mark.parametrize("width", [1, 4, 20])
def test_scores_gain_the_bonuses(kind, width):
    index, batch, weights = make_index(), draw(20, width), random_weights(CONFIG, ITEMS)
    usual, helped = (
        scores_by_row(to_onnx(weights, CONFIG, ITEMS, ranking=RANKINGS[kind], neighbours=neighbours), batch)
        for neighbours in (None, index)
    )
    bonuses = expected_bonuses(index, batch)
    assert np.abs(helped - usual - bonuses).max() < 1e-5
    assert bonuses.max() == pytest.approx(FACTOR * np.log(1 + SHARE_SCALE))


@pytest.mark.parametrize("kind", RANKINGS)
def test_session_has_the_same_bits_in_any_batch_and_width(kind):
    weights = random_weights(CONFIG, ITEMS)
    graph = open_graph(to_onnx(weights, CONFIG, ranking=RANKINGS[kind], neighbours=make_index()))
    batch = draw(16, 8)
    wide = PaddedBatch(*(np.pad(part, ((0, 0), (0, 4))) for part in batch[:2]), batch.lengths)
    together, wider = run_graph(graph, batch), run_graph(graph, wide)
    for row in range(16):
        part = slice(row, row + 1)
        alone = run_graph(graph, PaddedBatch(*(values[part] for values in batch)))
        for output, wide_output, single in zip(together, wider, alone, strict=True):
            assert output[part].tobytes() == wide_output[part].tobytes() == single.tobytes()


@pytest.mark.parametrize("threads", [1, 3, 7])
def test_session_has_the_same_bits_with_any_number_of_threads(threads):
    weights, batch = random_weights(CONFIG, ITEMS), draw(512, 20)
    model = to_onnx(weights, CONFIG, ITEMS, neighbours=make_index())
    options = session_options()
    options.intra_op_num_threads = threads
    expected = run_graph(open_graph(model), batch)
    graph = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for sessions in (1, 64, 96, 128, 200, 333, 512):
        outputs = run_graph(graph, PaddedBatch(*(values[:sessions] for values in batch)))
        for output, alone in zip(outputs, expected, strict=True):
            assert output.tobytes() == alone[:sessions].tobytes()


def test_quantised_shortlist_finds_items_that_gain_ranks_by_their_bonuses():
    items, batch = 20_000, draw(8, 6)
    weights, index = random_weights(CONFIG, items), make_index(items)._replace(factor=100.0)
    exact, quick = (
        run_graph(open_graph(to_onnx(weights, CONFIG, 20, ranking=ranking, neighbours=index)), batch)
        for ranking in (ExactTopK(), QuantisedShortlist())
    )
    assert exact[0].tolist() == quick[0].tolist()
    assert exact[1].tobytes() == quick[1].tobytes()


def test_item_that_only_similar_sessions_bring_has_a_reason():
    index, batch, weights = make_index(), draw(1, 1), random_weights(CONFIG, ITEMS)
    row = int(next(row for row in find_neighbours(index, batch).rows[0].tolist() if row and row != batch.items[0, 0]))
    reasons: list[float] = []
    for neighbours in (None, index._replace(factor=50.0)):
        graph = open_graph(to_onnx(weights, CONFIG, ITEMS, neighbours=neighbours))
        rows, _, _, _ = run_graph(graph, batch)
        reasons.append(float(explain_scores(graph, batch, ITEMS)[0, rows[0].tolist().index(row), 0]))
    assert reasons[1] - reasons[0] == pytest.approx(
        expected_bonuses(index._replace(factor=50.0), batch)[0, row - 1], abs=1e-4
    )


def test_graph_is_valid_onnx_without_other_operators():
    model = onnx.load_model_from_string(to_onnx(random_weights(CONFIG, ITEMS), CONFIG, neighbours=make_index()))
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert "Log" not in {node.op_type for node in model.graph.node}  # its bits depend on the number of threads


def test_check_refuses_an_index_that_names_a_session_beyond_its_end(tmp_path):
    model = onnx.load_model_from_string(to_onnx(random_weights(CONFIG, ITEMS), CONFIG, neighbours=make_index()))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type == onnx.TensorProto.INT32 and values.ndim == 1:  # the lists of sessions
            tensor.CopyFrom(numpy_helper.from_array(values + np.int32(1), tensor.name))
    vocabulary = Vocabulary([f"item-{number}" for number in range(ITEMS)])
    write_bundle(
        tmp_path,
        model=model.SerializeToString(),
        vocabulary=vocabulary,
        framework="numpy",
        max_length=CONFIG.max_length,
    )
    (problem,) = check_bundle(tmp_path)
    assert "indices element out of data bounds" in problem
