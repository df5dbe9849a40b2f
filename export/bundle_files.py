"""Bundle files: write one exported model as a folder, with a manifest that describes it."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import onnx

from clickscore.export.bundle_options import CANDIDATES, ExportOptions
from clickscore.export.errors import ExportError
from clickscore.model.open_bundle import read_manifest
from clickscore.model.vocabulary import Vocabulary
from clickscore.schemas.manifest import (
    FORMAT_VERSION,
    CalibrationReport,
    Fidelity,
    Manifest,
    SessionNeighboursReport,
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
    absent_heads: Sequence[str] = (),
    unfinished: str = "",
    session_neighbours: SessionNeighboursReport | None = None,
    trainings: int = 1,
    data_report: bytes = b"",
    checkpoint: Path | None = None,
) -> Manifest:
    """Write a bundle and return its manifest.

    The manifest is written last and in one step, so a folder with a manifest is complete.

    Args:
        folder: Path of the bundle; the folder must be absent or empty.
        model: ONNX file with the inputs and outputs of `schemas.manifest`.
        vocabulary: Items of the model by row.
        framework: Name and version of the framework that made the model, such as `torch 2.13.0`.
        max_length: Largest number of events read by the graph.
        every_event: Whether the graph also reads searches and events on unknown items.
        training_data: Description of the training data, with a fingerprint.
        trained_until: Event time of the newest training event, ms; 0 where the time is unknown.
        metrics: Held-out metrics, measured on sessions that the model had not learned from.
        precision: Number format of the product with the whole catalogue, a name of `export.shortlist.RANKINGS`.
        fidelity: Comparison of a quantised graph with its fp32 graph.
        calibration: Metrics before and after the calibration of the heads.
        popular: Most popular items of the training data, best first.
        lineage: Earlier versions that the model was fine-tuned from, the oldest first.
        absent_heads: Outputs of the graph that the model does not have, and that are neutral.
        unfinished: Progress of a training that has not ended; empty for a finished one.
        session_neighbours: Index of training sessions in the graph; None for a graph without.
        trainings: Number of trainings whose mean scores the graph ranks by.
        data_report: Content of `data-report.json`; empty for no such file.
        checkpoint: Checkpoint to copy into the bundle; None for none.

    Raises:
        ExportError: The folder is not empty.
    """
    require_empty(folder)
    graph = onnx.load_model_from_string(model).graph
    inputs, outputs = (tuple(map(_describe_tensor, tensors)) for tensors in (graph.input, graph.output))
    items = vocabulary.to_bytes()
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        content_hash=content_hash(model, items),
        framework=framework,
        max_length=max_length,
        every_event=every_event,
        items=len(vocabulary),
        candidates=_count_candidates(outputs),
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
        absent_heads=tuple(absent_heads),
        unfinished=unfinished,
        session_neighbours=session_neighbours,
        trainings=trainings,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    (folder / "items.txt").write_bytes(items)
    if data_report:
        (folder / "data-report.json").write_bytes(data_report)
    if checkpoint:
        shutil.copytree(checkpoint, folder / "checkpoint")
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a bundle with complete files; a kill leaves no part of a manifest.

    Args:
        folder: Folder of the bundle.
        manifest: The manifest.
    """
    draft = folder / "manifest.json.draft"
    draft.write_bytes(msgspec.json.format(encode_manifest(manifest), indent=2) + b"\n")
    draft.replace(folder / "manifest.json")


def read_export_options(bundle: Path) -> ExportOptions:
    """Return the choices that a bundle was exported with; the defaults for a folder without a manifest.

    A bundle with fewer items than it should have candidates has all its items as candidates.
    """
    if not (bundle / "manifest.json").is_file():
        return ExportOptions()
    manifest = read_manifest(bundle)
    has_all_items = manifest.candidates == manifest.items
    return ExportOptions(
        max(CANDIDATES, manifest.candidates) if has_all_items else manifest.candidates,
        manifest.precision,
        manifest.session_neighbours is not None,
    )


def require_empty(folder: Path) -> None:
    """Refuse to write into a folder that is not empty, because a worker may be serving it.

    Raises:
        ExportError: The path is a file, or a folder with files.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if (folder / "model.onnx").exists() and not (folder / "manifest.json").exists():
        message = (
            f"{folder} has a part of a bundle, from an export that was interrupted: delete it, or name a new folder"
        )
        raise ExportError(message)
    message = f"{folder} is not empty, and a worker may be serving it: name a new folder"
    raise ExportError(message)


def _count_candidates(outputs: Sequence[Tensor]) -> int:
    """Return the fixed size of the output `rows`: (batch, candidates)."""
    shape = next(tensor.shape for tensor in outputs if tensor.name == "rows")
    return next(size for size in shape if isinstance(size, int))


def _describe_tensor(value: onnx.ValueInfoProto) -> Tensor:
    tensor = value.type.tensor_type
    shape = tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)
    return Tensor(value.name, _DTYPES[tensor.elem_type], shape)
