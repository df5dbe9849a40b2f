"""Ship: from a checkpoint to a bundle, through the parity check."""

# pyright: standard
# torch leaves what a module returns untyped.

from pathlib import Path

import torch

from export.bundle import require_empty, write_bundle
from export.parity import Parity, compare
from export.to_onnx import CANDIDATES, Weights, to_onnx
from model.checkpoint import load_checkpoint
from model.errors import TrainingError
from model.evaluate import evaluate_graph, open_graph
from model.transformer import SessionTransformer
from schemas.manifest import Manifest


def ship(checkpoint: Path, folder: Path, candidates: int = CANDIDATES) -> tuple[Parity, Manifest]:
    """Write the bundle of a checkpoint, and return how its graph compares with the model, and its manifest.

    Args:
        checkpoint: Folder that `clickscore train` wrote.
        folder: Where the bundle goes; there must be nothing yet.
        candidates: Items that the graph returns a session; all where the catalogue has fewer.

    Raises:
        TrainingError: There is no trained model, something is in the way, or the graph does not agree with the model:
            then nothing is written.
    """
    require_empty(folder)
    trained = load_checkpoint(checkpoint)
    config = trained.card.config.model
    graph = to_onnx(weights_of(trained.model), config, candidates)
    running = open_graph(graph)
    parity = compare(running, trained.model, trained.held_out)
    if parity.problems:
        message = f"the graph does not agree with the model, so no bundle was written: {'; '.join(parity.problems)}"
        raise TrainingError(message)
    manifest = write_bundle(
        folder,
        model=graph,
        vocabulary=trained.vocabulary,
        framework=f"torch {torch.__version__.partition('+')[0]}",
        max_length=config.max_length,
        training_data=trained.card.report.summary(),
        metrics=evaluate_graph(running, trained.held_out),
        popular=trained.card.popular,
    )
    return parity, manifest


def weights_of(model: SessionTransformer) -> Weights:
    """Return a model's weights as arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
