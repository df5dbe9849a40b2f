"""Manifest: the description of a bundle, and the contract between the export of a model and the worker.

A bundle is a folder with `model.onnx`, `items.txt` and `manifest.json`. Line n of `items.txt`, counted from 0, is the
item of row n + 1; row 0 is padding. `manifest.json` is the struct `Manifest`.

The graph:

    input  items    int64 (batch, length)  item rows, left-aligned, 0 after the end; both axes dynamic
    input  actions  int64 (batch, length)  action codes of `schemas.events.ACTIONS`, 0 after the end
    input  ages     int64 (batch, length)  ms since the session began, 0 after the end
    input  lengths  int64 (batch,)         number of real events, at least 1
    output rows     int64 (batch, candidates)  best item rows, best first, never 0; equal scores in order of row
    output scores   float32 (batch, candidates)
    output action_probabilities float32 (batch, 5)  of `NEXT_ACTIONS`
    output purchase float32 (batch,)       probability of a purchase in the rest of the session

A graph may lack an input that its model does not use; it must have every output. A graph that explains its scores has

    input  explained int64 (1,)           number of best candidates that get `reasons`; its default is 0
    output reasons  float32 (batch, explained, length)  contribution of each event to each score, 0 after the end

A graph has both or neither. Reasons need not add up to a score.

All tensors are inside `model.onnx`: a graph with external data is refused, because the hash would not cover the data.

The events are the session's events on items of the bundle. With `every_event` in the manifest they are all events of
the session: an event without an item has row 0, and an event on an unknown item has a row below 0, the same row for
the same item of the session.
"""

import hashlib

import msgspec

from clickscore.schemas.field_types import Millis
from clickscore.schemas.json_depth import bounded_depth

FORMAT_VERSION = 1

NEXT_ACTIONS: tuple[str, ...] = ("view", "cart", "favourite", "purchase", "leave")
"""Classes of the next-action head, in the order of the columns."""

INPUTS: dict[str, tuple[str, int]] = {
    "items": ("int64", 2),
    "actions": ("int64", 2),
    "ages": ("int64", 2),
    "lengths": ("int64", 1),
}
OUTPUTS: dict[str, tuple[str, int]] = {
    "rows": ("int64", 2),
    "scores": ("float32", 2),
    "action_probabilities": ("float32", 2),
    "purchase": ("float32", 1),
}
"""Type and number of axes of each input and output."""

HEADS: tuple[str, ...] = ("action_probabilities", "purchase")
"""Outputs that a foreign next-item model may lack; see `Manifest.absent_heads`."""

WIDTHS = (4, 8, 12, 20, 50)
"""Padded lengths of a worker's micro-batches; a session takes the first width at or above the session's length. Few
widths, because each call reads the whole item table. Multiples of 4, because ONNX Runtime computes other widths with
different bits."""

MAX_LENGTH_LIMIT = 4096
"""Largest `max_length` of a bundle, in events: the scorer holds a table of this length, and attention takes its square
in memory."""
LATEST_TIMESTAMP = 253_402_300_799_999
"""Last millisecond of the year 9999: no later time can be printed."""

EXPLAINED, REASONS = "explained", "reasons"
OPTIONAL: dict[str, tuple[str, int]] = {EXPLAINED: ("int64", 1), REASONS: ("float32", 3)}
"""Type and number of axes of the optional input and output."""


class Tensor(msgspec.Struct, frozen=True):
    """An input or output of the graph. A dynamic axis is a name, a fixed axis is a size."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]


class CalibrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Effect of calibrating the heads, on the sessions of the fit. The graph contains the calibration already."""

    method: str
    events: int
    """Number of events of the sessions of the fit."""
    before: dict[str, float]
    """Metrics without calibration, by name."""
    after: dict[str, float]
    """Metrics with calibration, by name."""


class RefitReport(msgspec.Struct, frozen=True, kw_only=True):
    """Heads whose probabilities come from trees and a regression of the recent sessions, and why.

    The metrics are cross-validated: each third of the sessions is judged by heads of the other two thirds.
    """

    heads: tuple[str, ...]
    """Names of `HEADS`."""
    events: int
    """Number of compared events."""
    before: dict[str, float]
    """Metrics of these heads with a corrected level alone, by name."""
    after: dict[str, float]
    """Metrics of these heads by the trees and the regression, by name."""


class LevelCorrection(msgspec.Struct, frozen=True, kw_only=True):
    """Correction of the probabilities' level on recent sessions. The graph contains the correction already.

    Each logit z of a head became s (z - m) + m + b: m is its mean on the recent sessions, s the scale, b the shift.
    """

    sessions: int
    """Number of recent sessions."""
    events: int
    """Number of their events without an earlier purchase."""
    closed_from: Millis
    """Closing time of the oldest recent session, ms."""
    closed_until: Millis
    """Closing time of the newest recent session, ms."""
    action_scale: float
    action_shifts: dict[str, float]
    """Shift of each next action's logit."""
    purchase_scale: float
    purchase_shift: float
    """Shift of the purchase logit."""
    before: dict[str, float]
    """Metrics without the correction, on the same events, by name."""
    after: dict[str, float]
    """Metrics with the correction, by name."""
    refit: RefitReport | None = None
    """Heads that were fitted anew on the recent sessions; null if there are none. Scale and shifts then describe the
    other heads alone."""


class SessionNeighboursReport(msgspec.Struct, frozen=True, kw_only=True):
    """Index of training sessions in `model.onnx`; items of similar sessions get bonuses."""

    sessions: int
    """Number of indexed sessions."""
    bytes: int
    """Size of the index."""
    factor: float
    """Factor of the bonuses."""


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    """Agreement of a quantised graph with the fp32 graph, on prefixes of held-out sessions."""

    beginnings: int
    """Number of prefixes."""
    overlap: float
    """Recall@20: share of the fp32 graph's best 20 items among the quantised graph's best 20."""
    hr: float
    """HR@20 of the quantised graph minus HR@20 of the fp32 graph."""
    mrr: float
    """MRR@20 of the quantised graph minus MRR@20 of the fp32 graph."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `manifest.json`."""

    format_version: int
    content_hash: str
    """SHA-256 of `model.onnx` followed by `items.txt`, in hex (see the function `content_hash`)."""
    framework: str
    """Framework of the training, for example `torch 2.13.0`."""
    max_length: int
    """Largest number of events of a session in the graph's input: the newest events."""
    every_event: bool = False
    """Whether the graph also reads searches and events on unknown items."""
    items: int
    """Number of lines of `items.txt`."""
    candidates: int
    """Number of returned items for a session."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    training_data: str = ""
    """Fingerprint and description of the training data."""
    trained_until: int = 0
    """Event time of the newest training event, ms; 0 if unknown. An evaluation must use later events."""
    metrics: dict[str, float] = {}
    """Held-out metrics, on sessions newer than the training set. The final pass may train on these sessions."""
    precision: str = "fp32"
    """Number format of the products with all items. Other formats than `fp32` rescore the best items in fp32."""
    fidelity: Fidelity | None = None
    """Agreement with the fp32 graph; null for the precision `fp32`."""
    calibration: CalibrationReport | None = None
    """Calibration of the returned probabilities; null if they are not calibrated."""
    level: LevelCorrection | None = None
    """Correction of the probabilities' level on recent sessions; null for a bundle that was not recalibrated."""
    popular: tuple[str, ...] = ()
    """Most popular items of the training data, best first. The fallback shows these items until events are counted."""
    lineage: tuple[str, ...] = ()
    """Earlier models of a warm start, oldest first; empty for a training from scratch."""
    absent_heads: tuple[str, ...] = ()
    """Outputs of `HEADS` that the model does not have. The graph returns neutral values, and decisions state null."""
    session_neighbours: SessionNeighboursReport | None = None
    """Index of training sessions in the graph; null for a graph without."""
    trainings: int = 1
    """Number of trainings whose mean scores the graph ranks by. Metrics and heads are of the first one."""
    unfinished: str = ""
    """Progress of a training that had not ended at the export, such as `3 of 8 epochs`; empty for a finished one."""

    @property
    def learned_until(self) -> int:
        """Event time of the newest event of the training and of the correction of the level, ms; 0 if unknown."""
        return max(self.trained_until, self.level.closed_until if self.level else 0)

    @property
    def version(self) -> str:
        """Short name of the bundle in decisions: the first 12 digits of `content_hash`."""
        return version_of(self.content_hash)


def version_of(content_hash: str) -> str:
    """Return the short name of a bundle in decisions: the first 12 digits of the content hash."""
    return content_hash[:12]


def padded_widths(max_length: int) -> tuple[int, ...]:
    """Return the padded lengths of a worker's micro-batches for a model that reads at most `max_length` events."""
    return (*(width for width in WIDTHS if width < max_length), max_length)


def content_hash(model: bytes, items: bytes) -> str:
    """Return the SHA-256, in hex, of `model.onnx` followed by `items.txt`."""
    return hashlib.sha256(model + items).hexdigest()


decode_manifest = bounded_depth(msgspec.json.Decoder(Manifest).decode)
encode_manifest = msgspec.json.Encoder(order="deterministic").encode
