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
    # Few calls of numpy: on so few numbers each takes longer than a loop.
    contributions = reasons.contributions.take(rows, axis=0).astype(np.float64).round(SCORE_DECIMALS).tolist()
    named = iter(contributions)
    events = [(request.items[position], ACTIONS[request.actions[position]]) for position in reasons.positions]
    newest_first = range(len(events) - 1, -1, -1)
    chosen: list[Choice] = []
    for choice in slate:
        if choice.reason != MODEL:
            chosen.append(choice)
            continue
        row = next(named)
        largest = sorted(newest_first, key=row.__getitem__, reverse=True)[:limit]  # equal ones keep their order
        because = tuple(
            [
                Because(item_id=events[column][0], action=events[column][1], contribution=row[column])
                for column in largest
                if row[column] > 0
            ]
        )
        chosen.append(
            Choice(
                item_id=choice.item_id, score=choice.score, propensity=choice.propensity, reason=MODEL, because=because
            )
        )
    return chosen
