"""Open bundle: manifest, items and graph of a bundle, for commands that measure or change a bundle."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import onnxruntime as ort

from clickscore.model.errors import TrainingError
from clickscore.model.graph_trial import shorten
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.vocabulary import Vocabulary, read_vocabulary
from clickscore.schemas.manifest import Manifest, content_hash, decode_manifest


class OpenBundle(NamedTuple):
    """Parts of a bundle."""

    manifest: Manifest
    vocabulary: Vocabulary
    graph: ort.InferenceSession


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a bundle.

    Raises:
        TrainingError: The folder has no manifest, or the manifest cannot be read.
    """
    try:
        return decode_manifest((folder / "manifest.json").read_bytes())
    except FileNotFoundError as exc:
        message = f"{folder} is no bundle: it lacks manifest.json"
        raise TrainingError(message) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        message = f"{folder} is no bundle: manifest.json cannot be read: {exc}"
        raise TrainingError(message) from exc


def open_bundle(folder: Path) -> OpenBundle:
    """Return the parts of a bundle, with the graph ready to run.

    Raises:
        TrainingError: A file is missing or broken, or the files are not those of the manifest.
    """
    manifest, model, items = read_manifest(folder), folder / "model.onnx", folder / "items.txt"
    try:
        actual_hash = content_hash(model.read_bytes(), items.read_bytes())
    except FileNotFoundError as exc:
        message = f"{folder} is no bundle: it lacks {Path(exc.filename).name}"
        raise TrainingError(message) from exc
    if actual_hash != manifest.content_hash:
        message = (
            f"{folder} is damaged: the content hash of its files is {actual_hash[:12]}, the manifest says "
            f"{manifest.version}"
        )
        raise TrainingError(message)
    try:
        return OpenBundle(manifest, read_vocabulary(items), open_graph(model))
    except Exception as exc:  # ONNX Runtime's exceptions share no base class that it exports
        message = f"{folder} cannot be opened: {shorten(exc)}. `clickscore bundle check` names the problems of a bundle"
        raise TrainingError(message) from exc
