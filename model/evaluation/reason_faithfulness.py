"""Reason faithfulness: deletion and insertion curves show whether events with high contributions move the score.

An explanation ranks the events of a session. On the deletion curve the events are removed in this order, on the
insertion curve they are added in this order (Petsiuk, Das and Saenko, "RISE", BMVC 2018; for texts: comprehensiveness
and sufficiency, DeYoung et al., "ERASER", ACL 2020). After each step the model predicts the probability of the
explained item again, on the remaining events alone: their distances and repeats are as if the removed events had
never happened.

The contributions compete with other orders: attention weights, leave-one-out (occlusion, Zeiler and Fergus, ECCV 2014),
newest first, and a random permutation.
"""

# pyright: standard
# torch does not type the result of a module.

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from clickscore.model.array_types import Floats, Ints, Longs
from clickscore.model.checkpoint import load_checkpoint
from clickscore.model.errors import DataError
from clickscore.model.evaluation.bootstrap import BootstrapInterval
from clickscore.model.evaluation.prefix_evaluation import RESAMPLES, read_prefixes
from clickscore.model.examples import VIEW
from clickscore.model.transformer import SessionTransformer, relative_distances

MIN_EVENTS = 3
"""Minimum number of known events; the order of two events says little."""
TOP_ITEMS = 5
"""Number of explained items of each session, the best."""
BATCH_CASES = 256
"""Sessions in a forward pass."""
CONTRIBUTION = "contribution"
"""Name of the order by the model's own contributions."""


class ExplainedItem(NamedTuple):
    """A session, and an item to explain or predict after the session."""

    events: Ints
    """Item rows of the session's events: (events,)."""
    item: int
    """Row of the explained item."""


class ItemPrediction(NamedTuple):
    """Prediction for an item."""

    log_probability: float
    """Log-probability in nats, of a softmax over the whole catalogue."""
    rank: int
    """Rank in the catalogue, from 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventOrder:
    """Faithfulness of an order of events. Log-probabilities are in nats."""

    name: str
    figures: dict[str, BootstrapInterval]
    """Metrics of the best item and, with `@5`, their mean over the best five items.

    `deletion`: log-probability lost, averaged over the curve; more is better. `insertion`: log-probability still
    missing, averaged over the curve; less is better. `first`: log-probability lost when only the first event is
    removed. `exit`: share of items that leave the best five then. `lead`: how much better the contributions are, the
    differences in deletion and insertion added up.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaithfulnessResults:
    """Results of `clickscore evaluate-reasons`."""

    sessions: int
    orders: list[EventOrder]


Predictor = Callable[[Sequence[ExplainedItem]], list[ItemPrediction]]
"""Predicts the explained item of each case."""


def evaluate_reasons(
    checkpoint: Path, prefixes: Path, rows: int, on_step: Callable[[str], None], seed: int = 0
) -> FaithfulnessResults:
    """Return the faithfulness of a checkpoint's contributions, and of the competing orders.

    Args:
        checkpoint: Folder of `clickscore train`.
        prefixes: File of prefixes in the format of `clickscore evaluate`.
        rows: Number of prefixes to sample, of at least `MIN_EVENTS` known events.
        on_step: Called with the name of each step.
        seed: Seed of the sample and of the random permutation.

    Raises:
        DataError: A file cannot be read, or no prefix is long enough.
    """
    trained = load_checkpoint(checkpoint)
    model, table, max_length = trained.model, trained.table(), trained.record.config.model.max_length
    sessions = [prefix.items[-max_length:] for prefix in read_prefixes(prefixes, trained.vocabulary)]
    sessions = [session for session in sessions if len(session) >= MIN_EVENTS]
    if not sessions:
        message = f"{prefixes} has no prefix with {MIN_EVENTS} known events or more: name a file with longer ones"
        raise DataError(message)
    rng = np.random.default_rng(seed)
    indices = np.sort(rng.choice(len(sessions), min(rows, len(sessions)), replace=False))
    sample = [sessions[index] for index in indices]

    def predict(cases: Sequence[ExplainedItem]) -> list[ItemPrediction]:
        return predict_items(model, table, cases)

    top_items = rank_top_items(model, table, sample)  # (sessions, TOP_ITEMS)
    cases = [
        ExplainedItem(session, item)
        for session, items in zip(sample, top_items.tolist(), strict=True)
        for item in items
    ]
    full_predictions = predict(cases)
    weights_by_order = {
        **compute_explanations(model, table, cases),
        "leave one out": leave_one_out(cases, full_predictions, predict),
        "newest first": [np.arange(len(case.events)) for case in cases],
        "random": [weights for session in sample for weights in [rng.random(len(session))] * TOP_ITEMS],
    }
    curves: dict[str, Mapping[str, Floats]] = {}
    for name, weights in weights_by_order.items():
        on_step(f"testing the order: {name}")
        orders = [np.argsort(-case_weights, kind="stable") for case_weights in weights]
        curves[name] = compute_curves(cases, full_predictions, orders, predict)
    results = [summarise_curves(name, values, curves[CONTRIBUTION]) for name, values in curves.items()]
    return FaithfulnessResults(sessions=len(sample), orders=results)


def compute_curves(
    cases: Sequence[ExplainedItem],
    full_predictions: Sequence[ItemPrediction],
    orders: Sequence[Longs],
    predict: Predictor,
) -> Mapping[str, Floats]:
    """Return `deletion`, `insertion`, `first` and `exit` of each case: (cases,) each.

    Args:
        cases: Sessions of 2 events or more, with their explained items.
        full_predictions: Predictions on the full sessions.
        orders: Positions of each session's events, the most important first: (events,) each.
        predict: Predicts the explained item on parts of a session.
    """
    parts = [
        ExplainedItem(case.events[np.sort(positions)], case.item)
        for case, order in zip(cases, orders, strict=True)
        for positions in (
            *(order[removed:] for removed in range(1, len(order))),
            *(order[:added] for added in range(1, len(order))),
        )
    ]
    predictions = iter(predict(parts))
    values = np.zeros((4, len(cases)))
    for index, (case, full) in enumerate(zip(cases, full_predictions, strict=True)):
        deleted, inserted = ([next(predictions) for _ in case.events[1:]] for _ in range(2))
        lost = [full.log_probability - prediction.log_probability for prediction in deleted]
        missing = [full.log_probability - prediction.log_probability for prediction in inserted]
        values[:, index] = np.mean(lost), np.mean(missing), lost[0], deleted[0].rank > TOP_ITEMS
    return dict(zip(("deletion", "insertion", "first", "exit"), values, strict=True))


def leave_one_out(
    cases: Sequence[ExplainedItem], full_predictions: Sequence[ItemPrediction], predict: Predictor
) -> list[Floats]:
    """Return the log-probability lost by the removal of each event: (events,) for each case.

    Args:
        cases: Sessions of 2 events or more, with their explained items.
        full_predictions: Predictions on the full sessions.
        predict: Predicts the explained item on parts of a session.
    """
    parts = [
        ExplainedItem(np.delete(case.events, position), case.item)
        for case in cases
        for position in range(len(case.events))
    ]
    predictions = iter(predict(parts))
    return [
        np.array([full.log_probability - next(predictions).log_probability for _ in case.events])
        for case, full in zip(cases, full_predictions, strict=True)
    ]


def summarise_curves(name: str, values: Mapping[str, Floats], contributions: Mapping[str, Floats]) -> EventOrder:
    """Return the means over sessions, with bootstrap intervals.

    Args:
        name: Name of the order.
        values: Metrics of the order, by case: (sessions * TOP_ITEMS,) each.
        contributions: Metrics of the order by contributions, for the lead.
    """
    lead = (contributions["deletion"] - values["deletion"]) + (values["insertion"] - contributions["insertion"])
    figures: dict[str, BootstrapInterval] = {}
    for metric, case_values in {**values, "lead": lead}.items():
        by_session = case_values.reshape(-1, TOP_ITEMS)
        figures[metric] = _bootstrap_mean(by_session[:, 0])
        figures[f"{metric}@{TOP_ITEMS}"] = _bootstrap_mean(by_session.mean(axis=1))
    return EventOrder(name=name, figures=figures)


def _bootstrap_mean(values: Floats) -> BootstrapInterval:
    """Return the mean over sessions. A resample is a multinomial draw of how often each session occurs."""
    counts = np.random.default_rng(0).multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES)
    low, high = np.quantile(counts @ values / len(values), (0.025, 0.975))
    return BootstrapInterval(value=float(values.mean()), low=float(low), high=float(high))


class _SessionBatch(NamedTuple):
    """Sessions of views, left-aligned and padded with 0."""

    indices: Longs
    """Index of each session in the given list: (batch,)."""
    items: torch.Tensor
    """Item rows: (batch, length)."""
    actions: torch.Tensor
    """Code of a view, 0 in the padding: (batch, length)."""
    ends: torch.Tensor
    """True at the last event: (batch, length)."""


def _batch_sessions(sessions: Sequence[Ints]) -> Iterator[_SessionBatch]:
    """Yield sessions in batches of like length."""
    lengths = np.array([len(session) for session in sessions])
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), BATCH_CASES):
        indices = order[start : start + BATCH_CASES]
        items = np.zeros((len(indices), lengths[indices].max()), dtype=np.int64)
        for row, index in zip(items, indices, strict=True):
            row[: lengths[index]] = sessions[index]
        ends = np.arange(items.shape[1]) == lengths[indices][:, None] - 1
        yield _SessionBatch(
            indices, torch.from_numpy(items), torch.from_numpy((items > 0) * VIEW), torch.from_numpy(ends)
        )


def _score(model: SessionTransformer, table: torch.Tensor, batch: _SessionBatch) -> torch.Tensor:
    """Return the scores of all items after each session, column c for row c + 1: (batch, V - 1)."""
    vectors, item_vectors = model(table, batch.items, batch.actions)
    return model.scores(table, model.queries(vectors, item_vectors, batch.items, batch.ends))


@torch.inference_mode()
def rank_top_items(model: SessionTransformer, table: torch.Tensor, sessions: Sequence[Ints]) -> Longs:
    """Return the rows of the best items after each session: (sessions, TOP_ITEMS).

    Args:
        model: The model in evaluation mode.
        table: Vectors of all items: (V, D).
        sessions: Item rows of each session's events.
    """
    top_items = np.zeros((len(sessions), TOP_ITEMS), dtype=np.int64)
    for batch in _batch_sessions(sessions):
        top_items[batch.indices] = _score(model, table, batch).topk(TOP_ITEMS).indices.numpy() + 1
    return top_items


@torch.inference_mode()
def predict_items(
    model: SessionTransformer, table: torch.Tensor, cases: Sequence[ExplainedItem]
) -> list[ItemPrediction]:
    """Return the prediction for each case's item, with a single forward pass over each distinct session.

    Args:
        model: The model in evaluation mode.
        table: Vectors of all items: (V, D).
        cases: Sessions with their items.
    """
    cases_of_session: dict[bytes, list[int]] = {}
    for index, case in enumerate(cases):
        cases_of_session.setdefault(case.events.tobytes(), []).append(index)
    groups = list(cases_of_session.values())
    predictions = [ItemPrediction(0.0, 0)] * len(cases)
    for batch in _batch_sessions([cases[group[0]].events for group in groups]):
        scores = _score(model, table, batch)  # (batch, V - 1)
        log_normaliser = scores.logsumexp(dim=1)  # (batch,): log p = score - log sum exp(scores)
        pairs = [(row, index) for row, group in enumerate(batch.indices) for index in groups[group]]  # n pairs
        rows = torch.tensor([row for row, _ in pairs])
        item_scores = scores[rows, torch.tensor([cases[index].item - 1 for _, index in pairs])]  # (n,)
        ranks = [int((scores[row] >= score).sum()) for row, score in zip(rows.tolist(), item_scores, strict=True)]
        log_probabilities = (item_scores - log_normaliser[rows]).tolist()
        for (_, index), log_probability, rank in zip(pairs, log_probabilities, ranks, strict=True):
            predictions[index] = ItemPrediction(log_probability, rank)
    return predictions


@torch.inference_mode()
def compute_explanations(
    model: SessionTransformer, table: torch.Tensor, cases: Sequence[ExplainedItem]
) -> dict[str, list[Floats]]:
    """Return the contributions of each case's events, and their attention weights in the pooling: (events,) each.

    Args:
        model: The model in evaluation mode.
        table: Vectors of all items: (V, D).
        cases: Sessions with their items.
    """
    contributions: list[Floats] = [np.zeros(0)] * len(cases)
    attention = contributions.copy()
    for batch in _batch_sessions([case.events for case in cases]):
        ends = batch.ends.long().argmax(dim=1)  # (batch,): position of the last event
        rows = torch.tensor([[cases[index].item] for index in batch.indices])  # (batch, 1)
        values = model.reasons(table, batch.items, batch.actions, ends, rows)[:, 0].numpy()  # (batch, length)
        vectors, _ = model(table, batch.items, batch.actions)
        weights = model.readout.attention(vectors, vectors, relative_distances(batch.items.shape[1], vectors.device))
        weights = weights[batch.ends].numpy()  # (batch, length)
        for index, session_values, session_weights in zip(batch.indices, values, weights, strict=True):
            length = len(cases[index].events)
            contributions[index], attention[index] = session_values[:length], session_weights[:length]
    return {CONTRIBUTION: contributions, "attention": attention}
