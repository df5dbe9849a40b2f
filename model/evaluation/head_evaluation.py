"""Heads: how well next action and purchase are told after 1, 2, 3, 5 and 10 events, beside what others reach.

Rows are the beginnings of sessions that have no purchase yet: after one, an order of several items would foretell
itself. A session has one row at most for each number of events, and every row is asked alone.
"""

# pyright: standard
# scikit-learn leaves parts of what it returns untyped.

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from clickscore.model import metrics
from clickscore.model.calibration import Probabilities
from clickscore.model.catalogue_items import read_catalogue
from clickscore.model.dataset import read_session_ids, read_sessions
from clickscore.model.errors import TrainingError
from clickscore.model.evaluation.bootstrap import BootstrapInterval
from clickscore.model.evaluation.ground_truth import TruthError, compute_truth_error, read_ground_truth
from clickscore.model.evaluation.head_baselines import HeadPredictor, fit_head_baselines
from clickscore.model.features import PURCHASE, Ints, Longs
from clickscore.model.metrics import Floats
from clickscore.model.onnx_runtime import open_graph, run_graph
from clickscore.model.prefix_features import EventBatch, FullSessions, make_full_sessions, make_item_attributes
from clickscore.model.vocabulary import Vocabulary, read_vocabulary
from clickscore.schemas.manifest import Manifest, decode_manifest

PREFIX_LENGTHS = (1, 2, 3, 5, 10)
"""Events of a beginning."""
BATCH = 64
RESAMPLES = 500
REFERENCE_MODEL = "LightGBM"
"""What the bundle's difference is shown to."""


class HeadMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What one model reaches on some rows."""

    pr_auc: float
    roc_auc: float
    log_loss: float
    brier: float
    calibration_error: float
    """Over 15 bins of equal mass."""
    calibration_noise: float
    """What that would be on average if every probability were right: the least that so many rows can show."""
    next_action_f1: float
    """Mean over the actions that come."""
    next_action_log_loss: float


class PrefixLengthResults(msgspec.Struct, frozen=True, kw_only=True):
    """Results after a number of events."""

    events: int
    """0 for all of these rows together."""
    rows: int
    base_rate: float
    """Share of the rows that a purchase follows: the PR-AUC of chance."""
    models: dict[str, HeadMetrics]
    lead: BootstrapInterval
    """PR-AUC of the bundle less that of LightGBM."""
    nearness: dict[str, TruthError]
    """Of each model to the truth, where it is known."""


class HeadResults(msgspec.Struct, frozen=True, kw_only=True):
    """What `clickscore evaluate-events` writes."""

    bundle: str
    training_sessions: int
    test_sessions: int
    unanswered: float
    """Share of the rows that the bundle has no answer to, since it knows no item of theirs: the base rate stands in."""
    by_events: tuple[PrefixLengthResults, ...]


class BundleHeads:
    """A bundle's graph, fed as a worker feeds it; where it cannot speak, the shares of the training sessions."""

    name = "bundle"

    def __init__(self, graph: ort.InferenceSession, manifest: Manifest, silent: HeadPredictor) -> None:
        self._graph, self._manifest, self._silent = graph, manifest, silent

    def say(self, of: FullSessions, at: Longs) -> Probabilities:
        """Return what the graph says."""
        said = Probabilities(*(part.astype(np.float64) for part in self._silent.say(of, at)))
        for some, batch in self._batches(of, at):
            _, _, said.next_action[some], said.purchase[some] = run_graph(self._graph, batch)
        return said

    def unanswered(self, of: FullSessions, at: Longs) -> float:
        """Return the share of rows that it cannot speak to."""
        return 1 - sum(len(some) for some, _ in self._batches(of, at)) / len(at)

    def _batches(self, of: FullSessions, at: Longs) -> Iterator[tuple[Ints, EventBatch]]:
        """Yield rows that can be answered, those of one length together, so that none is padded."""
        first = of.starts[np.searchsorted(of.starts, at, side="right") - 1]
        read = of.items > 0 if not self._manifest.every_event else np.ones(len(of.items), dtype=bool)
        events: list[Longs] = []
        for begin, end in zip(first.tolist(), at.tolist(), strict=True):
            events.append(begin + np.flatnonzero(read[begin : end + 1])[-self._manifest.max_length :])
        lengths = np.array([len(some) for some in events])
        for length in np.unique(lengths[lengths > 0]).tolist():
            same = np.flatnonzero(lengths == length)
            for start in range(0, len(same), BATCH):
                some = same[start : start + BATCH]
                where = np.stack([events[row] for row in some])  # (rows, length)
                actions, lasting = of.actions[where].astype(np.int64), np.full(len(some), length)
                yield some, EventBatch(of.items[where], actions, of.ages[where], lasting)


def evaluate_heads(
    bundle: Path,
    sessions: Sequence[Path],
    test: Sequence[Path],
    tell: Callable[[str], None],
    *,
    items: Path | None = None,
    truth: Path | None = None,
) -> HeadResults:
    """Return what a bundle's heads reach on sessions that it has not seen, and what the baselines do.

    Args:
        bundle: Folder.
        sessions: Files of the sessions that the bundle learned from: the baselines learn from them.
        test: Files of later sessions, or of other users.
        tell: Called with what is being done.
        items: File of catalogue items, for prices and categories.
        truth: File of the true probabilities, of a simulation's test.

    Raises:
        TrainingError: A file cannot be read, the test is part of the training, or has nothing to judge by.
    """
    manifest = decode_manifest((bundle / "manifest.json").read_bytes())
    _refuse_overlap(sessions, test)
    (learned, _), (judged, _) = read_sessions(sessions), read_sessions(test)
    if not len(learned) or not len(judged):
        message = "there is no session to learn from, or none to judge by"
        raise TrainingError(message)
    truths = read_ground_truth(truth, test) if truth else None

    tell("fitting the baselines")
    vocabulary = Vocabulary(learned.item_ids)
    of = make_full_sessions(learned, vocabulary.rows(learned.item_ids))
    facts = make_item_attributes(vocabulary.items, read_catalogue(items))
    baselines = fit_head_baselines(of, np.flatnonzero(~mark_purchased(of)), facts)
    known = read_vocabulary(bundle / "items.txt")
    served = BundleHeads(open_graph(bundle / "model.onnx"), manifest, baselines[0])
    models: list[tuple[HeadPredictor, FullSessions]] = [
        (served, make_full_sessions(judged, known.rows(judged.item_ids)))
    ]
    models += [(baseline, make_full_sessions(judged, vocabulary.rows(judged.item_ids))) for baseline in baselines]
    return HeadResults(
        bundle=manifest.version,
        training_sessions=len(learned),
        test_sessions=len(judged),
        unanswered=served.unanswered(models[0][1], select_all_rows(models[0][1])),
        by_events=compare_heads(models, tell, truths),
    )


def compare_heads(
    models: Sequence[tuple[HeadPredictor, FullSessions]], tell: Callable[[str], None], truths: Floats | None = None
) -> tuple[PrefixLengthResults, ...]:
    """Return the figures of models, each over its own reading of the same sessions, the bundle's first.

    Args:
        models: With the sessions.
        tell: Called with what is being done.
        truths: The true probability of a purchase after each event, where it is known: (events,).
    """
    of = models[0][1]
    rows = [select_rows(of, events) for events in PREFIX_LENGTHS]
    every = np.concatenate(rows)
    said: dict[str, Probabilities] = {}
    for model, reading in models:
        tell(f"asking {model.name}")
        said[model.name] = model.say(reading, every)
    results: list[PrefixLengthResults] = []
    starts = np.cumsum([0, *(len(at) for at in rows)]).tolist()
    parts = [(0, slice(0, len(every)))]
    parts += [(events, slice(*starts[place : place + 2])) for place, events in enumerate(PREFIX_LENGTHS)]
    for events, part in parts:
        bought, came = of.purchase[every[part]].astype(np.int64), of.next_action[every[part]]
        if not 0 < bought.sum() < len(bought):
            continue
        tell(f"measuring {len(bought):,} rows")
        of_models = {name: Probabilities(*(values[part] for values in every_said)) for name, every_said in said.items()}
        results.append(
            PrefixLengthResults(
                events=events,
                rows=len(bought),
                base_rate=float(bought.mean()),
                models={name: compute_head_metrics(of_model, came, bought) for name, of_model in of_models.items()},
                lead=_lead(of_models["bundle"].purchase, of_models[REFERENCE_MODEL].purchase, bought),
                nearness={
                    name: compute_truth_error(of_model.purchase, truths[every[part]], bought)
                    for name, of_model in of_models.items()
                    if truths is not None
                },
            )
        )
    return tuple(results)


def compute_head_metrics(said: Probabilities, next_action: Ints, purchase: Ints) -> HeadMetrics:
    """Return the figures of what was said, beside what came: (rows,) each."""
    came = np.unique(next_action)
    return HeadMetrics(
        pr_auc=float(average_precision_score(purchase, said.purchase)),
        roc_auc=float(roc_auc_score(purchase, said.purchase)),
        log_loss=float(log_loss(purchase, said.purchase.clip(metrics.MIN_PROBABILITY, 1 - metrics.MIN_PROBABILITY))),
        brier=float(brier_score_loss(purchase, said.purchase)),
        calibration_error=metrics.calibration_error(said.purchase, purchase),
        calibration_noise=estimate_calibration_noise(said.purchase),
        next_action_f1=float(f1_score(next_action, said.next_action.argmax(axis=1), labels=came, average="macro")),
        next_action_log_loss=metrics.log_loss(said.next_action, next_action),
    )


def estimate_calibration_noise(purchase: Floats, draws: int = 100) -> float:
    """Return the mean calibration error over outcomes that are drawn by the probabilities themselves: (rows,)."""
    rng = np.random.default_rng(0)
    drawn = (rng.random((draws, len(purchase))) < purchase).astype(np.int64)  # (draws, rows)
    return float(np.mean([metrics.calibration_error(purchase, happened) for happened in drawn]))


def select_rows(of: FullSessions, events: int) -> Longs:
    """Return the last events of the beginnings of so many events, in sessions that go that far without a purchase."""
    at = of.starts[:-1] + events - 1
    at = at[at < of.starts[1:]]
    return at[~(mark_purchased(of) | (of.actions == PURCHASE))[at]]


def select_all_rows(of: FullSessions) -> Longs:
    """Return the last events of all beginnings that are judged, those of one number of events after another."""
    return np.concatenate([select_rows(of, events) for events in PREFIX_LENGTHS])


def mark_purchased(of: FullSessions) -> npt.NDArray[np.bool_]:
    """Return after which events something has been bought in the session, these included: (events,)."""
    bought = np.concatenate(([0], np.cumsum(of.actions == PURCHASE)))
    return bought[1:] > np.repeat(bought[of.starts[:-1]], np.diff(of.starts))


def _lead(ours: Floats, theirs: Floats, purchase: Ints) -> BootstrapInterval:
    """Return how much higher our PR-AUC is, both on the same draws of rows."""
    rng = np.random.default_rng(0)
    drawn: list[float] = []
    for _ in range(RESAMPLES):
        some = rng.integers(len(purchase), size=len(purchase))
        drawn.append(metrics.pr_auc(ours[some], purchase[some]) - metrics.pr_auc(theirs[some], purchase[some]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return BootstrapInterval(
        value=metrics.pr_auc(ours, purchase) - metrics.pr_auc(theirs, purchase), low=float(low), high=float(high)
    )


def _refuse_overlap(sessions: Sequence[Path], test: Sequence[Path]) -> None:
    learned, judged = ({name for path in files for name in read_session_ids(path)} for files in (sessions, test))
    if shared := len(learned & judged):
        message = f"{shared:,} sessions of the test are among those for training: split them first (clickscore split)"
        raise TrainingError(message)
