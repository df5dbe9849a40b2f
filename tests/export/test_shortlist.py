import numpy as np
import onnx
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

from clickscore.export.graph_builder import FUNCTIONS, FUNCTIONS_VERSION, IR_VERSION, OPSET
from clickscore.export.random_bundle import random_weights
from clickscore.export.ranking import ExactTopK
from clickscore.export.shortlist import CHUNK, QUERY_STEPS, QuantisedShortlist, quantise_items
from clickscore.export.to_onnx import to_onnx
from clickscore.model.config import ModelConfig
from clickscore.model.onnx_runtime import native_library, open_graph, run_graph
from clickscore.model.training_batches import PaddedBatch

pytestmark = pytest.mark.train

ITEMS = 3_000
NATIVE = [
    pytest.param(True, marks=pytest.mark.skipif(not native_library(), reason="no compiler at installation")),
    False,
]


def config_of(dim: int) -> ModelConfig:
    return ModelConfig(dim=dim, layers=1, ffn=32, max_length=8)


def sessions(count: int, seed: int = 0) -> PaddedBatch:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, count)
    is_event = np.arange(8) < lengths[:, None]
    return PaddedBatch(rng.integers(1, ITEMS + 1, (count, 8)) * is_event, is_event.astype(np.int64), lengths)


def same_bits(model: bytes, exact: bytes, batch: PaddedBatch, *, native: bool) -> bool:
    expected = run_graph(open_graph(exact), batch)
    outputs = run_graph(open_graph(model, native=native), batch)
    return all(ours.tobytes() == theirs.tobytes() for ours, theirs in zip(outputs, expected, strict=True))


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("dim", [16, 64, 72, 192])
def test_best_items_have_the_bits_of_the_exact_ranking(dim, native):
    weights = random_weights(config_of(dim), ITEMS)
    exact = to_onnx(weights, config_of(dim), 20, ranking=ExactTopK())
    model = to_onnx(weights, config_of(dim), 20, ranking=QuantisedShortlist())
    for count in (1, 3, 16):
        assert same_bits(model, exact, sessions(count), native=native)


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("repeated", [-1e3, 1e3])
def test_sessions_without_a_proof_are_scored_again(repeated, native):
    """A list of as many items as candidates proves nothing, and repeats move the session's items to either end."""
    weights = random_weights(config_of(32), ITEMS) | {"repeats.readiness.bias": np.full(1, repeated, dtype=np.float32)}
    exact = to_onnx(weights, config_of(32), 20, ranking=ExactTopK())
    model = to_onnx(weights, config_of(32), 20, ranking=QuantisedShortlist(spare=-80))
    assert same_bits(model, exact, sessions(16), native=native)


@pytest.mark.parametrize("native", NATIVE)
def test_items_with_one_vector_come_in_order_of_row(native):
    weights = dict(random_weights(config_of(32), ITEMS))
    weights["table"] = weights["table"][np.arange(ITEMS + 1) % 7 + 1]
    weights["table"][0] = 0
    exact = to_onnx(weights, config_of(32), 20, ranking=ExactTopK())
    model = to_onnx(weights, config_of(32), 20, ranking=QuantisedShortlist())
    assert same_bits(model, exact, sessions(16), native=native)


@pytest.mark.parametrize("native", NATIVE)
def test_query_of_zeros_gets_the_exact_ranking(native):
    weights = dict(random_weights(config_of(32), ITEMS))
    weights["table"] = np.zeros_like(weights["table"])
    weights["readout.own.weight"] = np.zeros_like(weights["readout.own.weight"])
    exact = to_onnx(weights, config_of(32), 20, ranking=ExactTopK())
    model = to_onnx(weights, config_of(32), 20, ranking=QuantisedShortlist())
    assert same_bits(model, exact, sessions(4), native=native)


@pytest.mark.parametrize("dim", [10, 64, 130])
def test_sums_of_a_chunk_fit_into_16_bits(dim):
    """Queries along an item are the worst case; the offsets cancel the zero of the steps."""
    vectors = np.random.default_rng(0).standard_normal((ITEMS, dim)).astype(np.float32)
    vectors[5] = 1
    items = quantise_items(vectors, 16)
    width, chunk = items.steps.shape[1], items.chunk
    assert (width % chunk, chunk % 4, chunk <= CHUNK) == (0, 0, True)
    queries = np.zeros((50, width))
    queries[:, :dim] = vectors[:50]
    longest = np.linalg.norm(queries.reshape(50, -1, chunk), axis=2).max(axis=1)
    scale = np.minimum(QUERY_STEPS / np.abs(queries).max(axis=1), items.longest_chunk / longest)
    steps = np.round(queries * scale[:, None])
    for start in range(0, width, chunk):
        part = slice(start, start + chunk)
        assert np.abs(steps[:, part] @ items.steps[:, part].T.astype(np.float64)).max() <= np.iinfo(np.int16).max
    blocks, offsets = items.in_blocks().astype(np.int64), items.offsets().astype(np.int64)
    of_first = (blocks[0, :, 0].reshape(-1, chunk // 4, 2, 2) * (QUERY_STEPS + 1)).sum(axis=(1, 3))  # (chunks, 2)
    assert ((of_first + offsets[0, :, 0]) % 2**16 == 0).all()


def test_quantised_items_state_their_largest_error():
    vectors = np.random.default_rng(0).standard_normal((100, 12)).astype(np.float32)
    items = quantise_items(vectors, 32)
    scaled = vectors.astype(np.float64) * items.scale
    assert (items.steps.shape, np.abs(items.steps).max()) == ((128, 12), 127)
    assert items.largest_error == pytest.approx(np.linalg.norm(scaled - items.steps[:100], axis=1).max())
    assert items.longest == pytest.approx(np.linalg.norm(scaled, axis=1).max())


def test_small_catalogue_has_no_shortlist():
    model = to_onnx(random_weights(config_of(16), 100), config_of(16), 20, ranking=QuantisedShortlist())
    assert not onnx.load_model_from_string(model).functions


def with_other_input(name: str, value: np.ndarray) -> bytes:
    """Return a graph whose call of the operator reads a value in place of an input."""
    model = onnx.load_model_from_string(
        to_onnx(random_weights(config_of(16), ITEMS), config_of(16), 20, ranking=QuantisedShortlist())
    )
    (call,) = (node for node in model.graph.node if node.op_type == "BestItems")
    (function,) = model.functions
    model.graph.initializer.append(onnx.numpy_helper.from_array(value, "other"))
    call.input[list(function.input).index(name)] = "other"
    return model.SerializeToString()


def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype=dtype)


@pytest.mark.skipif(not native_library(), reason="no compiler at installation")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("table", zeros(8, 16)),
        ("table", zeros(ITEMS + 1, 16, 1)),
        ("table_in_8_bits", zeros(1, 4, 16, 4, dtype=np.int8)),
        ("table_in_8_bits", zeros(0, dtype=np.int8)),
        ("offsets", zeros(3, dtype=np.int16)),
        ("counts", zeros(0, dtype=np.int64)),
        ("counts", zeros(2, dtype=np.int64)),
        ("counts", zeros(3, 1, dtype=np.int64)),
        ("counts", np.array([20, 10, ITEMS + 1])),
        ("measures", zeros(0)),
        ("measures", zeros(4, 1)),
        ("query", zeros(16)),
        ("query", zeros(1, 16, 0)),
        ("query", zeros(1, 12)),
        ("own_rows", zeros(3, dtype=np.int64)),
        ("own_rows", zeros(1, 8, 0, dtype=np.int64)),
        ("own_bonuses", zeros(1, 8, 0)),
    ],
)
def test_native_operator_refuses_inputs_that_do_not_fit_together(name, value):
    with pytest.raises(Fail, match="do not fit together"):
        run_graph(open_graph(with_other_input(name, value)), sessions(1))


def operator_alone(inputs: dict[str, np.ndarray]) -> bytes:
    """Return a graph of nothing but the native operator on constants."""
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in inputs.items()]
    call = onnx.helper.make_node("BestItems", list(inputs), ["scores", "rows"], domain=FUNCTIONS)
    outputs = [
        onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, None),
        onnx.helper.make_tensor_value_info("rows", onnx.TensorProto.INT64, None),
    ]
    graph = onnx.helper.make_graph([call], "alone", [], outputs, constants)
    sets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(FUNCTIONS, FUNCTIONS_VERSION)]
    return onnx.helper.make_model(graph, opset_imports=sets, ir_version=IR_VERSION).SerializeToString()


def tables(sessions: int, dim: int, width: int) -> dict[str, np.ndarray]:
    """Return inputs of the operator for 15 items, with the smallest possible offsets."""
    return {
        "query": zeros(sessions, dim),
        "own_rows": zeros(sessions, 0, dtype=np.int64),
        "own_bonuses": zeros(sessions, 0),
        "table": zeros(16, dim),
        "table_in_8_bits": zeros(1, width // 4, 16, 4, dtype=np.int8),
        "offsets": np.full((1, -(-width // CHUNK), 16, 2), np.iinfo(np.int16).min, dtype=np.int16),
        "mask": zeros(1, 16, dtype=np.int32),
        "measures": np.ones(4, dtype=np.float32),
        "counts": np.array([2, 4, 16]),
    }


@pytest.mark.skipif(not native_library(), reason="no compiler at installation")
def test_native_operator_refuses_so_many_dimensions_that_scores_leave_32_bits():
    with pytest.raises(Fail, match="do not fit together"):
        open_graph(operator_alone(tables(1, 16, width=2**21))).run(None, {})


@pytest.mark.skipif(not native_library(), reason="no compiler at installation")
def test_native_operator_reports_outputs_that_memory_cannot_hold():
    with pytest.raises((Fail, RuntimeException), match=r"allocate|bad_alloc|memory"):
        open_graph(operator_alone(tables(2**42, 0, width=0))).run(None, {})
