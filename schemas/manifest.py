"""Manifest: what a bundle says of itself. The contract between whoever exports a model and the worker that serves it.

A bundle is a folder with `model.onnx`, `items.txt` (line n, from 0, is the item of row n + 1; row 0 is padding) and
`manifest.json`, which is this struct.

The graph:

    input  items    int64 (batch, length)  item rows, left-aligned, 0 after the end; both axes dynamic
    input  actions  int64 (batch, length)  action codes of `schemas.events.ACTIONS`, 0 after the end
    input  ages     int64 (batch, length)  ms since the session began, 0 after the end
    input  lengths  int64 (batch,)         how many of them are real, at least 1
    output rows     int64 (batch, candidates)  best item rows, best first, never 0; equal scores in order of row
    output scores   float32 (batch, candidates)
    output action_probabilities float32 (batch, 5)  of `NEXT_ACTIONS`
    output purchase float32 (batch,)       probability of a purchase in what is left of the session

An input that a model has no use for may be missing from its graph; an output may not. A graph that can say why may have

    input  explained int64 (1,)           of how many candidates, the best first, `reasons` are wanted; its default is 0
    output reasons  float32 (batch, explained, length)  how much each event raised the score of each, 0 after the end

Both or neither. Reasons need not add up to a score.

The events are those on items that the bundle knows. Where the manifest says `every_event`, they are all: one on no item
has row 0, and one on an unknown item a row below 0, the same for the same item of the session.
"""

import hashlib

import msgspec

FORMAT_VERSION = 1

NEXT_ACTIONS: tuple[str, ...] = ("view", "cart", "favourite", "purchase", "leave")
"""What the next-action head predicts, in the order of its columns."""

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

EXPLAINED, REASONS = "explained", "reasons"
OPTIONAL: dict[str, tuple[str, int]] = {EXPLAINED: ("int64", 1), REASONS: ("float32", 3)}
"""The same of the input and the output that a graph may have besides."""


class Tensor(msgspec.Struct, frozen=True):
    """An input or output; a dynamic axis is its name, a fixed one its size."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]


class CalibrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What calibrating the heads did, on the sessions that it was fitted on. It is in the graph already."""

    method: str
    events: int
    """Events of those sessions."""
    before: dict[str, float]
    after: dict[str, float]


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    """How near a quicker graph comes to the exact one, on beginnings of held-out sessions."""

    beginnings: int
    overlap: float
    """Share of the exact graph's best 20 that are among its own best 20."""
    hr: float
    """Its HR@20 less the exact graph's."""
    mrr: float
    """Its MRR@20 less the exact graph's."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json`."""

    format_version: int
    content_hash: str
    """SHA-256 of `model.onnx` then `items.txt`, in hex: see `content_hash`."""
    framework: str
    """What made it, such as `torch 2.13.0`."""
    max_length: int
    """Events that the graph reads at most: the newest ones."""
    every_event: bool = False
    """Whether it reads events on unknown items and on none, too."""
    items: int
    """Rows of `items.txt`."""
    candidates: int
    """Items that the graph returns a session."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    training_data: str = ""
    """Fingerprint and plain description of what it learned from."""
    trained_until: int = 0
    """Event time of the newest event that it learned from, ms; 0 where nobody knows. Judge it on what came later."""
    metrics: dict[str, float] = {}
    """Of the model on sessions that it had not learned from, as they came next; then it may have learned these, too."""
    precision: str = "fp32"
    """What the products with the whole catalogue are made in; where that is not `fp32`, the best are scored in it."""
    fidelity: Fidelity | None = None
    """Where the precision is not `fp32`."""
    calibration: CalibrationReport | None = None
    """Of the probabilities that the graph returns; none where nobody calibrated them."""
    popular: tuple[str, ...] = ()
    """The most popular items of the training data, best first: what a fallback shows before it knows better."""
    lineage: tuple[str, ...] = ()
    """What the model was topped up from with newer sessions, the oldest first; empty where it was trained anew."""

    @property
    def version(self) -> str:
        """The short name that decisions carry."""
        return self.content_hash[:12]


def content_hash(model: bytes, items: bytes) -> str:
    """Return the SHA-256, in hex, of `model.onnx` followed by `items.txt`."""
    return hashlib.sha256(model + items).hexdigest()


decode_manifest = msgspec.json.Decoder(Manifest).decode
encode_manifest = msgspec.json.Encoder(order="deterministic").encode
