"""Checkpoint: a trained model as a folder with everything that an export or a warm start needs."""

# pyright: standard
# torch does not type loaded values.

import contextlib
import dataclasses
import io
import os
import pickle
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import msgspec
import numpy as np
import torch

from clickscore.model.calibration import Calibration
from clickscore.model.config import TrainConfig
from clickscore.model.errors import TrainingError
from clickscore.model.examples import Examples
from clickscore.model.neighbours import Neighbours, PairCounts
from clickscore.model.open_bundle import read_manifest
from clickscore.model.prefix_features import ItemFeatures
from clickscore.model.session_files import DatasetReport
from clickscore.model.session_neighbours import IndexedSessions, SessionIndex, open_index
from clickscore.model.stack import ONE_HOT_WIDTH, LinearModel, Stack
from clickscore.model.text_vectors import TextVectors
from clickscore.model.transformer import NeighbourMatrix, SessionTransformer
from clickscore.model.trees import Trees
from clickscore.model.vocabulary import Vocabulary, read_vocabulary

STACK, TEXTS, SESSIONS = "stack.npz", "texts.npz", "sessions.npz"
_WEIGHTS = {True: "weights.pt", False: "best.pt"}
"""File of the weights, by whether the training has ended."""


class EpochResult(msgspec.Struct, frozen=True, kw_only=True):
    """Loss and validation metrics of one pass over the training sessions."""

    number: int
    """Number of the epoch, from 1."""
    loss: float
    """Mean training loss over the steps."""
    metrics: dict[str, float]
    """Metrics on the validation sessions, measured after the epoch."""


class TrainingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`checkpoint.json`: the config, data and results of a training.

    The names in the file (`popular`, `best`, `measured`, `learned`) stay as the first version wrote them.
    """

    config: TrainConfig
    report: DatasetReport
    popular_items: tuple[str, ...] = msgspec.field(name="popular")
    """Most popular items of the training sessions, best first."""
    epochs: tuple[EpochResult, ...] = ()
    best_epoch: int = msgspec.field(name="best", default=0)
    """Number of the epoch whose weights are saved, 0 before the first epoch ends."""
    held_out_metrics: dict[str, float] = msgspec.field(name="measured", default_factory=dict)
    """Held-out metrics, measured before the final pass trains on these sessions."""
    calibration: Calibration | None = None
    """Calibration of the heads; an export folds the calibration into the weights."""
    counted_sessions: int = msgspec.field(name="learned", default=0)
    """Sessions in the co-occurrence counts, the sessions of each warm start included; 0 until the final pass."""
    lineage: tuple[str, ...] = ()
    """Models that this one was fine-tuned from, the oldest first; empty for a model trained from random weights."""
    finished: bool = False


class Checkpoint(NamedTuple):
    """A trained model, loaded from a checkpoint folder."""

    record: TrainingRecord
    vocabulary: Vocabulary
    model: SessionTransformer
    """Transformer in evaluation mode, on the CPU."""
    neighbours: Neighbours
    """Neighbours of every item, for `SessionTransformer.table`."""
    held_out: Examples
    """Held-out sessions, on which an export compares the graph with the model."""
    stack: Stack | None
    """Trees and regression; None for a model without them."""
    indexed_sessions: IndexedSessions | None = None
    """Sessions of the index; None for a model without session neighbours."""

    def table(self) -> torch.Tensor:
        """Return the item vectors, with their neighbours added: (V, D)."""
        with torch.inference_mode():
            return self.model.table(NeighbourMatrix(self.neighbours, torch.device("cpu")))

    def session_neighbours(self) -> SessionIndex | None:
        """Return the index of session neighbours; None for a model without."""
        if self.indexed_sessions is None:
            return None
        return open_index(self.indexed_sessions, len(self.vocabulary) + 1)


_decode_record = msgspec.json.Decoder(TrainingRecord).decode


def start_checkpoint(folder: Path, record: TrainingRecord, vocabulary: Vocabulary, held_out: Examples) -> None:
    """Write the files that stay the same during the training, and the record.

    Args:
        folder: Checkpoint folder, created if it is missing.
        record: Record of the training.
        vocabulary: Items of the model.
        held_out: Held-out sessions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, record)
    _replace(folder / "items.txt", vocabulary.to_bytes())
    _replace(folder / "held_out.npz", _pack(held_out))


def save_model(path: Path, model: SessionTransformer, neighbours: Neighbours) -> None:
    """Write weights and neighbours atomically.

    Args:
        path: File of the tensors.
        model: Model with the weights.
        neighbours: Neighbours of every item.
    """
    arrays = {f"neighbours.{name}": torch.from_numpy(array) for name, array in neighbours._asdict().items()}
    save_tensors(path, model.state_dict() | arrays)


def load_model(path: Path, model: SessionTransformer) -> Neighbours:
    """Load the weights of a `save_model` file into a model, and return the neighbours."""
    tensors = load_tensors(path)
    neighbours = Neighbours(*(tensors.pop(f"neighbours.{name}").numpy() for name in Neighbours._fields))
    model.load_state_dict(tensors)
    return neighbours


def save_pairs(folder: Path, pairs: PairCounts) -> None:
    """Write the co-occurrence counts of all sessions that a model was trained on."""
    _replace(folder / "pairs.npz", _pack(pairs))


def load_pairs(folder: Path) -> PairCounts:
    """Return the co-occurrence counts of a finished training.

    Raises:
        TrainingError: The training has not ended.
    """
    if not (folder / "pairs.npz").is_file():
        message = f"{folder} holds a training that has not ended: run its `clickscore train` command again first"
        raise TrainingError(message)
    with _reading(folder / "pairs.npz"), np.load(folder / "pairs.npz") as arrays:
        return PairCounts(**arrays)


def save_sessions(folder: Path, sessions: IndexedSessions) -> None:
    """Write the sessions of an index."""
    packed = io.BytesIO()
    np.savez_compressed(packed, items=sessions.items, factor=np.array(sessions.factor))
    _replace(folder / SESSIONS, packed.getvalue())


def load_sessions(folder: Path) -> IndexedSessions | None:
    """Return the sessions of the index, or None for a model without session neighbours."""
    if not (folder / SESSIONS).is_file():
        return None
    with _reading(folder / SESSIONS), np.load(folder / SESSIONS) as arrays:
        return IndexedSessions(arrays["items"], float(arrays["factor"]))


def save_stack(folder: Path, stack: Stack) -> None:
    """Write trees and regression. The array names stay as the first version wrote them."""
    item_features, regression = stack.item_features, stack.regression
    packed = io.BytesIO()
    np.savez_compressed(
        packed,
        numbers=item_features.values,
        categories=item_features.categories,
        kinds=item_features.kinds,
        weights=regression.weights,
        bias=regression.bias,
        share=stack.tree_share,
        next_action=np.array(stack.trees.next_action.model_to_string()),
        purchase=np.array(stack.trees.purchase.model_to_string()),
    )
    _replace(folder / STACK, packed.getvalue())


def load_stack(folder: Path) -> Stack | None:
    """Return trees and regression, or None for a model without them.

    Raises:
        TrainingError: They come from a version with other prefix features.
    """
    if not (folder / STACK).is_file():
        return None
    with _reading(folder / STACK), np.load(folder / STACK) as arrays:
        if len(arrays["weights"]) != ONE_HOT_WIDTH or "kinds" not in arrays:
            message = f"{folder} comes from a version with other prefix features: train a new model"
            raise TrainingError(message)
        trees = Trees(*(_read_forest(str(arrays[name])) for name in Trees._fields))
        item_features = ItemFeatures(arrays["numbers"], arrays["categories"], arrays["kinds"])
        return Stack(item_features, trees, LinearModel(arrays["weights"], arrays["bias"]), arrays["share"])


def _read_forest(text: str) -> lightgbm.Booster:
    """Return a forest from LightGBM's text.

    Raises:
        TrainingError: The text breaks off. LightGBM would read beyond its end.
    """
    if "\nend of trees\n" not in text:
        message = f"{STACK} holds a forest that breaks off: train a new model"
        raise TrainingError(message)
    return lightgbm.Booster(model_str=text)


def save_texts(folder: Path, texts: TextVectors) -> None:
    """Write the text vectors of the items."""
    packed = io.BytesIO()
    np.savez(packed, encoder=np.array(texts.encoder), digests=texts.digests, vectors=texts.vectors)
    _replace(folder / TEXTS, packed.getvalue())


def load_texts(folder: Path) -> TextVectors | None:
    """Return the text vectors of the items, or None if no item was encoded."""
    if not (folder / TEXTS).is_file():
        return None
    with _reading(folder / TEXTS), np.load(folder / TEXTS) as arrays:
        return TextVectors(str(arrays["encoder"]), arrays["digests"], arrays["vectors"])


def write_record(folder: Path, record: TrainingRecord) -> None:
    """Write `checkpoint.json` atomically."""
    _replace(folder / "checkpoint.json", msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def read_record(folder: Path) -> TrainingRecord | None:
    """Return the record in a folder's `checkpoint.json`, or None without this file.

    Raises:
        TrainingError: The file cannot be read.
    """
    path = folder / "checkpoint.json"
    if not path.is_file():
        return None
    try:
        return _decode_record(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        message = f"{path} cannot be read; another version may have written it: {exc}"
        raise TrainingError(message) from exc


def load_checkpoint(folder: Path) -> Checkpoint:
    """Return the model of a finished training, or the best one so far of an unfinished training.

    Raises:
        TrainingError: The folder holds no checkpoint, or no epoch has ended.
    """
    record = read_record(folder)
    if record is None or not (record.best_epoch or record.finished):
        message = f"{folder} holds no trained model: make one with `clickscore train SESSIONS --out {folder}`"
        raise TrainingError(message)
    with _reading(folder / "items.txt"):
        vocabulary = read_vocabulary(folder / "items.txt")
    model, weights = SessionTransformer(record.config.model, len(vocabulary)), folder / _WEIGHTS[record.finished]
    with _reading(weights):
        neighbours = load_model(weights, model)
    with _reading(folder / "held_out.npz"), np.load(folder / "held_out.npz") as arrays:
        held_out = Examples(**arrays)
    stack = load_stack(folder)
    if record.calibration and (stack is not None) != (len(record.calibration.purchase.scales) > 1):
        message = f"{folder} is broken: its heads are blended with trees, and it lacks {STACK}, or the reverse"
        raise TrainingError(message)
    return Checkpoint(record, vocabulary, model.eval(), neighbours, held_out, stack, load_sessions(folder))


def find_checkpoint(origin: Path) -> tuple[Path, str]:
    """Return a checkpoint's folder and name, from a checkpoint or from a bundle that was exported with --trainable.

    Raises:
        TrainingError: The bundle holds no checkpoint.
    """
    if not (origin / "manifest.json").is_file():
        return origin, "a checkpoint"
    if not (origin / "checkpoint").is_dir():
        message = f"{origin} was exported without its checkpoint: name the checkpoint, or export it with --trainable"
        raise TrainingError(message)
    return origin / "checkpoint", read_manifest(origin).version


def save_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write tensors and plain values by name, atomically."""
    packed = io.BytesIO()
    torch.save(dict(tensors), packed)
    _replace(path, packed.getvalue())


def load_tensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a file on the CPU. Code in the file is never executed (`weights_only`).

    Raises:
        TrainingError: The file cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as exc:
        message = f"{path} cannot be read: it is broken, or holds no tensors of a checkpoint"
        raise TrainingError(message) from exc


@contextlib.contextmanager
def _reading(path: Path) -> Generator[None]:
    """Turn an error in the block into an error that names the file.

    Raises:
        TrainingError: The file is missing or broken.
    """
    try:
        yield
    except TrainingError:
        raise
    except Exception as exc:  # numpy, zipfile, pickle, torch and LightGBM have no common error
        message = f"{path} cannot be read: it is missing, broken, or does not fit the other files of its checkpoint"
        raise TrainingError(message) from exc


def _pack(arrays: Examples | PairCounts) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, **{field.name: getattr(arrays, field.name) for field in dataclasses.fields(arrays)})
    return packed.getvalue()


def _replace(path: Path, content: bytes) -> None:
    """Write a file atomically: after a kill either the old or the new content is there."""
    draft = path.with_name(path.name + ".draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
