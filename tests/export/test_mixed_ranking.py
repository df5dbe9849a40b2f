"""Sessions with several query vectors: candidates by each, ranked by their mixed scores."""

import dataclasses

import numpy as np
import pytest

from clickscore.export.random_bundle import random_weights
from clickscore.export.ranking import BlockwiseTopK, ExactTopK, Ranking
from clickscore.export.shortlist import QuantisedShortlist
from clickscore.export.to_onnx import to_onnx
from clickscore.model.config import ModelConfig
from clickscore.model.onnx_runtime import explain_scores, open_graph, run_graph
from clickscore.model.training_batches import PaddedBatch
from tests.export.test_to_onnx import LARGE, SMALL, batch_of, inside, part, value

CONFIG = ModelConfig(dim=32, ffn=64, readouts=3)
RANKINGS: dict[str, Ranking] = {"blocks": BlockwiseTopK(), "shortlist": QuantisedShortlist()}


def mixed_scores(items: int, batch: PaddedBatch) -> np.ndarray:
    """Return the mixed scores of all items, from the products of each readout: (B, items)."""
    model = to_onnx(random_weights(CONFIG, items), CONFIG, ranking=ExactTopK())
    products = value(model, inside(model, "Gemm"), batch).reshape(CONFIG.readouts, len(batch.items), -1)
    with_bonuses = value(model, inside(model, "ScatterElements"), batch).reshape(products.shape)
    bonuses = np.where(np.isfinite(with_bonuses), with_bonuses - products, 0)[0]
    return (np.log(np.exp(products.astype(np.float64)).sum(axis=0)) + bonuses)[:, 1:]


@pytest.fixture(scope="module", params=RANKINGS)
def graph(request: pytest.FixtureRequest):
    return open_graph(to_onnx(random_weights(CONFIG, LARGE), CONFIG, ranking=RANKINGS[request.param]))


def test_scores_of_a_whole_catalogue_are_mixed():
    batch = batch_of(16, 8, SMALL)
    rows, scores, *_ = run_graph(open_graph(to_onnx(random_weights(CONFIG, SMALL), CONFIG, SMALL)), batch)
    expected = mixed_scores(SMALL, batch)
    assert np.sort(rows).tolist() == [list(range(1, SMALL + 1))] * 16
    assert scores == pytest.approx(np.take_along_axis(expected, rows - 1, axis=1), abs=1e-4)
    assert (np.diff(scores) <= 0).all()


@pytest.mark.slow
def test_first_places_are_the_best_mixed_scores(graph):
    batch = batch_of(32, 8, LARGE)
    rows, scores, *_ = run_graph(graph, batch)
    best = -np.sort(-mixed_scores(LARGE, batch))[:, :10]
    assert scores[:, :10] == pytest.approx(best, abs=1e-4)
    assert all(len(set(row)) == 64 and min(row) > 0 for row in rows.tolist())


def test_session_gets_the_same_bits_alone(graph):
    batch = batch_of(16, 8, LARGE)
    outputs = run_graph(graph, batch)
    reasons = explain_scores(graph, batch, 10)
    for row in range(16):
        alone = part(batch, slice(row, row + 1))
        for values, own in zip(outputs, run_graph(graph, alone), strict=True):
            assert values[row].tobytes() == own[0].tobytes()
        assert reasons[row].tobytes() == explain_scores(graph, alone, 10)[0].tobytes()


def test_every_ranking_finds_the_same_rows_with_the_same_bits():
    batch = batch_of(16, 8, LARGE)
    exact, *others = (
        run_graph(open_graph(to_onnx(random_weights(CONFIG, LARGE), CONFIG, ranking=ranking)), batch)
        for ranking in (ExactTopK(), *RANKINGS.values())
    )
    for outputs in others:
        assert [values.tobytes() for values in outputs] == [values.tobytes() for values in exact]


def test_equal_scores_come_in_order_of_row():
    weights = dict(random_weights(CONFIG, SMALL))
    weights["table"] = np.zeros_like(weights["table"])
    session = PaddedBatch(np.array([[7]]), np.array([[1]]), np.array([1]))
    rows, *_ = run_graph(open_graph(to_onnx(weights, CONFIG, 5)), session)
    others = [row for row in rows[0].tolist() if row != 7]
    assert others == [1, 2, 3, 4, 5][: len(others)]


def test_catalogue_smaller_than_the_candidates_is_returned_whole():
    config = dataclasses.replace(CONFIG, readouts=2)
    rows, *_ = run_graph(open_graph(to_onnx(random_weights(config, 5), config)), batch_of(4, 3, 5))
    assert np.sort(rows).tolist() == [[1, 2, 3, 4, 5]] * 4
