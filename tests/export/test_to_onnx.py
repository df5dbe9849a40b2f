import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickscore.export.errors import ExportError
from clickscore.export.random_bundle import random_weights
from clickscore.export.ranking import BlockwiseTopK, ExactTopK, Ranking
from clickscore.export.shortlist import QuantisedShortlist
from clickscore.export.to_onnx import to_onnx
from clickscore.model.config import ModelConfig
from clickscore.model.onnx_runtime import explain_scores, open_graph, run_graph
from clickscore.model.training_batches import PaddedBatch
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import EXPLAINED, INPUTS, OPTIONAL, OUTPUTS, REASONS

CONFIG = ModelConfig(dim=32, ffn=64)
SMALL, LARGE = 300, 20_000
"""Items of a catalogue that is ranked in one step, and of one that is ranked by blocks."""


PLANTED = ModelConfig(dim=16, ffn=16, heads=1, layers=1, temperature=1.0)


def batch_of(sessions: int, width: int, items: int, seed: int = 0) -> PaddedBatch:
    """Return random sessions, the first of one event and the second as long as the width."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, width + 1, sessions)
    lengths[:2] = (1, width)[:sessions]
    real = np.arange(width) < lengths[:, None]
    rows, actions = (rng.integers(1, limit + 1, (sessions, width)) * real for limit in (items, len(ACTIONS) - 1))
    return PaddedBatch(rows, actions, lengths)


def part(batch: PaddedBatch, which: slice) -> PaddedBatch:
    return PaddedBatch(batch.items[which], batch.actions[which], batch.lengths[which])


def inside(model: bytes, operator: str) -> str:
    """Return the name of what the last node of an operator makes."""
    return next(
        node.output[0] for node in reversed(onnx.load_model_from_string(model).graph.node) if node.op_type == operator
    )


def value(model: bytes, name: str, batch: PaddedBatch) -> np.ndarray:
    """Return what a graph computes under a name, on its way."""
    opened = onnx.load_model_from_string(model)
    opened.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return open_graph(opened.SerializeToString()).run([name], batch._asdict())[0]


KINDS: dict[str, tuple[int, Ranking]] = {
    "one step": (SMALL, BlockwiseTopK()),
    "blocks": (LARGE, BlockwiseTopK()),
    "shortlist": (LARGE, QuantisedShortlist()),
    "shortlist of all": (SMALL, QuantisedShortlist()),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[int, Ranking]:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def items(kind: tuple[int, Ranking]) -> int:
    return kind[0]


@pytest.fixture(scope="module")
def model(kind: tuple[int, Ranking]) -> bytes:
    items, ranking = kind
    return to_onnx(random_weights(CONFIG, items), CONFIG, ranking=ranking)


@pytest.fixture(scope="module")
def graph(model: bytes):
    return open_graph(model)


def test_large_catalogue_is_ranked_by_blocks():
    assert (BlockwiseTopK().row_multiple(SMALL + 1, 64), BlockwiseTopK().row_multiple(LARGE + 1, 64)) == (0, 16)


def test_graph_is_valid_onnx(model):
    onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)


def test_graph_needs_no_operator_beyond_the_standard(model):
    opened = onnx.load_model_from_string(model)
    functions = {(function.domain, function.name) for function in opened.functions}  # which the file itself defines
    assert {(node.domain, node.op_type) for node in opened.graph.node if node.domain} == functions
    assert {node.domain for function in opened.functions for node in function.node} <= {""}
    assert dict(sorted((opset.domain, opset.version) for opset in opened.opset_import)).pop("") == 23


def test_inputs_and_outputs_are_those_of_the_contract(graph):
    names = {"tensor(int64)": "int64", "tensor(float)": "float32"}
    expected = {name: shape for name, shape in INPUTS.items() if name != "ages"}  # which trees read
    assert {node.name: (names[node.type], len(node.shape)) for node in graph.get_inputs()} == expected
    outputs = {node.name: (names[node.type], len(node.shape)) for node in graph.get_outputs()}
    assert outputs == OUTPUTS | {REASONS: OPTIONAL[REASONS]}
    assert [(node.name, names[node.type], len(node.shape)) for node in graph.get_overridable_initializers()] == [
        (EXPLAINED, *OPTIONAL[EXPLAINED])
    ]


def test_answers_have_the_shapes_that_the_graph_states(graph):
    graph_outputs = run_graph(graph, batch_of(5, 4, SMALL))
    assert [graph_output.shape for graph_output in graph_outputs] == [(5, 64), (5, 64), (5, 5), (5,)]
    shapes = [["batch", 64], ["batch", 64], ["batch", 5], ["batch"], ["batch", "explained", "length"]]
    assert [node.shape for node in graph.get_outputs()] == shapes


def test_probabilities_of_actions_add_up_to_1(graph):
    assert run_graph(graph, batch_of(9, 6, SMALL))[2].sum(axis=1) == pytest.approx(1)


def test_purchase_is_a_probability(graph):
    purchase = run_graph(graph, batch_of(64, 8, SMALL))[3]
    assert ((purchase > 0) & (purchase < 1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 12, 20, 50])
def test_answer_has_the_same_bits_in_any_batch(graph, items, width):
    batch = batch_of(64, width, items)
    together = run_graph(graph, batch)
    for size in (1, 2, 7, 33):
        for start in range(0, 65 - size, size):
            which = slice(start, start + size)
            for graph_output, other in zip(together, run_graph(graph, part(batch, which)), strict=True):
                assert graph_output[which].tobytes() == other.tobytes()


def test_answer_does_not_depend_on_its_neighbours(graph, items):
    batch, other = batch_of(32, 8, items), batch_of(32, 8, items, seed=1)
    mixed = PaddedBatch(*(np.concatenate((ours[:1], theirs[1:])) for ours, theirs in zip(batch, other, strict=True)))
    for graph_output, same in zip(run_graph(graph, batch), run_graph(graph, mixed), strict=True):
        assert graph_output[0].tobytes() == same[0].tobytes()


def test_what_stands_after_the_end_changes_nothing(graph, items):
    batch = batch_of(16, 8, items)
    is_padding = np.arange(8) >= batch.lengths[:, None]
    scribbled = PaddedBatch(np.where(is_padding, 7, batch.items), np.where(is_padding, 3, batch.actions), batch.lengths)
    for graph_output, same in zip(run_graph(graph, batch), run_graph(graph, scribbled), strict=True):
        assert graph_output.tobytes() == same.tobytes()


def test_wider_padding_changes_no_more_than_rounding(graph, items):
    batch = batch_of(16, 8, items)
    wide = PaddedBatch(np.pad(batch.items, ((0, 0), (0, 12))), np.pad(batch.actions, ((0, 0), (0, 12))), batch.lengths)
    for graph_output, same in zip(run_graph(graph, batch)[1:], run_graph(graph, wide)[1:], strict=True):
        assert graph_output == pytest.approx(same, abs=1e-5)


def test_nothing_is_explained_where_nobody_asks(graph):
    batch = batch_of(3, 8, SMALL)
    assert graph.run([REASONS], batch._asdict())[0].shape == (3, 0, 8)


def test_answers_have_the_same_bits_with_reasons_and_without(graph, items):
    batch = batch_of(32, 8, items)
    with_reasons = graph.run([*OUTPUTS, REASONS], batch._asdict() | {EXPLAINED: np.array([64])})
    for graph_output, other in zip(run_graph(graph, batch), with_reasons, strict=False):
        assert graph_output.tobytes() == other.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 2, 4, 10, 20, 50])
def test_reasons_have_the_same_bits_in_any_batch(graph, items, width):
    batch = batch_of(64, width, items)
    together = explain_scores(graph, batch, 64)
    for size in (1, 2, 7, 33):
        for start in range(0, 65 - size, size):
            which = slice(start, start + size)
            assert together[which].tobytes() == explain_scores(graph, part(batch, which), 64).tobytes()


def test_fewer_reasons_are_those_of_the_best_candidates(graph, items):
    batch = batch_of(16, 8, items)
    assert explain_scores(graph, batch, 10) == pytest.approx(explain_scores(graph, batch, 64)[:, :10], abs=1e-6)


def test_what_stands_after_the_end_brings_nothing(graph, items):
    batch = batch_of(16, 8, items)
    reasons = explain_scores(graph, batch, 64)
    is_padding = np.broadcast_to(np.arange(8) >= batch.lengths[:, None, None], reasons.shape)
    assert (reasons[is_padding] == 0).all()
    assert (reasons[~is_padding] != 0).any()


def test_only_event_brings_the_whole_score(graph, items):
    batch = batch_of(1, 8, items)
    assert batch.lengths.tolist() == [1]
    assert explain_scores(graph, batch, 64)[0, :, 0].tolist() == run_graph(graph, batch)[1][0].tolist()


def test_last_event_brings_what_the_session_before_it_lacks(graph, items):
    batch = batch_of(2, 8, items)
    shorter = PaddedBatch(batch.items[1:, :7], batch.actions[1:, :7], np.array([7]))
    rows, scores, *_ = run_graph(graph, part(batch, slice(1, 2)))
    earlier = dict(
        zip(*(outputs_of_prefix[0].tolist() for outputs_of_prefix in run_graph(graph, shorter)[:2]), strict=True)
    )
    reasons = explain_scores(graph, part(batch, slice(1, 2)), 64)[0, :, 7]
    common = [index for index, row in enumerate(rows[0].tolist()) if row in earlier]
    assert common
    for index in common:
        assert reasons[index] == pytest.approx(scores[0, index] - earlier[rows[0, index]], abs=1e-5)


def test_item_of_the_session_may_be_named_many_times():
    rows = np.array([[5, 7, 5, 5, 7, 9], [5, 5, 5, 5, 5, 5]])
    model = to_onnx(random_weights(CONFIG, SMALL), CONFIG)
    batch = PaddedBatch(rows, np.ones_like(rows), np.array([6, 4]))
    cosines = value(model, inside(model, "Gemm"), batch)
    added = value(model, inside(model, "ScatterElements"), batch) - cosines
    assert [(np.flatnonzero(row[1:]) + 1).tolist() for row in added] == [[5, 7, 9], [5]]  # row 0 is no item


def test_session_longer_than_the_model_has_distances_is_answered(kind):
    items, ranking = kind
    short = ModelConfig(dim=16, ffn=16, max_length=4)
    graph = open_graph(to_onnx(random_weights(short, items), short, ranking=ranking))
    assert np.isfinite(run_graph(graph, batch_of(3, 9, items))[1]).all()


@pytest.mark.slow
def test_ranking_is_the_exact_order_of_all_scores(kind, graph):
    items, _ = kind
    batch = batch_of(16, 8, items)
    one_step = to_onnx(random_weights(CONFIG, items), CONFIG, ranking=ExactTopK())
    rows, scores, _, _ = run_graph(graph, batch)
    all_scores = value(one_step, inside(one_step, "ScatterElements"), batch)  # (16, items + 1)
    for values, best, row in zip(rows, scores, all_scores, strict=True):
        order = sorted(range(1, items + 1), key=lambda index: (-row[index], index))[:64]
        assert values.tolist() == order
        assert best.tolist() == row[order].tolist()


def test_session_item_that_the_model_likes_least_is_ranked_by_what_repeats_add():
    weights = dict(random_weights(CONFIG, LARGE))
    weights["repeats.readiness.bias"] = np.full(1, 1e3, dtype=np.float32)
    batch = batch_of(16, 8, LARGE)
    rows, scores, _, _ = run_graph(open_graph(to_onnx(weights, CONFIG, ranking=QuantisedShortlist())), batch)
    same_rows, same_scores, _, _ = run_graph(open_graph(to_onnx(weights, CONFIG, ranking=ExactTopK())), batch)
    assert rows.tolist() == same_rows.tolist()
    assert scores.tobytes() == same_scores.tobytes()


def weights_of_planted(scores: np.ndarray, config: ModelConfig) -> dict[str, np.ndarray]:
    """Return weights with which items have these scores, for rows from 1, whatever the session is."""
    weights = dict(random_weights(config, len(scores)))
    first = np.eye(config.dim, dtype=np.float32)[0]
    for name in ("table", "norm.weight", "readout.own.weight", "repeats.table", "repeats.readiness.weight"):
        weights[name] = np.zeros_like(weights[name])
    weights["repeats.readiness.bias"] = np.zeros(1, dtype=np.float32)
    weights["norm.bias"] = first
    weights["readout.own.weight"] = np.outer(first, first) * np.float32(1e4)  # outweighs the session's items
    weights["table"][1:, 0] = scores
    return weights


def planted(scores: np.ndarray, candidates: int, ranking: Ranking | None = None) -> tuple[list[int], list[float]]:
    """Return what a graph ranks whose scores are these, for rows from 1: rows and scores."""
    weights = weights_of_planted(scores, PLANTED)
    graph = open_graph(to_onnx(weights, PLANTED, candidates, ranking=ranking))
    rows, values, _, _ = run_graph(graph, batch_of(1, 3, len(scores)))
    return rows[0].tolist(), values[0].tolist()


def test_session_items_that_repeats_damp_take_no_place_on_the_shortlist():
    weights = weights_of_planted(-np.arange(LARGE, dtype=np.float32), PLANTED)
    weights["repeats.readiness.bias"] = np.full(1, -1e6, dtype=np.float32)
    best = np.arange(1, 41)[None]  # the session has had the 40 items that the model likes best
    graph = open_graph(to_onnx(weights, PLANTED, 5, ranking=QuantisedShortlist(spare=3)))
    assert run_graph(graph, PaddedBatch(best, np.ones_like(best), np.array([40])))[0].tolist() == [[41, 42, 43, 44, 45]]


def best_of(scores: np.ndarray, candidates: int) -> tuple[list[int], list[float]]:
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:candidates]
    return [index + 1 for index in order], [float(scores[index]) for index in order]


@pytest.mark.slow
@settings(max_examples=60)
@given(items=st.integers(1, 900), candidates=st.integers(1, 6), levels=st.integers(1, 6), seed=st.integers(0, 99))
def test_equal_scores_come_in_order_of_row(items, candidates, levels, seed):
    scores = np.random.default_rng(seed).integers(-levels, levels, items).astype(np.float32)
    for ranking in (BlockwiseTopK(), QuantisedShortlist(spare=seed % 3)):
        assert planted(scores, candidates, ranking) == best_of(scores, candidates)


def test_catalogue_of_equal_scores_is_ranked_in_order_of_row():
    assert planted(np.zeros(LARGE, dtype=np.float32), 64)[0] == list(range(1, 65))


def test_padding_never_outranks_an_item_that_scores_below_it():
    scores = -np.arange(1, 1_000, dtype=np.float32)[::-1]
    assert planted(scores, 4)[0] == [999, 998, 997, 996]


@pytest.mark.parametrize("items", [16_383, 16_384, 16_385])
def test_best_item_may_be_the_last(items):
    scores = np.zeros(items, dtype=np.float32)
    scores[-1] = 1
    assert planted(scores, 64)[0] == [items, *range(1, 64)]


def test_catalogue_smaller_than_the_candidates_is_returned_whole():
    assert planted(np.arange(3, dtype=np.float32), 64) == ([3, 2, 1], [2, 1, 0])


def test_model_too_large_for_a_file_is_refused():
    table = np.broadcast_to(np.float32(0), (2**29 // CONFIG.dim, CONFIG.dim))  # 2 GB that take 4 bytes
    with pytest.raises(ExportError, match="larger than the 2 GB"):
        to_onnx(random_weights(CONFIG, 1) | {"table": table}, CONFIG)
