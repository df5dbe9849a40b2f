"""Encode items: give items that the model never saw a vector from their texts (cold start), and export the bundle.

The map from text and price to item vectors is `model.cold_start`.
"""

# pyright: standard
# torch does not type the result of a module.

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from clickscore.export.bundle_files import read_export_options, require_empty
from clickscore.export.errors import ExportError
from clickscore.export.export_bundle import export_bundle
from clickscore.model.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_pairs,
    load_texts,
    save_model,
    save_pairs,
    save_sessions,
    save_stack,
    save_texts,
    start_checkpoint,
)
from clickscore.model.cold_start import MIN_ANCHORS, ParamChoice, choose_params, describe_items, fit_kernel_map
from clickscore.model.item_attributes import item_text, read_items
from clickscore.model.neighbours import Neighbours, PairCounts
from clickscore.model.open_bundle import read_manifest
from clickscore.model.session_arrays import Longs
from clickscore.model.text_encoder import TextEncoder
from clickscore.model.text_vectors import TextVectors, encode_texts
from clickscore.model.vocabulary import fits_on_line
from clickscore.schemas.manifest import Manifest

ReportProgress = Callable[[str, int, int], None]
"""Receives the name of the running step, the finished part and the total."""


class EncodedItems(NamedTuple):
    """Result of `encode_items`."""

    new: int
    """Number of items that got a vector."""
    without_text: int
    """Catalogue items that stay unknown to the model, because they have no text."""
    anchors: int
    """Known items that the map was fitted on."""
    choice: ParamChoice
    manifest: Manifest
    """Manifest of the new bundle."""
    is_recalibrated: bool
    """Whether the given bundle had a corrected level; the new bundle has no corrected level."""


def encode_items(
    bundle: Path, items: Path, encoder: TextEncoder, out: Path, report_progress: ReportProgress
) -> EncodedItems:
    """Write a bundle of the same model with the catalogue's new items.

    The map is fitted on anchors: known items that have a text and co-occurrences in training sessions. New items get
    rows after the model's own rows. They have no neighbours until the model is fine-tuned on sessions with them.
    Everything else of the model stays the same.

    Args:
        bundle: Path of a bundle that was exported as trainable, or of a checkpoint.
        items: Catalogue of known and new items, JSON lines.
        encoder: Language model that turns texts into vectors.
        out: Path of the new bundle; the folder must be absent or empty.
        report_progress: Shows the progress of encoding and of fitting.

    Raises:
        ExportError: The model is absent or unfinished, no item is new, there are too few anchors, or the folder is
            not empty.
    """
    require_empty(out)
    checkpoint, version = find_checkpoint(bundle)
    trained = load_checkpoint(checkpoint)
    if not trained.record.finished:
        message = f"the training of {bundle} is not finished: repeat the same `clickscore train` to resume it"
        raise ExportError(message)
    catalogue = {item.item_id: item for item in read_items(items)}
    texts = {item: item_text(catalogue[item]) for item in catalogue}
    unknown = [item for item in texts if not trained.vocabulary.row(item) and fits_on_line(item)]
    new = [item for item in unknown if texts[item]]
    if not new:
        reason = f"{len(unknown):,} are new but have neither title, category nor brand" if unknown else "none is new"
        message = f"nothing to encode in {items}: of {len(texts):,} items {reason}"
        raise ExportError(message)
    anchors = np.flatnonzero(trained.neighbours.shares.sum(axis=1))  # rows of items with co-occurrences
    has_text = np.array([bool(texts.get(trained.vocabulary.item(row))) for row in anchors.tolist()], dtype=bool)
    anchors = anchors[has_text]
    if len(anchors) < MIN_ANCHORS:
        message = (
            f"{items} has texts of {len(anchors):,} items that the model knows from sessions; at least {MIN_ANCHORS} "
            "are needed. Pass the whole catalogue, not only its new items"
        )
        raise ExportError(message)
    item_ids = [*map(trained.vocabulary.item, anchors.tolist()), *new]
    report_texts, report_folds = (
        functools.partial(report_progress, step) for step in ("reading texts", "choosing a map")
    )
    vectors, text_vectors = encode_texts(
        [texts[item] for item in item_ids], encoder, load_texts(checkpoint), report_texts
    )
    prices = np.array([catalogue[item].price for item in item_ids], dtype=np.float32)  # NaN where unknown
    descriptions = describe_items(vectors.astype(np.float32), prices)  # (anchors + new items, features)
    anchor_descriptions, new_descriptions = np.split(descriptions, [len(anchors)])
    pairs = load_pairs(checkpoint)
    choice = choose_params(trained, pairs, anchors, anchor_descriptions, report_folds)
    kernel_map = fit_kernel_map(trained, trained.table(), anchors, anchor_descriptions)
    new_vectors = kernel_map.predict(new_descriptions, choice.params)  # (new items, D)

    origin = f"{version}, and {len(new):,} items by texts that {encoder.name} read, sha256 {encoder.fingerprint[:12]}"
    extended = _append_items(trained, new, new_vectors, anchors, origin)
    with tempfile.TemporaryDirectory() as folder:
        _save_checkpoint(Path(folder), extended, pairs, text_vectors)
        candidates, precision, session_neighbours = read_export_options(bundle)
        _, manifest = export_bundle(
            Path(folder), out, candidates, precision=precision, trainable=True, session_neighbours=session_neighbours
        )
    is_recalibrated = (bundle / "manifest.json").is_file() and read_manifest(bundle).level is not None
    return EncodedItems(len(new), len(unknown) - len(new), len(anchors), choice, manifest, is_recalibrated)


def _append_items(
    checkpoint: Checkpoint, new: list[str], directions: torch.Tensor, anchors: Longs, origin: str
) -> Checkpoint:
    """Return a checkpoint with new items after its own; a new vector gets the anchors' median length.

    Args:
        checkpoint: The trained model.
        new: Ids of the new items.
        directions: Vectors of the new items, of length 1: (new items, D).
        anchors: Rows of the anchors.
        origin: Entry of the lineage that describes this step.
    """
    vocabulary = checkpoint.vocabulary.extend(new)
    model = checkpoint.model.grow(len(vocabulary))
    first_new = len(checkpoint.vocabulary) + 1
    with torch.no_grad():
        length = model.item[anchors].norm(dim=1).median()  # before neighbours are added and the table is normalised
        model.item[first_new:] = length * directions
    padding = ((0, len(new)), (0, 0))  # the new items have no neighbours
    neighbours = Neighbours(np.pad(checkpoint.neighbours.rows, padding), np.pad(checkpoint.neighbours.shares, padding))
    record = msgspec.structs.replace(checkpoint.record, lineage=(*checkpoint.record.lineage, origin))
    stack = checkpoint.stack and checkpoint.stack.grow(len(vocabulary))
    return Checkpoint(record, vocabulary, model, neighbours, checkpoint.held_out, stack, checkpoint.indexed_sessions)


def _save_checkpoint(folder: Path, checkpoint: Checkpoint, pairs: PairCounts, text_vectors: TextVectors) -> None:
    """Write a finished checkpoint, with the text vectors for later calls.

    Args:
        folder: Path of the checkpoint.
        checkpoint: The model.
        pairs: Co-occurrence counts of the training sessions.
        text_vectors: Text vectors by the texts' hashes.
    """
    start_checkpoint(folder, checkpoint.record, checkpoint.vocabulary, checkpoint.held_out)
    save_model(folder / "weights.pt", checkpoint.model, checkpoint.neighbours)
    save_pairs(folder, pairs)
    save_texts(folder, text_vectors)
    if checkpoint.stack:
        save_stack(folder, checkpoint.stack)
    if checkpoint.indexed_sessions:
        save_sessions(folder, checkpoint.indexed_sessions)
