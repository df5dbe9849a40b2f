"""Ship: from a checkpoint to a bundle, through the parity check."""

# pyright: standard
# torch leaves what a module returns untyped.

import functools
import shutil
from pathlib import Path

import msgspec
import numpy as np
import torch

from clickscore.export.bundle_files import require_empty, write_bundle
from clickscore.export.bundle_options import CANDIDATES
from clickscore.export.parity import Parity, compare
from clickscore.export.quantisation_check import measure_fidelity
from clickscore.export.ranking import RANKINGS
from clickscore.export.session_graph import Weights
from clickscore.export.stack_graph import add_stack
from clickscore.export.to_onnx import to_onnx
from clickscore.model.calibration import Calibration, blend_logits, fold_in
from clickscore.model.checkpoint import load_checkpoint
from clickscore.model.errors import TrainingError
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.prefix_features import EventBatch, compute_features
from clickscore.model.stack import Stack
from clickscore.model.transformer import SessionTransformer
from clickscore.schemas.manifest import Manifest


def export_bundle(
    checkpoint: Path, folder: Path, candidates: int = CANDIDATES, *, precision: str = "fp32", trainable: bool = False
) -> tuple[Parity, Manifest]:
    """Write the bundle of a checkpoint, and return how its graph compares with the model, and its manifest.

    Args:
        checkpoint: Folder that `clickscore train` wrote.
        folder: Where the bundle goes; there must be nothing yet.
        candidates: Items that the graph returns a session; all where the catalogue has fewer.
        precision: A name of `export.ranking.RANKINGS`: what the products with the whole catalogue are made in.
        trainable: Put the checkpoint into the bundle, so that it can be topped up.

    Raises:
        TrainingError: There is no trained model, something is in the way, or the graph does not agree with the model:
            then nothing is written.
    """
    require_empty(folder)
    trained = load_checkpoint(checkpoint)
    config, calibration, stack = trained.record.config.model, trained.record.calibration, trained.stack
    table, beside, expected = trained.table(), None, None
    if calibration:
        fold_in(trained.model, calibration)
    if calibration and stack:
        beside = functools.partial(add_stack, stack=stack, calibration=calibration)
        expected = functools.partial(_beside, stack=stack, calibration=calibration)
    weights = extract_weights(trained.model, table)
    graph = to_onnx(weights, config, candidates, beside)
    exact = open_graph(graph)
    parity = compare(exact, trained.model, table, trained.held_out, stack_logits=expected)
    if parity.problems:
        message = f"the graph does not agree with the model, so no bundle was written: {'; '.join(parity.problems)}"
        raise TrainingError(message)
    near = None
    if precision != "fp32":
        graph = to_onnx(weights, config, candidates, beside, RANKINGS[precision])
        near = measure_fidelity(open_graph(graph), exact, trained.held_out, every_event=beside is not None)
    manifest = write_bundle(
        folder,
        model=graph,
        vocabulary=trained.vocabulary,
        framework=f"torch {torch.__version__.partition('+')[0]}",
        max_length=config.max_length,
        training_data=trained.record.report.summary(),
        trained_until=trained.record.report.last_closed_at,
        metrics=trained.record.held_out_metrics,
        every_event=beside is not None,
        precision=precision,
        fidelity=near,
        calibration=calibration.report if calibration else None,
        popular=trained.record.popular_items,
        lineage=trained.record.lineage,
    )
    report = msgspec.json.format(msgspec.json.encode(trained.record.report), indent=2) + b"\n"
    (folder / "data-report.json").write_bytes(report)
    if trainable:
        shutil.copytree(checkpoint, folder / "checkpoint")
    return parity, manifest


def _beside(told: EventBatch, stack: Stack, calibration: Calibration) -> np.ndarray:
    """Return what a stack adds to the heads' logits: (B, 6)."""
    of_stack = stack.logits(compute_features(told, stack.item_features))
    return blend_logits([np.broadcast_to(calibration.prior_logits, of_stack.shape), of_stack], calibration)


def extract_weights(model: SessionTransformer, table: torch.Tensor) -> Weights:
    """Return a model's weights as arrays, with the finished item table in place of what it is made of."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    return {name: array for name, array in arrays.items() if name not in {"item", "gate"}} | {"table": table.numpy()}
