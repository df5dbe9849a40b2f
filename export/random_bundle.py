"""Random bundle: write a bundle with random weights and any size within a second, for tests and benchmarks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clickscore.export.bundle_files import write_bundle
from clickscore.export.bundle_options import CANDIDATES
from clickscore.export.quantisation_check import measure_fidelity
from clickscore.export.session_graph import Weights
from clickscore.export.shortlist import RANKINGS
from clickscore.export.to_onnx import to_onnx
from clickscore.model.config import REPEAT_DISTANCES, REPEAT_STEP, REPEAT_TIMES, ModelConfig
from clickscore.model.examples import Examples
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.vocabulary import POPULAR_ITEMS, Vocabulary
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS, Manifest

_FIDELITY_PREFIXES = 500  # a tenth of a second, and tests need no more


def write_random_bundle(
    folder: Path,
    items: int | Sequence[str],
    config: ModelConfig | None = None,
    *,
    candidates: int = CANDIDATES,
    precision: str = "fp32",
    seed: int = 0,
) -> Manifest:
    """Write a bundle of random weights through the exporter of trained models, without torch.

    Args:
        folder: Path of the bundle; the folder must be absent or empty.
        items: Item ids, or the number of items, which then get the ids `item-1`, `item-2` and so on.
        config: Shape of the model, `ModelConfig()` by default.
        candidates: Number of candidates per session.
        precision: Number format of the product with the whole catalogue, a name of `export.shortlist.RANKINGS`.
        seed: Seed of the weights; equal seeds give equal bundles.
    """
    config = config or ModelConfig()
    names = [f"item-{number}" for number in range(1, items + 1)] if isinstance(items, int) else items
    weights = random_weights(config, len(names), seed)
    model, fidelity = to_onnx(weights, config, candidates), None
    if precision != "fp32":
        exact = open_graph(model)
        model = to_onnx(weights, config, candidates, ranking=RANKINGS[precision])
        examples = random_examples(len(names), config.max_length, seed)
        fidelity = measure_fidelity(open_graph(model), exact, examples, every_event=False, limit=_FIDELITY_PREFIXES)
    return write_bundle(
        folder,
        model=model,
        precision=precision,
        fidelity=fidelity,
        vocabulary=Vocabulary(names),
        framework=f"numpy {np.__version__}, random weights",
        max_length=config.max_length,
        training_data="none: random weights",
        popular=names[:POPULAR_ITEMS],
    )


def random_examples(items: int, max_length: int, seed: int = 0) -> Examples:
    """Return sessions of views of random items, 100 of each length.

    Args:
        items: Number of items.
        max_length: Length of the longest sessions.
        seed: Seed of the items.
    """
    rng = np.random.default_rng(seed)
    starts = np.concatenate(([0], np.cumsum(np.repeat(np.arange(1, max_length + 1), 100))))
    zeros = np.zeros(starts[-1], dtype=np.int64)
    return Examples(rng.integers(1, items + 1, starts[-1]), zeros + 1, zeros, zeros, zeros, starts)


def random_weights(config: ModelConfig, items: int, seed: int = 0) -> Weights:
    """Return weights for `to_onnx`, of the scale of a trained model.

    Args:
        config: Shape of the model.
        items: Number of items.
        seed: Seed of the weights.
    """
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
        block_shapes = {
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
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block_shapes.items()}

    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(shape[-1] ** -0.5)
        is_scale = "norm" in name and name.endswith("weight")
        weights[name] = 1 + values if is_scale else values
    weights["repeats.table"] /= REPEAT_STEP
    weights["table"] /= np.linalg.norm(weights["table"], axis=1, keepdims=True)
    for table in ("table", "action.weight"):
        weights[table][0] = 0
    return weights
