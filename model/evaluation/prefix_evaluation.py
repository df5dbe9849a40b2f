"""Prefixes: the test of the literature, every row asked alone: which item follows this beginning of a session?"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from clickscore.model import metrics
from clickscore.model.dataset import read_lines, read_sessions
from clickscore.model.errors import TrainingError
from clickscore.model.evaluation.bootstrap import BootstrapInterval
from clickscore.model.evaluation.ranking_baselines import RankingBaseline, fit_ranking_baselines
from clickscore.model.features import Ints, PaddedBatch, make_examples
from clickscore.model.onnx_runtime import open_graph, run_graph
from clickscore.model.vocabulary import Vocabulary, read_vocabulary
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import decode_manifest

CUTOFFS = (5, 10, 20)
LENGTH_GROUPS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 10), (11, 10**9))
"""Lengths of prefixes, from and to, that are shown by themselves."""
RESAMPLES = 2_000
VIEW = ACTIONS.index("view")


@dataclasses.dataclass(frozen=True)
class Prefix:
    """A row of the test."""

    items: Ints
    """Known rows, the oldest first: (events,)."""
    target: int
    """Row, 0 where it is unknown."""
    length: int
    """Of the whole prefix, unknown items included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankingResult:
    """What one way of ranking reached."""

    name: str
    rows: int
    figures: dict[str, BootstrapInterval]
    """Metrics in percent."""
    by_length: dict[str, dict[str, float]]
    """Rows and metrics by length of the prefix."""


def read_prefixes(path: Path, vocabulary: Vocabulary) -> list[Prefix]:
    """Return the rows of a file: item ids, a tab, the id of the item that follows.

    Raises:
        TrainingError: It cannot be read, or a line of it is something else.
    """
    prefixes: list[Prefix] = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            before, tab, target = line.decode().rstrip("\r\n").partition("\t")
        except UnicodeDecodeError:
            before = tab = target = ""
        items = before.split()
        if not (tab and items and target.strip()):
            message = f"{path}:{number} is no prefix: item ids, a tab, and the id of the item that follows"
            raise TrainingError(message)
        rows = vocabulary.rows(items)
        prefixes.append(Prefix(rows[rows > 0], vocabulary.row(target.strip()), len(items)))
    return prefixes


def evaluate_prefixes(
    bundle: Path, prefixes: Path, sessions: Sequence[Path], tell: Callable[[str, int, int], None]
) -> list[RankingResult]:
    """Return what a bundle reaches on the rows of a file, and what the baselines do.

    Args:
        bundle: Folder; its graph is asked for one row at a time.
        prefixes: File of the rows.
        sessions: Files of the sessions that the baselines count; none are computed where there are none.
        tell: Called with who is asked, how many rows are done, and how many there are.

    Raises:
        TrainingError: A file cannot be read.
    """
    manifest = decode_manifest((bundle / "manifest.json").read_bytes())
    vocabulary = read_vocabulary(bundle / "items.txt")
    rows = read_prefixes(prefixes, vocabulary)
    if manifest.candidates <= max(CUTOFFS) and manifest.candidates < manifest.items:
        message = f"the bundle returns {manifest.candidates} candidates, more than {max(CUTOFFS)} are needed: --top-k"
        raise TrainingError(message)
    popular = {vocabulary.row(item): place for place, item in enumerate(manifest.popular, start=1)}
    graph = open_graph(bundle / "model.onnx")

    def of_bundle(prefix: Prefix) -> int:
        if not len(prefix.items):  # a worker shows what is popular
            return popular.get(prefix.target, metrics.MISS)
        newest = prefix.items[-manifest.max_length :].astype(np.int64)[None]  # (1, L)
        found, scores, _, _ = run_graph(
            graph, PaddedBatch(newest, np.full_like(newest, VIEW), np.array([newest.shape[1]]))
        )
        return rank_target(found[0], scores[0], prefix.target)

    results = [summarise_ranks("bundle", rows, _ranks(of_bundle, rows, "bundle", tell))]
    if sessions:
        seen, _ = read_sessions(sessions)
        of = make_examples(seen, vocabulary.rows(seen.item_ids), max_length=2**31)
        results += [
            summarise_ranks(baseline.name, rows, _ranks(_asking(baseline), rows, baseline.name, tell))
            for baseline in fit_ranking_baselines(of, len(vocabulary) + 1)
        ]
    return results


def rank_target(found: Ints, scores: metrics.Floats, target: int) -> int:
    """Return the place of a target among candidates, all others of the same score before it; a miss where it is none.

    Exact for every place below the number of candidates: an item that is none scores no more than the last of them.
    """
    own = scores[found == target]
    return int((scores >= own[0]).sum()) if len(own) else metrics.MISS


def summarise_ranks(name: str, prefixes: Sequence[Prefix], ranks: Ints) -> RankingResult:
    """Return the metrics of ranks, with their intervals; the order of the rows makes no difference."""
    lengths = np.array([prefix.length for prefix in prefixes])
    by_length: dict[str, dict[str, float]] = {}
    for first, last in LENGTH_GROUPS:
        inside = (lengths >= first) & (lengths <= last)
        if inside.any():
            label = str(first) if first == last else f"{first}-{last}" if last < 10**9 else f"{first}+"
            by_length[label] = {"rows": float(inside.sum())} | _figures(ranks[inside])
    # A draw of rows with replacement is a draw of how often each place occurs
    places, counts = np.unique(np.where(ranks <= max(CUTOFFS), ranks, metrics.MISS), return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(ranks), counts / len(ranks), size=RESAMPLES)  # (draws, places)
    worth = [_figures(np.array([place])) for place in places.tolist()]
    figures: dict[str, BootstrapInterval] = {}
    for metric, value in _figures(ranks).items():
        low, high = np.quantile(draws @ np.array([of[metric] for of in worth]) / len(ranks), (0.025, 0.975))
        figures[metric] = BootstrapInterval(value=value, low=float(low), high=float(high))
    return RankingResult(name=name, rows=len(ranks), figures=figures, by_length=by_length)


def _figures(ranks: Ints) -> dict[str, float]:
    """Return all metrics in percent, summed in order of rank."""
    ranks = np.sort(ranks)
    kinds = {"P": metrics.hit_rate, "MRR": metrics.reciprocal_rank, "NDCG": metrics.ndcg}
    return {f"{name}@{k}": 100 * of(ranks, k) for k in CUTOFFS for name, of in kinds.items()}


def _asking(baseline: RankingBaseline) -> Callable[[Prefix], int]:
    def of_baseline(prefix: Prefix) -> int:
        scores = baseline.scores(prefix.items)
        own = scores[prefix.target]
        return int((scores[1:] >= own).sum()) if prefix.target and own > 0 else metrics.MISS

    return of_baseline


def _ranks(
    ask: Callable[[Prefix], int], prefixes: Sequence[Prefix], name: str, tell: Callable[[str, int, int], None]
) -> Ints:
    return np.fromiter(_told(ask, prefixes, name, tell), dtype=np.int64, count=len(prefixes))


def _told(
    ask: Callable[[Prefix], int], prefixes: Sequence[Prefix], name: str, tell: Callable[[str, int, int], None]
) -> Iterator[int]:
    for done, prefix in enumerate(prefixes, start=1):
        yield ask(prefix)
        if done % 100 == 0 or done == len(prefixes):
            tell(name, done, len(prefixes))
