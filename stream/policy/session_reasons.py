"""Session reasons: name the events of the session that raised the score of each chosen item most."""

from collections.abc import Mapping

import numpy as np

from clickscore.schemas.decisions import SCORE_DECIMALS, Because, Choice
from clickscore.schemas.events import ACTIONS
from clickscore.stream.policy.experiments import MODEL
from clickscore.stream.policy.slate import Slate
from clickscore.stream.request import Reasons, Request


def with_reasons(
    slate: Slate, indices: Mapping[str, int], request: Request, reasons: Reasons, limit: int
) -> list[Choice]:
    """Return a list with the events of the largest contributions to each candidate of the model.

    Of equal contributions the newer event comes first. Contributions of 0 and below are not named.

    Args:
        slate: The choices.
        indices: Index of each candidate among the model's candidates.
        request: The event, with the user's session.
        reasons: Contribution of each event to each candidate.
        limit: Number of events for an item, at most.
    """
    rows = [indices[choice.item_id] for choice in slate if choice.reason == MODEL]
    if not rows:
        return list(slate)
    # Methods of arrays, since numpy's functions take longer than the work on so few numbers.
    contributions = reasons.contributions.take(rows, axis=0).astype(np.float64)  # (choices of the model, width)
    width, length = contributions.shape[1], len(reasons.positions)
    # The stable order puts newer events later, so the reversed order puts them first.
    order = contributions[:, :length].argsort(axis=1, kind="stable")[:, : -limit - 1 : -1]
    starts = np.arange(0, len(rows) * width, width)[:, None]
    largest = contributions.ravel().take(order + starts).round(SCORE_DECIMALS).tolist()
    events = [(request.items[position], ACTIONS[request.actions[position]]) for position in reasons.positions]
    named = zip(order.tolist(), largest, strict=True)
    return [
        Choice(
            item_id=choice.item_id,
            score=choice.score,
            propensity=choice.propensity,
            reason=MODEL,
            because=_because(events, *next(named)),
        )
        if choice.reason == MODEL
        else choice
        for choice in slate
    ]


def _because(events: list[tuple[str, str]], columns: list[int], contributions: list[float]) -> tuple[Because, ...]:
    """Return the events of some columns, as far as their contributions are above 0."""
    return tuple(
        [
            Because(item_id=events[column][0], action=events[column][1], contribution=contribution)
            for column, contribution in zip(columns, contributions, strict=True)
            if contribution > 0
        ]
    )
