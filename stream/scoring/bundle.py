"""Bundle: load a shipped model, and refuse a bundle whose graph or items contradict the manifest."""

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnxruntime as ort

from clickscore.model.graph_trial import ServingLimits, find_problem, shorten
from clickscore.model.onnx_runtime import session_options
from clickscore.model.packaged_bundle import resolve_folder
from clickscore.schemas.manifest import (
    EXPLAINED,
    FORMAT_VERSION,
    HEADS,
    INPUTS,
    LATEST_TIMESTAMP,
    MAX_LENGTH_LIMIT,
    OPTIONAL,
    OUTPUTS,
    REASONS,
    Manifest,
    content_hash,
    decode_manifest,
)
from clickscore.stream.errors import BundleError
from clickscore.stream.scoring.external_data import find_external_tensors
from clickscore.stream.scoring.item_vectors import read_directions

BYTE_ORDER_MARK = "\ufeff"


class Bundle(NamedTuple):
    """A loaded bundle without contradictions."""

    manifest: Manifest
    items: tuple[str, ...]
    """Item ids. Row 0 is the padding, so the item of row r is `items[r - 1]`."""
    session: ort.InferenceSession
    directions: np.ndarray | None = None
    """Direction of each item, as `scoring.item_vectors` reads it; None for a graph without a table of vectors."""


def load_bundle(folder: Path, threads: int = 1, min_overlap: float = 0.0) -> Bundle:
    """Return a bundle ready to score.

    Args:
        folder: Folder of `model.onnx`, `items.txt` and `manifest.json`; `demo` is the packaged bundle.
        threads: Number of ONNX Runtime's intra-op threads.
        min_overlap: Minimum recall@20 of a quantised graph against the fp32 graph, 0 to 1.

    Raises:
        BundleError: The bundle contradicts the manifest, or loses too much; the message lists all problems.
    """
    try:
        bundle = _open(folder, threads)
        problems = _contradictions(bundle) or _trial_problems(bundle, every_item=False) + _quantisation_problems(
            bundle.manifest, min_overlap
        )
    except BundleError as exc:
        problems = [str(exc)]
    else:
        if not problems:
            return bundle
    problem_list = "; ".join(problems)
    message = f"the bundle {folder} cannot be served: {problem_list}. Export it again, or point --bundle at another one"
    raise BundleError(message)


def check_bundle(folder: Path) -> list[str]:
    """Return the problems of a bundle in words; an empty list for a good bundle. The graph runs every item."""
    try:
        bundle = _open(folder, threads=1)
        return _contradictions(bundle) or _trial_problems(bundle, every_item=True) + _quantisation_problems(
            bundle.manifest, min_overlap=0.0
        )
    except BundleError as exc:
        return [str(exc)]


def _open(folder: Path, threads: int) -> Bundle:
    """Load the files of a folder and check the content hash."""
    manifest, model, item_list = _read(resolve_folder(folder))
    if external := find_external_tensors(model):
        message = (
            f"model.onnx keeps {len(external)} tensors in another file ({external[0]!r} is the first), which the "
            "content hash does not cover; `clickscore import-onnx` takes them into the bundle"
        )
        raise BundleError(message)
    options = session_options()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # waiting threads would take cores from other processes
    options.log_severity_level = 3  # errors only; ONNX Runtime warns of each input with a default, such as `explained`
    try:
        items = tuple(item_list.decode().splitlines())
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except UnicodeDecodeError as exc:
        message = f"items.txt is not UTF-8: {exc}"
        raise BundleError(message) from exc
    except Exception as exc:  # ONNX Runtime's exceptions share no base class that it exports
        message = f"ONNX Runtime refuses model.onnx: {shorten(exc)}"
        raise BundleError(message) from exc
    return Bundle(manifest, items, session, read_directions(model, len(items)))


def _read(folder: Path) -> tuple[Manifest, bytes, bytes]:
    """Return manifest, model and item list of a folder."""
    missing = [name for name in ("manifest.json", "model.onnx", "items.txt") if not (folder / name).is_file()]
    if missing:
        message = f"it lacks {', '.join(missing)}"
        raise BundleError(message)
    try:
        manifest = decode_manifest((folder / "manifest.json").read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        message = f"manifest.json cannot be read: {exc}"
        raise BundleError(message) from exc
    if manifest.format_version != FORMAT_VERSION:
        message = f"the format version is {manifest.format_version}, this worker serves {FORMAT_VERSION}"
        raise BundleError(message)
    model, item_list = (folder / "model.onnx").read_bytes(), (folder / "items.txt").read_bytes()
    actual_hash = content_hash(model, item_list)
    if actual_hash != manifest.content_hash:
        message = f"the content hash of the files is {actual_hash[:12]}, the manifest says {manifest.content_hash[:12]}"
        raise BundleError(message)
    return manifest, model, item_list


def _contradictions(bundle: Bundle) -> list[str]:
    """Return the contradictions between manifest, item list, graph and contract."""
    manifest, items, session, _ = bundle
    inputs = {node.name: _shape(node) for node in session.get_inputs()}
    defaults = {node.name: _shape(node) for node in session.get_overridable_initializers()}
    outputs = {node.name: _shape(node) for node in session.get_outputs()}
    stated = {tensor.name for tensor in (*manifest.inputs, *manifest.outputs)}
    checks = (
        (len(items) != manifest.items, f"items.txt has {len(items)} lines, the manifest says {manifest.items}"),
        (len(set(items)) != len(items), "items.txt lists an item twice"),
        (
            items[:1] and items[0].startswith(BYTE_ORDER_MARK),
            "items.txt starts with a byte order mark: remove the mark",
        ),
        (
            not 1 <= manifest.max_length <= MAX_LENGTH_LIMIT,
            f"max_length is {manifest.max_length}, not from 1 to {MAX_LENGTH_LIMIT}",
        ),
        (
            not 1 <= manifest.candidates <= manifest.items,
            f"candidates is {manifest.candidates}, not from 1 to {manifest.items}, the number of items",
        ),
        (
            not 0 <= manifest.trained_until <= LATEST_TIMESTAMP,
            f"trained_until is {manifest.trained_until}, which is no time in ms up to the year 9999",
        ),
        (
            not set(manifest.absent_heads) <= set(HEADS),
            f"absent_heads names {', '.join(manifest.absent_heads)}; it may name {' and '.join(HEADS)}",
        ),
        ("items" not in inputs, "the graph does not read items"),
        (
            (EXPLAINED in defaults) != (REASONS in outputs),
            f"the graph has only one of {EXPLAINED!r} and {REASONS!r}; reasons need both",
        ),
        (
            stated != {*inputs, *defaults, *outputs},
            "the graph's inputs and outputs are not the inputs and outputs of the manifest",
        ),
    )
    unknown = [f"the graph needs an input {name!r}, and no worker can fill it" for name in inputs if name not in INPUTS]
    wrong = [
        f"{name!r} is {_shape_text(shape)}, not {_shape_text(expected)}"
        for name, expected in (INPUTS | OUTPUTS | OPTIONAL).items()
        if (shape := (inputs | defaults | outputs).get(name)) is not None and shape != expected
    ]
    absent = [f"the graph has no output {name!r}" for name in OUTPUTS if name not in outputs]
    return [problem for failed, problem in checks if failed] + unknown + wrong + absent


def _trial_problems(bundle: Bundle, *, every_item: bool) -> list[str]:
    """Return the problem that a run of the graph shows, if any."""
    manifest = bundle.manifest
    limits = ServingLimits(manifest.items, manifest.max_length, manifest.candidates, manifest.every_event)
    problem = find_problem(bundle.session, limits, every_item=every_item)
    return [problem] if problem else []


_DTYPES = {"tensor(int64)": "int64", "tensor(float)": "float32"}


def _shape(node: Any) -> tuple[str, int]:  # noqa: ANN401 (ONNX Runtime does not export the class)
    dtype = str(node.type)
    return _DTYPES.get(dtype, dtype), len(node.shape)


def _quantisation_problems(manifest: Manifest, min_overlap: float) -> list[str]:
    """Return the problems of a quantised graph: unknown or too low recall. An fp32 graph has no problems."""
    if manifest.precision == "fp32":
        return []
    if manifest.fidelity is None:
        return [f"the precision is {manifest.precision}, but the manifest states no fidelity"]
    overlap = manifest.fidelity.overlap
    return (
        [f"recall@20 of the {manifest.precision} graph is {overlap:.2%}, below min_overlap, which is {min_overlap:.2%}"]
        if overlap < min_overlap
        else []
    )


def _shape_text(shape: tuple[str, int]) -> str:
    return f"{shape[0]} of {shape[1]} axes"
