"""Random bundle: a model that has learned nothing, of any size, in a moment: for tests and benchmarks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clickscore.export.bundle_files import write_bundle
from clickscore.export.bundle_options import CANDIDATES
from clickscore.export.quantisation_check import measure_fidelity
from clickscore.export.ranking import RANKINGS
from clickscore.export.session_graph import Weights
from clickscore.export.to_onnx import to_onnx
from clickscore.model.config import REPEAT_DISTANCES, REPEAT_STEP, REPEAT_TIMES, ModelConfig
from clickscore.model.examples import Examples
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.vocabulary import POPULAR, Vocabulary
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS, Manifest

_ASKED = 500  # beginnings that a quicker graph's fidelity is measured on


def write_random_bundle(
    folder: Path,
    items: int | Sequence[str],
    config: ModelConfig | None = None,
    *,
    candidates: int = CANDIDATES,
    precision: str = "fp32",
    seed: int = 0,
) -> Manifest:
    """Write a bundle of random weights through the same exporter as a trained one, without torch.

    Args:
        folder: Where it goes; there must be nothing yet.
        items: Ids, or how many, which are then called `item-1`, `item-2` and so on.
        config: The model's shape; the default one if none is given.
        candidates: Items that the graph returns a session.
        precision: A name of `export.ranking.RANKINGS`.
        seed: Of the weights: the same one gives the same bundle.
    """
    config = config or ModelConfig()
    names = [f"item-{number}" for number in range(1, items + 1)] if isinstance(items, int) else items
    weights = random_weights(config, len(names), seed)
    model, near = to_onnx(weights, config, candidates), None
    if precision != "fp32":
        exact = open_graph(model)
        model = to_onnx(weights, config, candidates, ranking=RANKINGS[precision])
        of = random_examples(len(names), config.max_length, seed)
        near = measure_fidelity(open_graph(model), exact, of, every_event=False, limit=_ASKED)
    return write_bundle(
        folder,
        model=model,
        precision=precision,
        fidelity=near,
        vocabulary=Vocabulary(names),
        framework=f"numpy {np.__version__}, random weights",
        max_length=config.max_length,
        training_data="none: random weights",
        popular=names[:POPULAR],
    )


def random_examples(items: int, longest: int, seed: int = 0) -> Examples:
    """Return sessions of views of random items, 100 of each length."""
    rng = np.random.default_rng(seed)
    starts = np.concatenate(([0], np.cumsum(np.repeat(np.arange(1, longest + 1), 100))))
    nothing = np.zeros(starts[-1], dtype=np.int64)
    return Examples(rng.integers(1, items + 1, starts[-1]), nothing + 1, nothing, nothing, nothing, starts)


def random_weights(config: ModelConfig, items: int, seed: int = 0) -> Weights:
    """Return weights of the scale that a trained model has: what `to_onnx` takes."""
    dim, ffn = config.dim, config.ffn
    shapes: dict[str, tuple[int, ...]] = {
        "table": (items + 1, dim),
        "action.weight": (len(ACTIONS), dim),
        "readout.query.weight": (dim, dim),
        "readout.query.bias": (dim,),
        "readout.key.weight": (dim, dim),
        "readout.key.bias": (dim,),
        "readout.own.weight": (dim, dim),
        "readout.distance": (config.max_length, 1),
        "repeats.table": (REPEAT_DISTANCES, REPEAT_TIMES),
        "repeats.readiness.weight": (1, dim),
        "repeats.readiness.bias": (1,),
        "next_action.weight": (len(NEXT_ACTIONS), dim),
        "next_action.bias": (len(NEXT_ACTIONS),),
        "purchase.weight": (1, dim),
        "purchase.bias": (1,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
    }
    for layer in range(config.layers):
        of_block = {
            "attention.distance": (config.max_length, config.heads),
            "attention.query.weight": (dim, dim),
            "attention.query.bias": (dim,),
            "attention.key_value.weight": (2 * dim, dim),
            "attention.key_value.bias": (2 * dim,),
            "attention.output.weight": (dim, dim),
            "attention.output.bias": (dim,),
            "ffn_in.weight": (ffn, dim),
            "ffn_in.bias": (ffn,),
            "ffn_out.weight": (dim, ffn),
            "ffn_out.bias": (dim,),
            "norm_attention.weight": (dim,),
            "norm_attention.bias": (dim,),
            "norm_ffn.weight": (dim,),
            "norm_ffn.bias": (dim,),
        }
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in of_block.items()}

    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        drawn = rng.standard_normal(shape, dtype=np.float32) * np.float32(shape[-1] ** -0.5)
        is_scale = "norm" in name and name.endswith("weight")
        weights[name] = 1 + drawn if is_scale else drawn
    weights["repeats.table"] /= REPEAT_STEP
    weights["table"] /= np.linalg.norm(weights["table"], axis=1, keepdims=True)
    for table in ("table", "action.weight"):
        weights[table][0] = 0
    return weights
