"""Bundle: one shipped model as a folder, with a manifest that says what it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import onnx

from clickscore.model.errors import TrainingError
from clickscore.model.vocabulary import Vocabulary
from clickscore.schemas.manifest import (
    FORMAT_VERSION,
    CalibrationReport,
    Fidelity,
    Manifest,
    Tensor,
    content_hash,
    encode_manifest,
)

_DTYPES: Mapping[int, str] = {onnx.TensorProto.INT64: "int64", onnx.TensorProto.FLOAT: "float32"}


def write_bundle(
    folder: Path,
    *,
    model: bytes,
    vocabulary: Vocabulary,
    framework: str,
    max_length: int,
    every_event: bool = False,
    training_data: str = "",
    trained_until: int = 0,
    metrics: Mapping[str, float] | None = None,
    precision: str = "fp32",
    fidelity: Fidelity | None = None,
    calibration: CalibrationReport | None = None,
    popular: Sequence[str] = (),
    lineage: Sequence[str] = (),
) -> Manifest:
    """Write a bundle and return its manifest, which is the last file to appear.

    Args:
        folder: Where it goes; there must be nothing yet, or an empty folder.
        model: The graph of `schemas.manifest`.
        vocabulary: Its items by row.
        framework: What made it, such as `torch 2.13.0`.
        max_length: Events that the graph reads at most.
        every_event: Whether it reads those on unknown items and on none, too.
        training_data: What it learned from, in words, with a fingerprint.
        trained_until: Event time of the newest event of that, ms; 0 where nobody knows.
        metrics: Measured on sessions that the model had not learned from.
        precision: What the products with the whole catalogue are made in.
        fidelity: How near that comes to `fp32`.
        calibration: What calibrating the heads did.
        popular: The most popular items of the training data, best first.
        lineage: What the model was topped up from, the oldest first.

    Raises:
        TrainingError: Something is in the way.
    """
    require_empty(folder)
    graph = onnx.load_model_from_string(model).graph
    inputs, outputs = (tuple(map(_tensor, tensors)) for tensors in (graph.input, graph.output))
    items = vocabulary.to_bytes()
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        content_hash=content_hash(model, items),
        framework=framework,
        max_length=max_length,
        every_event=every_event,
        items=len(vocabulary),
        candidates=next(size for size in _rows(outputs) if isinstance(size, int)),
        inputs=inputs,
        outputs=outputs,
        training_data=training_data,
        trained_until=trained_until,
        metrics={name: round(value, 6) for name, value in (metrics or {}).items()},
        precision=precision,
        fidelity=fidelity,
        calibration=calibration,
        popular=tuple(popular),
        lineage=tuple(lineage),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    (folder / "items.txt").write_bytes(items)
    (folder / "manifest.json").write_bytes(msgspec.json.format(encode_manifest(manifest), indent=2) + b"\n")
    return manifest


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds something: a worker may be serving it.

    Raises:
        TrainingError: It does.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        message = f"{folder} is not empty, and a worker may be serving it: name a new folder"
        raise TrainingError(message)


def _rows(outputs: Sequence[Tensor]) -> tuple[str | int, ...]:
    return next(tensor.shape for tensor in outputs if tensor.name == "rows")


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    of = value.type.tensor_type
    shape = tuple(axis.dim_param or axis.dim_value for axis in of.shape.dim)
    return Tensor(value.name, _DTYPES[of.elem_type], shape)
