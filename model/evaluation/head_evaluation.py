"""Head evaluation: a bundle's next-action and purchase probabilities against baselines, after 1, 2, 3, 5 and 10 events.

A row is a prefix of a session without a purchase so far: after a purchase, the further purchases of the order would be
trivial to predict. A session has at most a single row for each prefix length. The bundle scores each row alone.
"""

# pyright: standard
# scikit-learn does not type all of its results.

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from clickscore.model import metrics
from clickscore.model.array_types import Floats, Ints, Longs
from clickscore.model.bundle_heads import batch_prefixes, run_heads
from clickscore.model.calibration import MIN_CALIBRATION_SESSIONS, Calibration, Probabilities
from clickscore.model.errors import DataError
from clickscore.model.evaluation.bootstrap import BootstrapInterval
from clickscore.model.evaluation.ground_truth import TruthError, compute_truth_error, read_ground_truth
from clickscore.model.evaluation.head_baselines import BaseRate, HeadPredictor, fit_head_baselines
from clickscore.model.examples import PURCHASE
from clickscore.model.item_attributes import read_catalogue
from clickscore.model.level import correct_level, fit_level
from clickscore.model.open_bundle import open_bundle
from clickscore.model.prefix_features import FullSessions, make_full_sessions, make_item_attributes, mark_purchased
from clickscore.model.refit import Refit, fit_refit
from clickscore.model.session_files import read_session_keys, read_sessions
from clickscore.model.vocabulary import Vocabulary
from clickscore.schemas.manifest import Manifest

PREFIX_LENGTHS = (1, 2, 3, 5, 10)
"""Lengths of the judged prefixes, in events."""
LEAD_RESAMPLES = 500
"""Bootstrap resamples of the PR-AUC difference; each sorts all rows twice."""
NOISE_DRAWS = 100
"""Simulated sets of outcomes for the calibration noise."""
REFERENCE_MODEL = "LightGBM"
"""Baseline to compare the bundle's PR-AUC with."""


class HeadMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics of a model on some rows."""

    pr_auc: float
    roc_auc: float
    log_loss: float
    brier: float
    calibration_error: float
    """Expected calibration error (ECE) of the purchase probability over 15 bins of equal mass."""
    calibration_noise: float
    """Mean ECE if every probability were right: the smallest ECE to expect from so many rows."""
    next_action_f1: float
    """F1 of the next action, averaged over the classes that occur."""
    next_action_log_loss: float


class PrefixLengthResults(msgspec.Struct, frozen=True, kw_only=True):
    """Results after a number of events."""

    events: int
    """Events of the prefixes; 0 for the rows of all lengths together."""
    rows: int
    base_rate: float
    """Share of rows with a later purchase, the PR-AUC of chance."""
    models: dict[str, HeadMetrics]
    lead: BootstrapInterval
    """PR-AUC of the bundle minus the PR-AUC of LightGBM."""
    truth_errors: dict[str, TruthError] = msgspec.field(name="nearness")
    """Errors of each model against the true probabilities; empty if they are unknown."""


class HeadResults(msgspec.Struct, frozen=True, kw_only=True):
    """Results of `clickscore evaluate-events`."""

    bundle: str
    training_sessions: int
    test_sessions: int
    fallback_share: float = msgspec.field(name="unanswered")
    """Share of rows without a known item, for which the base rate stands in."""
    by_events: tuple[PrefixLengthResults, ...]
    hidden_share: float = 0.0
    """Share of the bundle's items that were hidden."""


class BundleHeads:
    """A bundle's graph, fed as a worker feeds the graph, with a fallback for prefixes without a known item."""

    def __init__(
        self,
        graph: ort.InferenceSession,
        manifest: Manifest,
        fallback: HeadPredictor,
        correction: Calibration | None = None,
        refit: Refit | None = None,
    ) -> None:
        """Build the heads.

        Args:
            graph: Graph of the bundle.
            manifest: Manifest of the bundle.
            fallback: Answers in place of the graph.
            correction: Correction of the graph's level on recent sessions, as `clickscore recalibrate` makes it.
            refit: Stack of the recent sessions, as `clickscore recalibrate --refit` makes it.
        """
        self.name = "bundle, refitted" if refit else "bundle" if correction is None else "bundle, recalibrated"
        """Name in the results."""
        self.graph = graph
        """Graph of the bundle."""
        self._manifest, self._fallback = manifest, fallback
        self._correction, self._refit = correction, refit

    def predict(self, sessions: FullSessions, ends: Longs) -> Probabilities:
        """Return the graph's probabilities, or the fallback's for prefixes without a known item."""
        predicted = Probabilities(*(part.astype(np.float64) for part in self._fallback.predict(sessions, ends)))
        rows, answers = run_heads(self.graph, self._manifest, sessions, ends)
        if self._correction is not None:
            answers = correct_level(answers, self._correction)
        if self._refit is not None:
            stack_logits = self._refit.stack.logits_after(sessions, ends[rows], self._manifest.max_length)
            answers = self._refit.replace(answers, stack_logits)
        predicted.next_action[rows], predicted.purchase[rows] = answers
        return predicted

    def fallback_share(self, sessions: FullSessions, ends: Longs) -> float:
        """Return the share of prefixes without a known item."""
        return 1 - sum(len(rows) for rows, _ in batch_prefixes(self._manifest, sessions, ends)) / len(ends)


def evaluate_heads(
    bundle: Path,
    sessions: Sequence[Path],
    test: Sequence[Path],
    on_step: Callable[[str], None],
    *,
    items: Path | None = None,
    truth: Path | None = None,
    recent: Sequence[Path] = (),
    hidden_share: float = 0.0,
) -> HeadResults:
    """Return the metrics of a bundle's heads and of the baselines on test sessions, which no model was trained on.

    Args:
        bundle: Folder of the bundle.
        sessions: Files of the bundle's training sessions; the baselines are fitted on the same files.
        test: Files of later sessions, of other users, or of another shop.
        on_step: Called with the name of each step.
        items: File of catalogue items, for prices and categories.
        truth: File of the true probabilities, for a simulated test.
        recent: Files of sessions of the test's shop from before the test: the bundle is recalibrated on them, and base
            rate and LightGBM are fitted on them as well.
        hidden_share: Share of the bundle's items that become unknown to the bundle and to the baselines.

    Raises:
        DataError: A file cannot be read, the test overlaps with other sessions, a set is empty, no row of the test or
            every row has a later purchase, a set is too small for the baselines, or the bundle is recalibrated already.
        TrainingError: The bundle is broken.
    """
    manifest, bundle_items, graph = open_bundle(bundle)
    if recent and manifest.level:
        message = (
            f"{manifest.version} is recalibrated already: name the bundle before, or leave out the recent sessions"
        )
        raise DataError(message)
    _refuse_overlap([*sessions, *recent], test)
    training_sessions, test_sessions, recent_sessions = (read_sessions(files)[0] for files in (sessions, test, recent))
    if not len(training_sessions) or not len(test_sessions) or (recent and not len(recent_sessions)):
        message = "the training, test or recent files hold no session: name files of closed sessions"
        raise DataError(message)
    truths = read_ground_truth(truth, test) if truth else None
    hidden = choose_hidden_items(bundle_items.items, hidden_share)
    bundle_test = make_full_sessions(test_sessions, find_rows(bundle_items, test_sessions.item_ids, hidden))
    if len(np.unique(bundle_test.purchase[select_all_rows(bundle_test)])) < 2:
        message = "the test needs sessions with a purchase after their first events, and sessions without one"
        raise DataError(message)

    recent_rows = find_rows(bundle_items, recent_sessions.item_ids, hidden)
    bundle_recent = make_full_sessions(recent_sessions, recent_rows)
    if recent and len(recent_sessions) < MIN_CALIBRATION_SESSIONS:
        message = (
            f"{len(recent_sessions)} recent sessions are too few to recalibrate a bundle on: name further files, with "
            f"at least {MIN_CALIBRATION_SESSIONS} sessions together"
        )
        raise DataError(message)

    on_step("fitting the baselines")
    vocabulary = Vocabulary(training_sessions.item_ids)
    training = make_full_sessions(training_sessions, find_rows(vocabulary, training_sessions.item_ids, hidden))
    attributes = make_item_attributes(vocabulary.items, read_catalogue(items))
    baselines = fit_head_baselines(training, np.flatnonzero(~mark_purchased(training)), attributes)
    bundle_heads = BundleHeads(graph, manifest, baselines[0])
    baseline_test = make_full_sessions(test_sessions, find_rows(vocabulary, test_sessions.item_ids, hidden))
    test_rate = BaseRate(bundle_test, select_all_rows(bundle_test), "base rate, test")
    models: list[tuple[HeadPredictor, FullSessions]] = [(bundle_heads, bundle_test)]
    models += [(baseline, baseline_test) for baseline in (*baselines, test_rate)]
    if recent:
        correction = fit_level(bundle_heads.graph, manifest, bundle_recent)
        known_attributes = make_item_attributes(bundle_items.items, read_catalogue(items))
        ends = np.flatnonzero(~mark_purchased(bundle_recent))
        base_rate, *_, trees = fit_head_baselines(bundle_recent, ends, known_attributes)
        base_rate.name, trees.name = "base rate, recent", "LightGBM, recent"
        recalibrated = BundleHeads(bundle_heads.graph, manifest, baselines[0], correction)
        models.append((recalibrated, bundle_test))
        if manifest.every_event:
            refit = fit_refit(bundle_heads.graph, manifest, recent_sessions, recent_rows, known_attributes)
            if refit is not None:
                refitted = BundleHeads(bundle_heads.graph, manifest, baselines[0], correction, refit)
                models.append((refitted, bundle_test))
        models += [(base_rate, bundle_test), (trees, bundle_test)]
    return HeadResults(
        bundle=manifest.version,
        training_sessions=len(training_sessions),
        test_sessions=len(test_sessions),
        fallback_share=bundle_heads.fallback_share(bundle_test, select_all_rows(bundle_test)),
        by_events=compare_heads(models, on_step, truths),
        hidden_share=hidden_share,
    )


def choose_hidden_items(items: Sequence[str], share: float) -> frozenset[str]:
    """Return a random share of the items; the same items for the same arguments, in whatever order."""
    ordered = sorted(items)
    is_hidden = np.random.default_rng(0).random(len(ordered)) < share
    return frozenset(np.array(ordered, dtype=object)[is_hidden])


def find_rows(vocabulary: Vocabulary, item_ids: Sequence[str], hidden: Collection[str]) -> Ints:
    """Return the row of each item, 0 if it is unknown or hidden: (len(item_ids),)."""
    return vocabulary.rows(["" if item in hidden else item for item in item_ids])


def compare_heads(
    models: Sequence[tuple[HeadPredictor, FullSessions]], on_step: Callable[[str], None], truths: Floats | None = None
) -> tuple[PrefixLengthResults, ...]:
    """Return the metrics of models on all rows, then by prefix length.

    Args:
        models: Models with the test sessions, in each model's own item rows; the bundle first.
        on_step: Called with the name of each step.
        truths: True probability of a purchase after each event, if known: (events,).
    """
    sessions = models[0][1]
    ends_by_length = [select_rows(sessions, events) for events in PREFIX_LENGTHS]
    ends = np.concatenate(ends_by_length)  # (rows,)
    predictions: dict[str, Probabilities] = {}
    for model, model_sessions in models:
        on_step(f"predicting with {model.name}")
        predictions[model.name] = model.predict(model_sessions, ends)
    results: list[PrefixLengthResults] = []
    starts = np.cumsum([0, *map(len, ends_by_length)]).tolist()
    groups = [(0, slice(0, len(ends)))]
    groups += [(events, slice(*starts[index : index + 2])) for index, events in enumerate(PREFIX_LENGTHS)]
    for events, rows in groups:
        purchase, next_action = sessions.purchase[ends[rows]].astype(np.int64), sessions.next_action[ends[rows]]
        if not 0 < purchase.sum() < len(purchase):  # PR-AUC and ROC-AUC need both outcomes
            continue
        on_step(f"measuring {len(purchase):,} rows")
        group = {name: Probabilities(*(part[rows] for part in parts)) for name, parts in predictions.items()}
        results.append(
            PrefixLengthResults(
                events=events,
                rows=len(purchase),
                base_rate=float(purchase.mean()),
                models={
                    name: compute_head_metrics(predicted, next_action, purchase) for name, predicted in group.items()
                },
                lead=_bootstrap_lead(group["bundle"].purchase, group[REFERENCE_MODEL].purchase, purchase),
                truth_errors={
                    name: compute_truth_error(predicted.purchase, truths[ends[rows]], purchase)
                    for name, predicted in group.items()
                    if truths is not None
                },
            )
        )
    return tuple(results)


def compute_head_metrics(predicted: Probabilities, next_action: Ints, purchase: Ints) -> HeadMetrics:
    """Return the metrics of predictions.

    Args:
        predicted: Predicted probabilities: (rows, 5) and (rows,).
        next_action: Class of the next action: (rows,).
        purchase: Outcome, 0 or 1: (rows,).
    """
    occurring = np.unique(next_action)
    clipped = predicted.purchase.clip(metrics.MIN_PROBABILITY, 1 - metrics.MIN_PROBABILITY)
    best_action = predicted.next_action.argmax(axis=1)
    return HeadMetrics(
        pr_auc=float(average_precision_score(purchase, predicted.purchase)),
        roc_auc=float(roc_auc_score(purchase, predicted.purchase)),
        log_loss=float(log_loss(purchase, clipped)),
        brier=float(brier_score_loss(purchase, predicted.purchase)),
        calibration_error=metrics.calibration_error(predicted.purchase, purchase),
        calibration_noise=estimate_calibration_noise(predicted.purchase),
        next_action_f1=float(f1_score(next_action, best_action, labels=occurring, average="macro")),
        next_action_log_loss=metrics.log_loss(predicted.next_action, next_action),
    )


def estimate_calibration_noise(purchase: Floats) -> float:
    """Return the mean ECE over outcomes drawn from the probabilities themselves.

    This is the consistency resampling of Broecker and Smith (Weather and Forecasting 2007), reduced to the mean.
    """
    rng = np.random.default_rng(0)
    outcomes = (rng.random((NOISE_DRAWS, len(purchase))) < purchase).astype(np.int64)  # (draws, rows)
    return float(np.mean([metrics.calibration_error(purchase, drawn) for drawn in outcomes]))


def select_rows(sessions: FullSessions, events: int) -> Longs:
    """Return the last event of each prefix of the given length, in sessions without a purchase so far."""
    ends = sessions.starts[:-1] + events - 1
    ends = ends[ends < sessions.starts[1:]]  # sessions with so many events
    return ends[~(mark_purchased(sessions) | (sessions.actions == PURCHASE))[ends]]


def select_all_rows(sessions: FullSessions) -> Longs:
    """Return the last events of all judged prefixes, in order of prefix length."""
    return np.concatenate([select_rows(sessions, events) for events in PREFIX_LENGTHS])


def _bootstrap_lead(bundle: Floats, reference: Floats, purchase: Ints) -> BootstrapInterval:
    """Return the bundle's PR-AUC minus the reference's; both are measured on the same resamples (paired bootstrap)."""
    rng = np.random.default_rng(0)
    differences: list[float] = []
    for _ in range(LEAD_RESAMPLES):
        rows = rng.integers(len(purchase), size=len(purchase))
        differences.append(
            metrics.pr_auc(bundle[rows], purchase[rows]) - metrics.pr_auc(reference[rows], purchase[rows])
        )
    low, high = np.quantile(differences, (0.025, 0.975))
    value = metrics.pr_auc(bundle, purchase) - metrics.pr_auc(reference, purchase)
    return BootstrapInterval(value=value, low=float(low), high=float(high))


def _refuse_overlap(sessions: Sequence[Path], test: Sequence[Path]) -> None:
    training_keys, test_keys = (
        {key for path in files for key in read_session_keys(path)} for files in (sessions, test)
    )
    if shared := len(training_keys & test_keys):
        message = f"{shared:,} test sessions are also training sessions: separate them with `clickscore split`"
        raise DataError(message)
