"""Bundle: one shipped model, checked against its manifest before anything is scored with it."""

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import onnxruntime as ort

from clickscore.schemas.manifest import (
    EXPLAINED,
    FORMAT_VERSION,
    INPUTS,
    OPTIONAL,
    OUTPUTS,
    REASONS,
    Manifest,
    content_hash,
    decode_manifest,
)
from clickscore.stream.errors import BundleError


class Bundle(NamedTuple):
    """A bundle that passed `check_bundle`."""

    manifest: Manifest
    items: tuple[str, ...]
    """Item ids; the item of row r is `items[r - 1]`."""
    session: ort.InferenceSession


def load_bundle(folder: Path, threads: int = 1, min_overlap: float = 0.0) -> Bundle:
    """Return a bundle ready to score.

    Args:
        folder: Where `model.onnx`, `items.txt` and `manifest.json` lie.
        threads: ONNX Runtime's intra-op threads.
        min_overlap: Least share of the exact best 20 that a graph quicker than exact has found.

    Raises:
        BundleError: It is not what its manifest says; the message has every reason and what to do.
    """
    try:
        bundle = _open(folder, threads)
        problems = _contradictions(bundle) + _losses(bundle.manifest, min_overlap)
    except BundleError as exc:
        problems = [str(exc)]
    else:
        if not problems:
            return bundle
    listed = "; ".join(problems)
    message = f"the bundle {folder} cannot be served: {listed}. Export it again, or point --bundle at another one"
    raise BundleError(message)


def check_bundle(folder: Path) -> list[str]:
    """Return what is wrong with a bundle, in words; empty where it can be served."""
    try:
        return _contradictions(_open(folder, threads=1))
    except BundleError as exc:
        return [str(exc)]


def _open(folder: Path, threads: int) -> Bundle:
    """Return what lies in the folder, if it can be read at all and its hash is right."""
    manifest, model, listed = _read(folder)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores that others here can use
    options.log_severity_level = 3  # errors: it warns of each input with a default, such as `explained`
    try:
        items = tuple(listed.decode().splitlines())
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except UnicodeDecodeError as exc:
        message = f"items.txt is not UTF-8: {exc}"
        raise BundleError(message) from exc
    except Exception as exc:  # ONNX Runtime's exceptions share no base class that it exports
        message = f"ONNX Runtime refuses model.onnx: {exc}"
        raise BundleError(message) from exc
    return Bundle(manifest, items, session)


def _read(folder: Path) -> tuple[Manifest, bytes, bytes]:
    """Return manifest, model and item list of a folder."""
    missing = [name for name in ("manifest.json", "model.onnx", "items.txt") if not (folder / name).is_file()]
    if missing:
        message = f"{', '.join(missing)} missing"
        raise BundleError(message)
    try:
        manifest = decode_manifest((folder / "manifest.json").read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        message = f"manifest.json cannot be read: {exc}"
        raise BundleError(message) from exc
    if manifest.format_version != FORMAT_VERSION:
        message = f"its format version is {manifest.format_version}, this worker serves {FORMAT_VERSION}"
        raise BundleError(message)
    model, listed = (folder / "model.onnx").read_bytes(), (folder / "items.txt").read_bytes()
    found = content_hash(model, listed)
    if found != manifest.content_hash:
        message = f"its content hash is {found[:12]}, the manifest says {manifest.content_hash[:12]}"
        raise BundleError(message)
    return manifest, model, listed


def _contradictions(bundle: Bundle) -> list[str]:
    """Return where manifest, item list, graph and contract contradict each other."""
    manifest, items, session = bundle
    inputs = {node.name: _shape(node) for node in session.get_inputs()}
    defaults = {node.name: _shape(node) for node in session.get_overridable_initializers()}
    outputs = {node.name: _shape(node) for node in session.get_outputs()}
    stated = {tensor.name for tensor in (*manifest.inputs, *manifest.outputs)}
    checks = (
        (len(items) != manifest.items, f"items.txt has {len(items)} lines, the manifest says {manifest.items}"),
        (len(set(items)) != len(items), "items.txt names an item twice"),
        (manifest.max_length < 1, f"max_length is {manifest.max_length}"),
        ("items" not in inputs, "the graph does not read items"),
        ((EXPLAINED in defaults) != (REASONS in outputs), f"of {EXPLAINED} and {REASONS} it has but one"),
        (stated != {*inputs, *defaults, *outputs}, "inputs and outputs of the graph are not those of the manifest"),
    )
    unknown = [f"the graph wants an input {name!r} that no worker knows" for name in inputs if name not in INPUTS]
    wrong = [
        f"{name!r} is {_words(shape)}, not {_words(expected)}"
        for name, expected in (INPUTS | OUTPUTS | OPTIONAL).items()
        if (shape := (inputs | defaults | outputs).get(name)) is not None and shape != expected
    ]
    absent = [f"the graph has no output {name!r}" for name in OUTPUTS if name not in outputs]
    return [words for failed, words in checks if failed] + unknown + wrong + absent


_DTYPES = {"tensor(int64)": "int64", "tensor(float)": "float32"}


def _shape(node: Any) -> tuple[str, int]:  # noqa: ANN401 (ONNX Runtime does not export the class)
    dtype = str(node.type)
    return _DTYPES.get(dtype, dtype), len(node.shape)


def _losses(manifest: Manifest, min_overlap: float) -> list[str]:
    """Return why a graph that is quicker than exact loses too much; nothing of an exact one."""
    if manifest.precision == "fp32":
        return []
    if manifest.fidelity is None:
        return [f"its precision is {manifest.precision}, and it does not say how much that loses"]
    found = manifest.fidelity.overlap
    return (
        [f"its {manifest.precision} graph finds {found:.2%} of the exact best 20, and min_overlap is {min_overlap:.2%}"]
        if found < min_overlap
        else []
    )


def _words(shape: tuple[str, int]) -> str:
    return f"{shape[0]} of {shape[1]} axes"
