"""Encode: items that a model never saw get vectors from their texts, and a bundle that can recommend them."""

# pyright: standard
# torch leaves what a module returns untyped.

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from clickscore.export.bundle_files import require_empty
from clickscore.export.bundle_options import CANDIDATES
from clickscore.export.export_bundle import export_bundle
from clickscore.model.catalogue_items import item_text, read_items
from clickscore.model.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_pairs,
    load_texts,
    save_model,
    save_pairs,
    save_stack,
    save_texts,
    start_checkpoint,
)
from clickscore.model.cold_start import MIN_ANCHORS, ParamChoice, choose_params, describe_items, fit_kernel_map
from clickscore.model.errors import TrainingError
from clickscore.model.neighbours import Neighbours, PairCounts
from clickscore.model.session_arrays import Longs
from clickscore.model.text_encoder import TextEncoder
from clickscore.model.text_vectors import TextVectors, encode_texts
from clickscore.model.vocabulary import fits_on_line
from clickscore.schemas.manifest import Manifest, decode_manifest

Tell = Callable[[str, int, int], None]
"""Is told what is done, how much of it, and how much there is."""


class Encoded(NamedTuple):
    """What was done."""

    new: int
    """Items that got a vector."""
    without_text: int
    """Items of the catalogue that the model does not know, and that stay unknown."""
    teachers: int
    choice: ParamChoice
    manifest: Manifest


def encode(bundle: Path, items: Path, encoder: TextEncoder, out: Path, tell: Tell) -> Encoded:
    """Write a bundle of the same model, and of the catalogue's items that are new to it.

    Known items with a text, which the model has met beside others in sessions, teach where an item belongs of which
    text and price are known. New items get rows after the model's own, with such vectors; they have no neighbours
    until sessions with them are learned. Nothing else of the model changes.

    Args:
        bundle: Exported as trainable, or a checkpoint.
        items: Catalogue, JSON lines: known items and new ones.
        encoder: Language model.
        out: Where the new bundle goes; there must be nothing yet.
        tell: Shows progress.

    Raises:
        TrainingError: There is no trained model, nothing is new or can be learned from, or something is in the way.
    """
    require_empty(out)
    checkpoint, version = find_checkpoint(bundle)
    trained = load_checkpoint(checkpoint)
    if not trained.record.finished:
        message = f"the training of {bundle} has not ended: go on with it, the same `clickscore train` again"
        raise TrainingError(message)
    catalogue = {item.item_id: item for item in read_items(items)}
    texts = {item: item_text(catalogue[item]) for item in catalogue}
    unknown = [item for item in texts if not trained.vocabulary.row(item) and fits_on_line(item)]
    new = [item for item in unknown if texts[item]]
    if not new:
        reason = f"{len(unknown):,} are new but have neither title, category nor brand" if unknown else "none is new"
        message = f"nothing to encode in {items}: of {len(texts):,} items {reason}"
        raise TrainingError(message)
    rows = np.flatnonzero(trained.neighbours.shares.sum(axis=1))
    rows = rows[np.array([bool(texts.get(trained.vocabulary.item(row))) for row in rows.tolist()], dtype=bool)]
    if len(rows) < MIN_ANCHORS:
        message = (
            f"{items} has texts of {len(rows):,} items that the model has met, at least {MIN_ANCHORS} are needed to "
            "learn from: name the whole catalogue, not its new items alone"
        )
        raise TrainingError(message)
    told = [*map(trained.vocabulary.item, rows.tolist()), *new]
    tell_texts, tell_folds = (functools.partial(tell, what) for what in ("reading texts", "choosing a map"))
    vectors, remembered = encode_texts([texts[item] for item in told], encoder, load_texts(checkpoint), tell_texts)
    prices = np.array([catalogue[item].price for item in told], dtype=np.float32)  # NaN for none
    taught, asked = np.split(describe_items(vectors.astype(np.float32), prices), [len(rows)])
    pairs = load_pairs(checkpoint)
    choice = choose_params(trained, pairs, rows, taught, tell_folds)
    mapped = fit_kernel_map(trained, trained.table(), rows, taught).predict(asked, choice.params)

    origin = f"{version}, and {len(new):,} items by texts that {encoder.name} read, sha256 {encoder.fingerprint[:12]}"
    grown = _grown(trained, new, mapped, rows, origin)
    with tempfile.TemporaryDirectory() as folder:
        _save(Path(folder), grown, pairs, remembered)
        candidates, precision = _shape(bundle)
        _, manifest = export_bundle(Path(folder), out, candidates, precision=precision, trainable=True)
    return Encoded(len(new), len(unknown) - len(new), len(rows), choice, manifest)


def _grown(of: Checkpoint, new: list[str], mapped: torch.Tensor, teachers: Longs, origin: str) -> Checkpoint:
    """Return a model with new items after its own, at the length that its own have before neighbours are added."""
    vocabulary = of.vocabulary.extend(new)
    model = of.model.grow(len(vocabulary))
    known = len(of.vocabulary) + 1
    with torch.no_grad():
        length = model.item[teachers].norm(dim=1).median()
        model.item[known:] = length * mapped
    none = ((0, len(new)), (0, 0))
    neighbours = Neighbours(np.pad(of.neighbours.rows, none), np.pad(of.neighbours.shares, none))
    record = msgspec.structs.replace(of.record, lineage=(*of.record.lineage, origin))
    stack = of.stack and of.stack.grow(len(vocabulary))
    return Checkpoint(record, vocabulary, model, neighbours, of.held_out, stack)


def _shape(bundle: Path) -> tuple[int, str]:
    """Return how many items the graph of a bundle returns, and its precision; the usual ones of a checkpoint."""
    manifest = bundle / "manifest.json"
    if not manifest.is_file():
        return CANDIDATES, "fp32"
    found = decode_manifest(manifest.read_bytes())
    return found.candidates, found.precision


def _save(folder: Path, of: Checkpoint, pairs: PairCounts, texts: TextVectors) -> None:
    """Write a finished checkpoint."""
    start_checkpoint(folder, of.record, of.vocabulary, of.held_out)
    save_model(folder / "weights.pt", of.model, of.neighbours)
    save_pairs(folder, pairs)
    save_texts(folder, texts)
    if of.stack:
        save_stack(folder, of.stack)
