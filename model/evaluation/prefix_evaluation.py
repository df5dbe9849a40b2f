"""Prefix evaluation: next-item metrics after given prefixes of sessions, for a bundle and the ranking baselines."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from clickscore.model import metrics
from clickscore.model.array_types import Ints
from clickscore.model.errors import DataError, TrainingError
from clickscore.model.evaluation.bootstrap import BootstrapInterval
from clickscore.model.evaluation.ranking_baselines import RankingBaseline, fit_ranking_baselines
from clickscore.model.examples import VIEW, make_examples
from clickscore.model.onnx_runtime import run_graph
from clickscore.model.open_bundle import open_bundle
from clickscore.model.session_files import read_lines, read_sessions
from clickscore.model.training_batches import PaddedBatch
from clickscore.model.vocabulary import Vocabulary

CUTOFFS = (5, 10, 20)
"""Ranking lengths of the metrics."""
NO_LIMIT = 10**9
"""Length beyond every prefix."""
LENGTH_GROUPS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 10), (11, NO_LIMIT))
"""Prefix lengths, from and to, with metrics of their own."""
RESAMPLES = 2_000
"""Bootstrap resamples: cheap, because a resample is a draw of counts and not of rows."""
PROGRESS_ROWS = 100
"""Rows between two reports of progress."""
WHOLE_SESSION = 2**31
"""Maximal length for the baselines' sessions: no event is cut."""


@dataclasses.dataclass(frozen=True)
class Prefix:
    """A row of the test: the first events of a session, and the next item."""

    items: Ints
    """Rows of the known items, the oldest first: (events,)."""
    target: int
    """Row of the next item, 0 if unknown."""
    length: int
    """Events of the prefix, unknown items included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankingResult:
    """Metrics of a ranking method."""

    name: str
    rows: int
    figures: dict[str, BootstrapInterval]
    """Metrics in percent."""
    by_length: dict[str, dict[str, float]]
    """Number of rows and metrics in percent by prefix length."""


def read_prefixes(path: Path, vocabulary: Vocabulary) -> list[Prefix]:
    """Return the rows of a file; a line has item ids, a tab, and the id of the next item.

    Raises:
        DataError: The file cannot be read, a line has another form, or there is no line.
    """
    prefixes: list[Prefix] = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            prefix, tab, target = line.decode().rstrip("\r\n").partition("\t")
        except UnicodeDecodeError:
            prefix = tab = target = ""
        items = prefix.split()
        if not (tab and items and target.strip()):
            message = f"{path}:{number} is not a prefix: a line needs item ids, a tab, and the id of the next item"
            raise DataError(message)
        rows = vocabulary.rows(items)
        prefixes.append(Prefix(rows[rows > 0], vocabulary.row(target.strip()), len(items)))
    if not prefixes:
        message = f"{path} holds no prefix: a line needs item ids, a tab, and the id of the next item"
        raise DataError(message)
    return prefixes


def evaluate_prefixes(
    bundle: Path, prefixes: Path, sessions: Sequence[Path], on_progress: Callable[[str, int, int], None]
) -> list[RankingResult]:
    """Return the metrics of a bundle, and of the baselines if training sessions are given.

    Args:
        bundle: Folder of the bundle; the graph scores each row alone.
        prefixes: File of the rows.
        sessions: Files of the training sessions, for the baselines; may be empty.
        on_progress: Called with the name of the ranking method, the number of finished rows, and the number of rows.

    Raises:
        DataError: A file cannot be read.
        TrainingError: The bundle is broken, or returns too few candidates.
    """
    manifest, vocabulary, graph = open_bundle(bundle)
    rows = read_prefixes(prefixes, vocabulary)
    if manifest.candidates <= max(CUTOFFS) and manifest.candidates < manifest.items:
        message = (
            f"the bundle returns {manifest.candidates} candidates, but the metrics need more than {max(CUTOFFS)}: "
            "export it with a larger --top-k"
        )
        raise TrainingError(message)
    popular_ranks = {vocabulary.row(item): rank for rank, item in enumerate(manifest.popular, start=1)}

    def rank_by_bundle(prefix: Prefix) -> int:
        if not len(prefix.items):  # the worker's fallback: popular items
            return popular_ranks.get(prefix.target, metrics.MISS)
        newest = prefix.items[-manifest.max_length :].astype(np.int64)[None]  # (1, L)
        batch = PaddedBatch(newest, np.full_like(newest, VIEW), np.array([newest.shape[1]]))
        candidates, scores, _, _ = run_graph(graph, batch)
        return rank_target(candidates[0], scores[0], prefix.target)

    results = [summarise_ranks("bundle", rows, _rank_all(rank_by_bundle, rows, "bundle", on_progress))]
    if sessions:
        training, _ = read_sessions(sessions)
        examples = make_examples(training, vocabulary.rows(training.item_ids), max_length=WHOLE_SESSION)
        results += [
            summarise_ranks(baseline.name, rows, _rank_all(_rank_by(baseline), rows, baseline.name, on_progress))
            for baseline in fit_ranking_baselines(examples, len(vocabulary) + 1)
        ]
    return results


def rank_target(candidates: Ints, scores: metrics.Floats, target: int) -> int:
    """Return the rank of a target among candidates, behind all of an equal score, or `metrics.MISS`.

    Every rank below the number of candidates is exact: no other item scores higher than the last candidate.

    Args:
        candidates: Rows of the candidates: (candidates,).
        scores: Scores of the candidates: (candidates,).
        target: Row of the target.
    """
    target_score = scores[candidates == target]
    return int((scores >= target_score[0]).sum()) if len(target_score) else metrics.MISS


def summarise_ranks(name: str, prefixes: Sequence[Prefix], ranks: Ints) -> RankingResult:
    """Return the metrics of ranks with bootstrap intervals; the order of the rows has no influence.

    Args:
        name: Name of the ranking method.
        prefixes: Rows of the test.
        ranks: Rank of each row's target, or `metrics.MISS`: (rows,).
    """
    lengths = np.array([prefix.length for prefix in prefixes])
    by_length: dict[str, dict[str, float]] = {}
    for first, last in LENGTH_GROUPS:
        inside = (lengths >= first) & (lengths <= last)
        if inside.any():
            label = str(first) if first == last else f"{first}-{last}" if last < NO_LIMIT else f"{first}+"
            by_length[label] = {"rows": float(inside.sum())} | _compute_metrics(ranks[inside])
    # To draw n rows with replacement is to draw how often each distinct rank occurs: a multinomial distribution
    distinct, counts = np.unique(np.where(ranks <= max(CUTOFFS), ranks, metrics.MISS), return_counts=True)
    resamples = np.random.default_rng(0).multinomial(len(ranks), counts / len(ranks), size=RESAMPLES)  # (draws, ranks)
    rank_metrics = [_compute_metrics(np.array([rank])) for rank in distinct.tolist()]
    figures: dict[str, BootstrapInterval] = {}
    for metric, value in _compute_metrics(ranks).items():
        values = np.array([of_rank[metric] for of_rank in rank_metrics])  # (ranks,)
        low, high = np.quantile(resamples @ values / len(ranks), (0.025, 0.975))
        figures[metric] = BootstrapInterval(value=value, low=float(low), high=float(high))
    return RankingResult(name=name, rows=len(ranks), figures=figures, by_length=by_length)


def _compute_metrics(ranks: Ints) -> dict[str, float]:
    """Return all metrics in percent. The ranks are sorted first, so sums do not depend on the order of the rows."""
    ranks = np.sort(ranks)
    functions = {"P": metrics.hit_rate, "MRR": metrics.reciprocal_rank, "NDCG": metrics.ndcg}
    return {f"{name}@{k}": 100 * function(ranks, k) for k in CUTOFFS for name, function in functions.items()}


def _rank_by(baseline: RankingBaseline) -> Callable[[Prefix], int]:
    def rank_by_baseline(prefix: Prefix) -> int:
        scores = baseline.scores(prefix.items)  # (V,)
        target_score = scores[prefix.target]
        return int((scores[1:] >= target_score).sum()) if prefix.target and target_score > 0 else metrics.MISS

    return rank_by_baseline


def _rank_all(
    rank: Callable[[Prefix], int],
    prefixes: Sequence[Prefix],
    name: str,
    on_progress: Callable[[str, int, int], None],
) -> Ints:
    """Return the rank of each row's target: (rows,)."""

    def iterate_ranks() -> Iterator[int]:
        for done, prefix in enumerate(prefixes, start=1):
            yield rank(prefix)
            if done % PROGRESS_ROWS == 0 or done == len(prefixes):
                on_progress(name, done, len(prefixes))

    return np.fromiter(iterate_ranks(), dtype=np.int64, count=len(prefixes))
