"""Quantisation check: measure the loss of a quantised graph against the fp32 graph, on the same session prefixes.

Every export of a quantised graph runs this check and writes the result into the manifest, field `fidelity`. A worker
refuses a bundle with an overlap below the setting `min_overlap`.
"""

import numpy as np
import onnxruntime as ort

from clickscore.export.errors import ExportError
from clickscore.export.probes import (
    INVARIANCE_STEP,
    batch_invariant,
    run_with_reasons,
    stratified_sample,
    with_unknown_events,
)
from clickscore.model.examples import NO_NEXT_ITEM, Examples
from clickscore.model.metrics import hit_rate, reciprocal_rank
from clickscore.model.onnx_runtime import run_graph
from clickscore.model.training_batches import pad_prefixes
from clickscore.schemas.manifest import Fidelity

TOP_K = 20
"""Length of the compared rankings, as in the metrics HR@20 and MRR@20 of training."""
FIDELITY_PREFIXES = 10_000
"""10,000 prefixes with 20 items each: the standard error of an overlap near 0.999 is below 0.0001."""


def measure_fidelity(
    quantised: ort.InferenceSession,
    exact: ort.InferenceSession,
    examples: Examples,
    *,
    every_event: bool,
    limit: int = FIDELITY_PREFIXES,
) -> Fidelity:
    """Return the overlap of both rankings, and the change of HR@20 and MRR@20 by quantisation.

    Args:
        quantised: Graph whose shortlist comes from 8-bit products.
        exact: The same model's fp32 graph.
        examples: Held-out sessions.
        every_event: Whether the graphs also read searches and events on unknown items.
        limit: Largest number of prefixes to compare.

    Raises:
        ExportError: The quantised graph is not batch-invariant.
    """
    overlaps: list[np.ndarray] = []
    quantised_ranks: list[np.ndarray] = []
    exact_ranks: list[np.ndarray] = []
    for events in stratified_sample(examples, limit):
        prefixes = pad_prefixes(examples, events)
        batch = with_unknown_events(prefixes) if every_event else prefixes
        outputs = run_with_reasons(quantised, batch)
        if not all(batch_invariant(quantised, batch, outputs, row) for row in range(0, len(events), INVARIANCE_STEP)):
            message = (
                "the quantised graph is not batch-invariant: a session alone gets other bits than in a batch. "
                "No bundle was written; export with --precision fp32"
            )
            raise ExportError(message)
        quantised_rows, exact_rows = outputs[0][:, :TOP_K], run_graph(exact, batch)[0][:, :TOP_K]  # (batch, 20) each
        # overlap = |top-20 quantised intersect top-20 exact| / 20, of each prefix
        overlaps.append((exact_rows[:, :, None] == quantised_rows[:, None]).any(axis=2).mean(axis=1))
        next_items = examples.next_item[events]  # (batch,)
        quantised_ranks.append(_rank_items(quantised_rows, next_items))
        exact_ranks.append(_rank_items(exact_rows, next_items))
    by_quantised, by_exact = np.concatenate(quantised_ranks), np.concatenate(exact_ranks)
    return Fidelity(
        beginnings=sum(map(len, overlaps)),
        overlap=round(float(np.concatenate(overlaps).mean()), 6),
        hr=round(hit_rate(by_quantised, TOP_K) - hit_rate(by_exact, TOP_K), 6),
        mrr=round(reciprocal_rank(by_quantised, TOP_K) - reciprocal_rank(by_exact, TOP_K), 6),
    )


def _rank_items(ranking: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return each next item's rank from 1, 0 for a miss; prefixes without a next item are left out.

    Args:
        ranking: Recommended rows, best first: (batch, 20).
        items: Rows of the next items: (batch,).
    """
    hits = ranking == items[:, None]  # (batch, 20)
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)
    return ranks[items != NO_NEXT_ITEM]
