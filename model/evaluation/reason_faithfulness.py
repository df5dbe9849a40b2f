"""Faithfulness: whether the events that are named as reasons are those that matter, tried by taking them out.

An explanation orders the events of a session. On its deletion curve they leave in this order, on its insertion curve
they come in it, and each time the model is asked for the probability of the item that was explained. A session without
an event is one of the others alone, closed up: distances and repeats are those of a shopper who never did it.
"""

# pyright: standard
# torch leaves what a module returns untyped.

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from clickscore.model.checkpoint import load_checkpoint
from clickscore.model.errors import TrainingError
from clickscore.model.evaluation.bootstrap import BootstrapInterval
from clickscore.model.evaluation.prefix_evaluation import RESAMPLES, VIEW, read_prefixes
from clickscore.model.features import Ints, Longs
from clickscore.model.metrics import Floats
from clickscore.model.transformer import SessionTransformer, relative_distances

MIN_EVENTS = 3
TOP_ITEMS = 5
"""Items of each answer that are explained, the best."""
BATCH = 256
CONTRIBUTION = "contribution"


class ExplainedItem(NamedTuple):
    """An item in the answer to a session."""

    events: Ints
    """Rows of the session's items: (events,)."""
    item: int
    """Row of the item that is explained."""


class ItemPrediction(NamedTuple):
    """What the model says of one item."""

    log_probability: float
    place: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventOrder:
    """How well an order of events foretells what happens. Log-probabilities are in nats."""

    name: str
    figures: dict[str, BootstrapInterval]
    """Of the best item, and with `@5` the mean of the best five.

    `deletion`: log-probability lost, mean over the curve; more is better. `insertion`: log-probability still missing;
    less is better. `first`: lost when only the first event leaves. `exit`: share of items that are driven out of the
    best five by that. `lead`: how much more the contributions lose, and how much less they miss, both added.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaithfulnessResults:
    """What was found."""

    sessions: int
    orders: list[EventOrder]


Predictor = Callable[[Sequence[ExplainedItem]], list[ItemPrediction]]


def evaluate_reasons(
    checkpoint: Path, prefixes: Path, rows: int, tell: Callable[[str], None], seed: int = 0
) -> FaithfulnessResults:
    """Return how faithful the contributions are that a checkpoint's graph gives as reasons, and other orders.

    Args:
        checkpoint: Folder that `clickscore train` wrote.
        prefixes: File of beginnings of sessions, as `evaluate` reads it.
        rows: How many of those with 3 known events or more are drawn; all where there are fewer.
        tell: Called with what is tried.
        seed: Of the draw, and of the random order.

    Raises:
        TrainingError: A file cannot be read, or there is no such beginning.
    """
    trained = load_checkpoint(checkpoint)
    model, table, longest = trained.model, trained.table(), trained.record.config.model.max_length
    sessions = [row.items[-longest:] for row in read_prefixes(prefixes, trained.vocabulary)]
    sessions = [session for session in sessions if len(session) >= MIN_EVENTS]
    if not sessions:
        message = f"{prefixes} has no row of {MIN_EVENTS} known events or more"
        raise TrainingError(message)
    rng = np.random.default_rng(seed)
    drawn = [sessions[at] for at in np.sort(rng.choice(len(sessions), min(rows, len(sessions)), replace=False))]

    def ask(cases: Sequence[ExplainedItem]) -> list[ItemPrediction]:
        return predict_items(model, table, cases)

    best = rank_top_items(model, table, drawn)  # (sessions, places)
    cases = [
        ExplainedItem(session, item) for session, items in zip(drawn, best.tolist(), strict=True) for item in items
    ]
    whole = ask(cases)
    orders = {
        **compute_explanations(model, table, cases),
        "leave one out": leave_one_out(cases, whole, ask),
        "newest first": [np.arange(len(case.events)) for case in cases],
        "random": [order for session in drawn for order in [rng.random(len(session))] * TOP_ITEMS],
    }
    found: dict[str, Mapping[str, Floats]] = {}
    for name, weights in orders.items():
        tell(f"trying {name}")
        found[name] = compute_curves(cases, whole, [np.argsort(-of, kind="stable") for of in weights], ask)
    return FaithfulnessResults(
        sessions=len(drawn), orders=[summarise_curves(name, of, found[CONTRIBUTION]) for name, of in found.items()]
    )


def compute_curves(
    cases: Sequence[ExplainedItem], whole: Sequence[ItemPrediction], orders: Sequence[Longs], ask: Predictor
) -> Mapping[str, Floats]:
    """Return `deletion`, `insertion`, `first` and `exit` of each case: (cases,) each.

    Args:
        cases: Of 2 events or more.
        whole: What is said of them.
        orders: Places of the events, the most important first.
        ask: Says what the model says.
    """
    parts = [
        ExplainedItem(case.events[np.sort(kept)], case.item)
        for case, order in zip(cases, orders, strict=True)
        for kept in (*(order[gone:] for gone in range(1, len(order))), *(order[:come] for come in range(1, len(order))))
    ]
    said = iter(ask(parts))
    found = np.zeros((4, len(cases)))
    for at, (case, before) in enumerate(zip(cases, whole, strict=True)):
        without, within = ([next(said) for _ in case.events[1:]] for _ in range(2))
        lost = [before.log_probability - answer.log_probability for answer in without]
        missing = [before.log_probability - answer.log_probability for answer in within]
        found[:, at] = np.mean(lost), np.mean(missing), lost[0], without[0].place > TOP_ITEMS
    return dict(zip(("deletion", "insertion", "first", "exit"), found, strict=True))


def leave_one_out(cases: Sequence[ExplainedItem], whole: Sequence[ItemPrediction], ask: Predictor) -> list[Floats]:
    """Return the log-probability that each event's leaving costs: (events,) for each case."""
    said = iter(
        ask([ExplainedItem(np.delete(case.events, at), case.item) for case in cases for at in range(len(case.events))])
    )
    return [
        np.array([before.log_probability - next(said).log_probability for _ in case.events])
        for case, before in zip(cases, whole, strict=True)
    ]


def summarise_curves(name: str, of: Mapping[str, Floats], ours: Mapping[str, Floats]) -> EventOrder:
    """Return the means over sessions, with their intervals."""
    lead = (ours["deletion"] - of["deletion"]) + (of["insertion"] - ours["insertion"])
    figures: dict[str, BootstrapInterval] = {}
    for metric, values in {**of, "lead": lead}.items():
        by_session = values.reshape(-1, TOP_ITEMS)
        figures[metric] = _mean(by_session[:, 0])
        figures[f"{metric}@{TOP_ITEMS}"] = _mean(by_session.mean(axis=1))
    return EventOrder(name=name, figures=figures)


def _mean(values: Floats) -> BootstrapInterval:
    draws = np.random.default_rng(0).multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES)
    low, high = np.quantile(draws @ values / len(values), (0.025, 0.975))
    return BootstrapInterval(value=float(values.mean()), low=float(low), high=float(high))


class _Padded(NamedTuple):
    at: Longs
    """Places of the cases: (batch,)."""
    items: torch.Tensor
    """(batch, width)."""
    actions: torch.Tensor
    """Views: (batch, width)."""
    ends: torch.Tensor
    """True at the last event: (batch, width)."""


def _padded(sessions: Sequence[Ints]) -> Iterator[_Padded]:
    """Yield sessions in batches, those of like length together."""
    lengths = np.array([len(session) for session in sessions])
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), BATCH):
        at = order[start : start + BATCH]
        items = np.zeros((len(at), lengths[at].max()), dtype=np.int64)
        for row, session in zip(items, at, strict=True):
            row[: lengths[session]] = sessions[session]
        ends = np.arange(items.shape[1]) == lengths[at][:, None] - 1
        yield _Padded(at, torch.from_numpy(items), torch.from_numpy((items > 0) * VIEW), torch.from_numpy(ends))


def _scores(model: SessionTransformer, table: torch.Tensor, batch: _Padded) -> torch.Tensor:
    vectors, of_items = model(table, batch.items, batch.actions)
    return model.scores(table, model.queries(vectors, of_items, batch.items, batch.ends))  # (batch, V - 1)


@torch.inference_mode()
def rank_top_items(model: SessionTransformer, table: torch.Tensor, sessions: Sequence[Ints]) -> Longs:
    """Return the rows of the best items after each session: (sessions, places)."""
    best = np.zeros((len(sessions), TOP_ITEMS), dtype=np.int64)
    for batch in _padded(sessions):
        best[batch.at] = _scores(model, table, batch).topk(TOP_ITEMS).indices.numpy() + 1
    return best


@torch.inference_mode()
def predict_items(
    model: SessionTransformer, table: torch.Tensor, cases: Sequence[ExplainedItem]
) -> list[ItemPrediction]:
    """Return what the model says of each case: probabilities are of a softmax over the whole catalogue."""
    of_session: dict[bytes, list[int]] = {}
    for at, case in enumerate(cases):
        of_session.setdefault(case.events.tobytes(), []).append(at)
    groups = list(of_session.values())  # one session may be asked about several items
    found = [ItemPrediction(0.0, 0)] * len(cases)
    for batch in _padded([cases[group[0]].events for group in groups]):
        scores = _scores(model, table, batch)
        total = scores.logsumexp(dim=1)  # (batch,)
        asked = [(row, at) for row, group in enumerate(batch.at) for at in groups[group]]
        rows = torch.tensor([row for row, _ in asked])
        own = scores[rows, torch.tensor([cases[at].item - 1 for _, at in asked])]  # (asked,)
        places = [int((scores[row] >= value).sum()) for row, value in zip(rows.tolist(), own, strict=True)]
        for (_, at), log_probability, place in zip(asked, (own - total[rows]).tolist(), places, strict=True):
            found[at] = ItemPrediction(log_probability, place)
    return found


@torch.inference_mode()
def compute_explanations(
    model: SessionTransformer, table: torch.Tensor, cases: Sequence[ExplainedItem]
) -> dict[str, list[Floats]]:
    """Return the contributions of each case's events, and their attention in the readout: (events,) each."""
    ours: list[Floats] = [np.zeros(0)] * len(cases)
    attention = ours.copy()
    for batch in _padded([case.events for case in cases]):
        ends = batch.ends.long().argmax(dim=1)  # places of the last events: (batch,)
        rows = torch.tensor([[cases[at].item] for at in batch.at])
        brought = model.reasons(table, batch.items, batch.actions, ends, rows)[:, 0].numpy()  # (batch, width)
        vectors, _ = model(table, batch.items, batch.actions)
        shares = model.readout.attention(vectors, vectors, relative_distances(batch.items.shape[1], vectors.device))
        shares = shares[batch.ends].numpy()  # (batch, width)
        for at, of, share in zip(batch.at, brought, shares, strict=True):
            length = len(cases[at].events)
            ours[at], attention[at] = of[:length], share[:length]
    return {CONTRIBUTION: ours, "attention": attention}
