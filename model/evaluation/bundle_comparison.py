"""Bundle comparison: two bundles on the same later sessions, with intervals of their differences over sessions.

Each prefix of each session is a row, fed as a worker feeds the graph. A bundle that knows no item of the prefix answers
with its popular items, as a worker does.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from clickscore.model import metrics
from clickscore.model.array_types import Floats, Ints, Longs
from clickscore.model.bundle_heads import batch_prefixes
from clickscore.model.errors import DataError
from clickscore.model.evaluation.bootstrap import BootstrapInterval
from clickscore.model.examples import REMOVAL
from clickscore.model.onnx_runtime import run_graph
from clickscore.model.open_bundle import open_bundle
from clickscore.model.prefix_features import make_full_sessions, mark_purchased
from clickscore.model.session_arrays import NO_ITEM, Sessions, find_next
from clickscore.model.session_files import read_sessions

CUTOFF = 20
"""Ranking length of the metrics, as in the other metrics of a training."""
RESAMPLES = 1_000
"""Bootstrap resamples of the sessions."""
MEASURES = (f"hit_rate@{CUTOFF}", f"mrr@{CUTOFF}", "purchase_log_loss")
"""Compared measures; of the last one, smaller values are better."""
LOWER_IS_BETTER = frozenset({"purchase_log_loss"})


class MeasuredDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A measure of two bundles."""

    champion: float
    challenger: float
    difference: BootstrapInterval
    """The challenger's value minus the champion's, with its 95 % interval over sessions."""

    def relative(self) -> float:
        """Return the difference as a share of the champion's value; 0 where this value is 0."""
        return self.difference.value / self.champion if self.champion else 0.0


class BundleComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two bundles on the same sessions."""

    sessions: int
    ranked_events: int
    """Number of events that another item follows."""
    measures: dict[str, MeasuredDifference]
    """By name of `MEASURES`; a measure without a row is left out."""


def compare_bundles(champion: Path, challenger: Path, files: Sequence[Path], limit: int) -> BundleComparison:
    """Return how two bundles do on the newest sessions of files that neither was trained on.

    Args:
        champion: Folder of the bundle that decides today.
        challenger: Folder of the bundle to try.
        files: Files of closed sessions.
        limit: Number of sessions, at most: the newest.

    Raises:
        DataError: A file cannot be read, or there is no session.
        TrainingError: A bundle is broken.
    """
    sessions, _ = read_sessions(files)
    if not len(sessions):
        message = "there is no session to compare the bundles on"
        raise DataError(message)
    sessions = sessions.select(np.arange(len(sessions))[-limit:])
    session_index = np.repeat(np.arange(len(sessions)), np.diff(sessions.starts))  # (events,)
    next_event = _find_next_item(sessions)  # (events,)
    ranked = np.flatnonzero(next_event >= 0)
    usual, new = (_measure_bundle(folder, sessions, next_event) for folder in (champion, challenger))
    measured_rows = dict.fromkeys(MEASURES[:2], ranked) | {"purchase_log_loss": usual.unpurchased}
    resampler = np.random.default_rng(0)
    draws = resampler.multinomial(len(sessions), np.full(len(sessions), 1 / len(sessions)), size=RESAMPLES)
    measures = {
        name: _compare(usual.values[name][rows], new.values[name][rows], session_index[rows], draws)
        for name, rows in measured_rows.items()
        if len(rows)
    }
    return BundleComparison(sessions=len(sessions), ranked_events=len(ranked), measures=measures)


class _BundleValues(msgspec.Struct, frozen=True):
    """Value of each measure at each event."""

    values: dict[str, Floats]
    """By name of `MEASURES`: (events,)."""
    unpurchased: Longs
    """Events without a purchase up to them: (k,)."""


def _find_next_item(sessions: Sessions) -> Longs:
    """Return the index of the next event on an item, -1 where none follows: (events,)."""
    ends = np.repeat(sessions.starts[1:], np.diff(sessions.starts))  # (events,)
    return find_next((sessions.items != NO_ITEM) & (sessions.actions != REMOVAL), ends)


def _measure_bundle(folder: Path, sessions: Sessions, next_event: Longs) -> _BundleValues:
    """Return the measures of a bundle at each event.

    Args:
        folder: Folder of the bundle.
        sessions: Sessions to measure on.
        next_event: Index of the next event on an item, -1 where none follows: (events,).
    """
    manifest, vocabulary, graph = open_bundle(folder)
    full = make_full_sessions(sessions, vocabulary.rows(sessions.item_ids))
    targets = np.where(next_event >= 0, full.items[next_event], 0)  # (events,), below 1 for an unknown item
    popular = vocabulary.rows(list(manifest.popular))
    ranks = _rank_in(popular, targets)
    purchase = np.full(len(targets), full.purchase.mean())  # the base rate stands in where the graph has no answer
    for rows, batch in batch_prefixes(manifest, full, np.arange(len(targets))):
        candidates, scores, _, purchase[rows] = run_graph(graph, batch)
        is_target = (candidates == targets[rows][:, None]) & (candidates > 0)  # (batch, candidates)
        score = np.where(is_target, scores, np.inf).min(axis=1, keepdims=True)  # inf for a target that is no candidate
        ranks[rows] = np.where(is_target.any(axis=1), (scores >= score).sum(axis=1), metrics.MISS)
    is_hit = (ranks != metrics.MISS) & (ranks <= CUTOFF)
    outcome = full.purchase.astype(np.float64)
    probability = purchase.clip(1e-7, 1 - 1e-7)
    return _BundleValues(
        {
            MEASURES[0]: is_hit.astype(np.float64),
            MEASURES[1]: np.where(is_hit, 1 / np.maximum(ranks, 1), 0.0),
            MEASURES[2]: -np.where(outcome > 0, np.log(probability), np.log1p(-probability)),
        },
        np.flatnonzero(~mark_purchased(full)),
    )


def _rank_in(ranking: Ints, targets: Ints) -> Ints:
    """Return the rank of each target in a fixed ranking, or `metrics.MISS`: (n,)."""
    ranks = np.full(len(targets), metrics.MISS)
    for rank, row in enumerate(ranking.tolist(), start=1):
        if row > 0:
            ranks[(targets == row) & (ranks == metrics.MISS)] = rank
    return ranks


def _compare(champion: Floats, challenger: Floats, session_index: Ints, draws: Ints) -> MeasuredDifference:
    """Return a measure of two bundles; a bootstrap over sessions gives the interval of the difference.

    Args:
        champion: Value of each row: (n,).
        challenger: The same of the other bundle: (n,).
        session_index: Session of each row: (n,).
        draws: How often each resample draws each session: (resamples, sessions).
    """
    count = draws.shape[1]
    rows = np.bincount(session_index, minlength=count)  # (sessions,)
    gains = np.bincount(session_index, challenger - champion, minlength=count)  # (sessions,)
    low, high = np.quantile((draws @ gains) / (draws @ rows).clip(min=1), (0.025, 0.975))
    difference = float((challenger - champion).mean())
    return MeasuredDifference(
        champion=float(champion.mean()),
        challenger=float(challenger.mean()),
        difference=BootstrapInterval(value=difference, low=float(low), high=float(high)),
    )
