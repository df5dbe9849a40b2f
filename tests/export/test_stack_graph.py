import functools

import numpy as np
import onnx
import pytest

from clickscore.export.export_bundle import _stack_logits, extract_weights
from clickscore.export.graph_builder import GraphBuilder
from clickscore.export.parity import compare
from clickscore.export.prefix_features_graph import PrefixFeaturesGraph
from clickscore.export.stack_graph import _round_down, add_stack
from clickscore.export.to_onnx import to_onnx
from clickscore.model.calibration import Affine, Calibration
from clickscore.model.config import ModelConfig
from clickscore.model.onnx_runtime import explain_scores, open_graph, run_graph
from clickscore.model.prefix_features import (
    FEATURE_NAMES,
    EventBatch,
    FullSessions,
    ItemAttributes,
    ItemFeatures,
    compute_features,
    make_item_features,
)
from clickscore.model.stack import Stack, fit_stack
from clickscore.model.training_batches import PaddedBatch
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import CalibrationReport
from tests.export.test_parity import sessions
from tests.model.networks import network

pytestmark = pytest.mark.train

CONFIG = ModelConfig(dim=16, ffn=32, max_length=20)
ITEMS = 40
CALIBRATION = Calibration(
    next_action=Affine(scales=(0.5, 0.7), bias=(0.1, 0.2, 0.0, -0.1, 0.3)),
    purchase=Affine(scales=(0.6, 0.5), bias=(-0.2,)),
    prior_logits=(0.1, -0.3, 0.2, -0.5, 0.4, -0.6),
    report=CalibrationReport(method="", events=0, before={}, after={}),
)


def random_sessions(count: int = 300, seed: int = 0) -> FullSessions:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, count)
    events = int(lengths.sum())
    starts = np.concatenate(([0], lengths.cumsum()))
    ages = np.concatenate([rng.exponential(40_000, length).cumsum().astype(np.int64) for length in lengths])
    return FullSessions(
        rng.integers(-3, ITEMS + 1, events),
        rng.integers(1, len(ACTIONS), events),
        ages,
        rng.integers(0, 5, events),
        rng.integers(0, 2, events),
        starts,
    )


def beginnings(count: int = 64, width: int = 12, seed: int = 1) -> EventBatch:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, width + 1, count)
    lengths[:2] = (1, width)
    real = np.arange(width) < lengths[:, None]
    items = rng.integers(-3, ITEMS // 2, (count, width)) * real
    items[3] = np.minimum(items[3], 0)  # knows nothing
    ages = rng.integers(0, 10**6, (count, width)).cumsum(axis=1) * real
    return EventBatch(items, rng.integers(1, len(ACTIONS), (count, width)) * real, ages, lengths)


def part(event_batch: EventBatch, which: slice) -> EventBatch:
    return EventBatch(*(values[which] for values in event_batch))


FACTS = ItemAttributes(
    np.array([np.nan, *np.linspace(1, 99, ITEMS)], dtype=np.float32), np.arange(ITEMS + 1, dtype=np.int64) % 9
)


@pytest.fixture(scope="module")
def stack() -> Stack:
    full_sessions = random_sessions()
    return fit_stack([full_sessions], np.arange(len(full_sessions.items)), FACTS, 20, 0)


@pytest.fixture(scope="module")
def model_and_table():
    return network(CONFIG, ITEMS)


@pytest.fixture(scope="module")
def model(stack, model_and_table) -> bytes:
    stack_nodes = functools.partial(add_stack, stack=stack, calibration=CALIBRATION)
    return to_onnx(extract_weights(*model_and_table), CONFIG, 20, stack_nodes)


@pytest.fixture(scope="module")
def graph(model):
    return open_graph(model)


def features_graph(by: ItemFeatures) -> bytes:
    """Return a graph that gives the features alone, under the name of an output."""
    graph = GraphBuilder()
    columns = PrefixFeaturesGraph(graph, by).columns()
    opened = onnx.load_model_from_string(graph.serialize(1))
    del opened.graph.output[:]
    opened.graph.output.append(onnx.helper.make_empty_tensor_value_info(columns))
    return opened.SerializeToString()


def test_features_in_the_graph_are_those_of_numpy_bit_for_bit():
    by = make_item_features(random_sessions(), FACTS)
    event_batch = beginnings()
    session = open_graph(features_graph(by))
    (result,) = session.run(None, {node.name: getattr(event_batch, node.name) for node in session.get_inputs()})
    expected = compute_features(event_batch, by)
    assert result.shape == expected.shape == (64, len(FEATURE_NAMES))
    different = [
        name
        for name, column, expected_column in zip(FEATURE_NAMES, result.T, expected.T, strict=True)
        if (column != expected_column).any()
    ]
    assert different == []


def test_features_of_one_event_are_those_of_numpy():
    by, event_batch = make_item_features(random_sessions(), FACTS), beginnings(width=1)
    session = open_graph(features_graph(by))
    (result,) = session.run(None, {node.name: getattr(event_batch, node.name) for node in session.get_inputs()})
    assert (result == compute_features(event_batch, by)).all()


def test_features_are_told_apart_in_that_test():
    spread = np.ptp(compute_features(beginnings(count=4_000), make_item_features(random_sessions(), FACTS)), axis=0)
    assert [name for name, width in zip(FEATURE_NAMES, spread, strict=True) if width == 0] == []


def test_graph_with_a_stack_agrees_with_its_parts(model, stack, model_and_table):
    expected = functools.partial(_stack_logits, stack=stack, calibration=CALIBRATION)
    result = compare(open_graph(model), *model_and_table, sessions(ITEMS), stack_logits=expected)
    assert result.problems == []
    assert result.probability_difference < 1e-5
    assert result.reason_difference < 1e-5
    assert result.same_ranking > 0.999


def test_graph_with_another_blend_does_not_agree(model, stack, model_and_table):
    other_blend = Calibration(
        next_action=CALIBRATION.next_action,
        purchase=Affine(scales=(0.6, 0.6), bias=(-0.2,)),
        report=CALIBRATION.report,
    )
    expected = functools.partial(_stack_logits, stack=stack, calibration=other_blend)
    result = compare(open_graph(model), *model_and_table, sessions(ITEMS), stack_logits=expected)
    assert "probabilities differ" in " ".join(result.problems)


def test_graph_is_valid_onnx(model):
    onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)


def test_ranking_is_that_of_the_known_events_alone(graph, model_and_table):
    transformer_graph = open_graph(to_onnx(extract_weights(*model_and_table), CONFIG, 20))
    event_batch = beginnings()
    rows, scores, _, _ = run_graph(graph, event_batch)
    for row in range(64):
        is_known = event_batch.items[row] > 0
        if is_known.any():
            batch = PaddedBatch(
                event_batch.items[row][is_known][None],
                event_batch.actions[row][is_known][None],
                np.array([is_known.sum()]),
            )
            expected_rows, expected, _, _ = run_graph(transformer_graph, batch)
            assert scores[row] == pytest.approx(expected[0], abs=1e-4)
            assert set(rows[row]) == set(expected_rows[0])


def test_session_of_unknown_items_has_probabilities(graph, stack):
    event_batch = part(beginnings(), slice(3, 4))
    assert not (event_batch.items > 0).any()
    _, scores, next_action, purchase = run_graph(graph, event_batch)
    logits = _stack_logits(event_batch, stack, CALIBRATION)
    assert purchase == pytest.approx(1 / (1 + np.exp(-logits[:, 5])), abs=1e-6)
    assert next_action.sum() == pytest.approx(1)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("width", [1, 3, 4, 10, 20])
def test_answer_has_the_same_bits_in_any_batch(graph, width):
    event_batch = beginnings(width=width)
    together = run_graph(graph, event_batch)
    for size in (1, 2, 7, 33):
        for start in range(0, 65 - size, size):
            which = slice(start, start + size)
            for alone_output, expected_output in zip(together, run_graph(graph, part(event_batch, which)), strict=True):
                assert alone_output[which].tobytes() == expected_output.tobytes()


def test_events_that_the_transformer_does_not_read_bring_nothing(graph):
    event_batch = beginnings()
    reasons = explain_scores(graph, event_batch, 20)
    unread = np.broadcast_to(event_batch.items[:, None] <= 0, reasons.shape)
    assert (reasons[unread] == 0).all()
    assert (reasons[~unread] != 0).any()


def test_times_change_what_is_said(graph):
    event_batch = beginnings()
    slower = event_batch._replace(ages=event_batch.ages * 50)
    assert (run_graph(graph, event_batch)[3] != run_graph(graph, slower)[3]).any()


def test_threshold_is_rounded_to_the_same_side():
    for threshold in (0.1, 0.3, -0.1, 1e-35, 2.5, -7.3):
        rounded = _round_down(threshold)
        assert rounded <= threshold
        assert float(np.nextafter(np.float32(rounded), np.float32(np.inf))) > threshold
