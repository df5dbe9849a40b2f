"""Recalibrate: correct the level of a bundle's probabilities on recent sessions, and write the result as a new bundle.

Items, candidates, scores and reasons stay bit for bit as they are. On request, heads are fitted anew (`model.refit`).
"""

# pyright: standard
# The types of ONNX Runtime's outputs are loose.

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort

from clickscore.export.bundle_files import require_empty, write_manifest
from clickscore.export.errors import ExportError
from clickscore.export.level_graph import add_level, add_refit, remove_level
from clickscore.export.parity import MAX_DIFFERENCE
from clickscore.export.probes import INVARIANCE_STEP, batch_invariant, run_with_reasons
from clickscore.model.bundle_heads import batch_prefixes
from clickscore.model.calibration import MIN_CALIBRATION_SESSIONS, Calibration, Probabilities
from clickscore.model.errors import DataError
from clickscore.model.level import (
    correct_level,
    describe_level,
    fit_level,
    is_unchanged,
    leave_heads,
    require_sessions,
)
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.open_bundle import open_bundle
from clickscore.model.prefix_features import (
    NO_ATTRIBUTES,
    FullSessions,
    compute_features,
    make_full_sessions,
    make_item_attributes,
)
from clickscore.model.refit import MIN_REFIT_SESSIONS, Refit, fit_refit
from clickscore.model.session_files import DatasetReport, read_sessions
from clickscore.schemas.manifest import HEADS, Manifest, content_hash

CHECKED_PREFIXES = 512
"""Newest prefixes on which the new graph is compared with the old graph."""


def recalibrate_bundle(
    bundle: Path,
    files: Sequence[Path],
    out: Path,
    *,
    refit_heads: bool = False,
    on_read: Callable[[DatasetReport], None] = lambda _: None,
) -> Manifest | None:
    """Write a bundle with the level of recent sessions, and return its manifest; None where the level is right.

    An earlier correction is replaced, so corrections never add up.

    Args:
        bundle: Folder of the bundle.
        files: Files of recent sessions, which the bundle was not trained on.
        out: Folder of the new bundle; it must be absent or empty.
        refit_heads: Whether trees and a regression of the recent sessions may replace heads.
        on_read: Called with the counts of the sessions that were read and dropped.

    Raises:
        DataError: A file cannot be read, or the sessions are too few.
        ExportError: The bundle lacks a head or cannot be refitted, the new graph is not the old one with another level,
            or the folder is not empty or inside the bundle.
        TrainingError: The bundle is broken.
    """
    require_empty(out)
    if bundle.resolve() in out.resolve().parents:
        message = f"{out} lies inside the bundle {bundle}: name a folder beside it"
        raise ExportError(message)
    manifest, vocabulary, _ = open_bundle(bundle)
    if absent := sorted(set(HEADS) & set(manifest.absent_heads)):
        message = f"bundle {manifest.version} has no {' and no '.join(absent)}: there is no level to correct"
        raise ExportError(message)
    if refit_heads and not manifest.every_event:
        message = f"bundle {manifest.version} reads events on known items alone and cannot be refitted: omit --refit"
        raise ExportError(message)
    sessions, report = read_sessions(files)
    if not len(sessions):
        message = "; ".join(["the files hold no session: name files of closed sessions", *report.list_dropped()])
        raise DataError(message)
    on_read(report)
    model = remove_level((bundle / "model.onnx").read_bytes())
    rows = vocabulary.rows(sessions.item_ids)
    full_sessions = make_full_sessions(sessions, rows)
    require_sessions(manifest, full_sessions, MIN_REFIT_SESSIONS if refit_heads else MIN_CALIBRATION_SESSIONS)
    graph, refit = open_graph(model), None
    correction = fit_level(graph, manifest, full_sessions)
    if refit_heads:
        refit = fit_refit(graph, manifest, sessions, rows, make_item_attributes(vocabulary.items, NO_ATTRIBUTES))
    if refit:
        correction = leave_heads(correction, refit.report.heads)
    is_level = refit is None and is_unchanged(correction.next_action) and is_unchanged(correction.purchase)
    if is_level and manifest.level is None:
        return None
    corrected = add_level(model, correction)
    if refit:
        corrected = add_refit(corrected, refit)
    _compare(graph, open_graph(corrected), manifest, full_sessions, correction, refit=refit)
    level = describe_level(correction, len(sessions), report.first_closed_at, report.last_closed_at)
    level = msgspec.structs.replace(level, refit=refit.report if refit else None)
    new_manifest = msgspec.structs.replace(
        manifest,
        content_hash=content_hash(corrected, (bundle / "items.txt").read_bytes()),
        lineage=(*manifest.lineage, f"{manifest.version}, with the level of {len(sessions):,} recent sessions"),
        level=level,
    )
    shutil.copytree(bundle, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json", "model.onnx"))
    (out / "model.onnx").write_bytes(corrected)
    write_manifest(out, new_manifest)
    return new_manifest


def _compare(
    old: ort.InferenceSession,
    new: ort.InferenceSession,
    manifest: Manifest,
    sessions: FullSessions,
    correction: Calibration,
    *,
    refit: Refit | None,
) -> None:
    """Refuse a new graph that differs from the old one in anything but the level, or whose bits depend on the batch.

    Args:
        old: Graph without a correction.
        new: Graph with the correction.
        manifest: Manifest of the old bundle.
        sessions: Sessions to compare on.
        correction: The correction.
        refit: Stack of the recent sessions, if it replaces heads.
    """
    ends = np.arange(len(sessions.items))[-CHECKED_PREFIXES:]
    for _, batch in batch_prefixes(manifest, sessions, ends):
        old_outputs, new_outputs = run_with_reasons(old, batch), run_with_reasons(new, batch)
        if any(
            old_part.tobytes() != new_part.tobytes()
            for index, (old_part, new_part) in enumerate(zip(old_outputs, new_outputs, strict=True))
            if index not in (2, 3)  # the outputs of the heads
        ):
            message = "the correction of the level changed more than the level: the bundle was not written"
            raise ExportError(message)
        expected = correct_level(Probabilities(*old_outputs[2:4]), correction)
        if refit:
            features = compute_features(batch, refit.stack.item_features)
            expected = refit.replace(expected, refit.stack.logits(features))
        difference = max(
            float(np.abs(part - expected_part).max())
            for part, expected_part in zip(new_outputs[2:4], expected, strict=True)
        )
        if not difference <= MAX_DIFFERENCE:
            message = f"the corrected probabilities differ by {difference:.2g} from the fit: the bundle was not written"
            raise ExportError(message)
        if not all(
            batch_invariant(new, batch, new_outputs, index) for index in range(0, len(batch.items), INVARIANCE_STEP)
        ):
            message = "the corrected graph gives other bits alone than in a batch: the bundle was not written"
            raise ExportError(message)
