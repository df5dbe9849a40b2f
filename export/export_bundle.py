"""Export bundle: turn a checkpoint into a bundle, and refuse a graph that does not agree with its model."""

# pyright: standard
# torch does not type the result of a module.

import functools
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch

from clickscore.export.bundle_files import require_empty, write_bundle
from clickscore.export.bundle_options import CANDIDATES
from clickscore.export.errors import ExportError
from clickscore.export.parity import Parity, compare
from clickscore.export.quantisation_check import measure_fidelity
from clickscore.export.session_graph import Weights
from clickscore.export.shortlist import RANKINGS
from clickscore.export.stack_graph import add_stack
from clickscore.export.to_onnx import to_onnx
from clickscore.export.trainings import describe_progress, load_trainings
from clickscore.model.calibration import Calibration, blend_logits, fold_in
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.prefix_features import EventBatch, compute_features
from clickscore.model.session_neighbours import SessionIndex
from clickscore.model.stack import Stack
from clickscore.model.transformer import SessionTransformer
from clickscore.schemas.manifest import Manifest, SessionNeighboursReport


def export_bundle(
    checkpoint: Path,
    folder: Path,
    candidates: int = CANDIDATES,
    *,
    precision: str = "fp32",
    mean_with: Sequence[Path] = (),
    trainable: bool = False,
    unfinished: bool = False,
    session_neighbours: bool = True,
) -> tuple[Parity, Manifest]:
    """Write the bundle of a checkpoint and return the parity of graph and model, and the manifest.

    Args:
        checkpoint: Folder that `clickscore train` wrote.
        folder: Path of the bundle; the folder must be absent or empty.
        candidates: Number of candidates per session; all items where the catalogue has fewer.
        precision: Number format of the product with the whole catalogue, a name of `export.shortlist.RANKINGS`.
        mean_with: Checkpoints of the same sessions and shape, trained with other seeds. The scores are the mean over
            all checkpoints; heads, metrics and session neighbours are of `checkpoint`.
        trainable: Put the checkpoint into the bundle, so that the model can be fine-tuned later.
        unfinished: Export a training that has not ended, and say so in the manifest.
        session_neighbours: Put the index of session neighbours into the graph, where the model has one.

    Raises:
        ExportError: The training has not ended and `unfinished` is not set, the checkpoints have no mean, the folder is
            not empty, or the graph does not agree with the model. Nothing is written then.
        TrainingError: The checkpoint has no trained model.
    """
    require_empty(folder)
    if mean_with and trainable:
        message = "a mean of checkpoints cannot be fine-tuned: leave out --trainable, fine-tune each and export again"
        raise ExportError(message)
    trainings = load_trainings([checkpoint, *mean_with], unfinished=unfinished)
    trained = trainings[0]
    config, calibration, stack = trained.record.config.model, trained.record.calibration, trained.stack
    table, stack_nodes, stack_logits = trained.table(), None, None
    if calibration:
        fold_in(trained.model, calibration)
    if calibration and stack:
        stack_nodes = functools.partial(add_stack, stack=stack, calibration=calibration)
        stack_logits = functools.partial(_stack_logits, stack=stack, calibration=calibration)
    neighbours = trained.session_neighbours() if session_neighbours else None
    weights = extract_weights(trained.model, table)
    models = [(training.model, training.table()) for training in trainings[1:]]
    write_graph = functools.partial(
        to_onnx,
        weights,
        config,
        candidates,
        stack_nodes,
        neighbours=neighbours,
        mean_with=[extract_weights(*model) for model in models],
    )
    graph = write_graph()
    exact = open_graph(graph)
    parity = compare(
        exact,
        trained.model,
        table,
        trained.held_out,
        stack_logits=stack_logits,
        neighbours=neighbours,
        mean_with=models,
    )
    if parity.problems:
        message = f"the graph does not agree with the model, so no bundle was written: {'; '.join(parity.problems)}"
        raise ExportError(message)
    fidelity = None
    if precision != "fp32":
        graph = write_graph(ranking=RANKINGS[precision])
        fidelity = measure_fidelity(open_graph(graph), exact, trained.held_out, every_event=stack_nodes is not None)
    manifest = write_bundle(
        folder,
        model=graph,
        vocabulary=trained.vocabulary,
        framework=f"torch {torch.__version__.partition('+')[0]}",
        max_length=config.max_length,
        training_data=trained.record.report.summary(),
        trained_until=trained.record.report.last_closed_at,
        metrics=trained.record.held_out_metrics,
        every_event=stack_nodes is not None,
        precision=precision,
        fidelity=fidelity,
        calibration=calibration.report if calibration else None,
        popular=trained.record.popular_items,
        lineage=trained.record.lineage,
        unfinished=next(filter(None, (describe_progress(training.record) for training in trainings)), ""),
        session_neighbours=neighbours and _describe_neighbours(neighbours),
        trainings=len(trainings),
        data_report=msgspec.json.format(msgspec.json.encode(trained.record.report), indent=2) + b"\n",
        checkpoint=checkpoint if trainable else None,
    )
    return parity, manifest


def _describe_neighbours(neighbours: SessionIndex) -> SessionNeighboursReport:
    """Return the description of an index for the manifest."""
    arrays = (neighbours.items, neighbours.sessions, neighbours.ends, neighbours.counts)
    return SessionNeighboursReport(
        sessions=len(neighbours.items) - 1,
        bytes=sum(array.nbytes for array in arrays),
        factor=neighbours.factor,
    )


def _stack_logits(events: EventBatch, stack: Stack, calibration: Calibration) -> np.ndarray:
    """Return a stack's share of the logits, as `add_stack` computes it in the graph: (B, 6).

    Args:
        events: Prefixes with all their events.
        stack: Trees and regression.
        calibration: Scales of the blend and prior logits.
    """
    logits = stack.logits(compute_features(events, stack.item_features))
    return blend_logits([np.broadcast_to(calibration.prior_logits, logits.shape), logits], calibration)


def extract_weights(model: SessionTransformer, table: torch.Tensor) -> Weights:
    """Return a model's weights as arrays, with the finished item table in place of its parts `item` and `gate`."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    return {name: array for name, array in arrays.items() if name not in {"item", "gate"}} | {"table": table.numpy()}
