"""Session reasons: name the events of the session that raised the score of each chosen item most."""

from collections.abc import Sequence

import numpy as np

from clickscore.schemas.decisions import SCORE_DECIMALS, Because
from clickscore.schemas.events import ACTIONS
from clickscore.stream.request import Reasons, Request, rank_events

_SCALE = 10.0**SCORE_DECIMALS


def find_reasons(
    candidates: Sequence[int], request: Request, reasons: Reasons, limit: int
) -> list[tuple[Because, ...]]:
    """Return the events of the largest contributions to each of some candidates, largest first.

    Contributions of 0 and below are not named.

    Args:
        candidates: Indices of the candidates among the model's candidates.
        request: The event, with the user's session.
        reasons: Contribution of each event to each candidate.
        limit: Number of events for a candidate, at most.
    """
    columns = reasons.contributions.shape[-1]
    items = [request.items[position] for position in reasons.positions]
    actions = [ACTIONS[request.actions[position]] for position in reasons.positions]
    return [
        tuple(
            [
                Because(
                    item_id=items[key % columns], action=actions[key % columns], contribution=key // columns / _SCALE
                )
                for key in keys
                if key >= columns
            ]
        )
        for keys in _largest_keys(candidates, reasons, limit)
    ]


def _largest_keys(candidates: Sequence[int], reasons: Reasons, limit: int) -> list[list[int]]:
    """Return the first ranked events of each of some candidates, as keys of `rank_events`.

    Args:
        candidates: Indices of the candidates.
        reasons: Contributions, and ranked events of the first candidates.
        limit: Number of events for a candidate, at most.
    """
    ranked = reasons.ranked
    if ranked is not None and max(candidates, default=0) < len(ranked):
        keys: list[list[int]] = ranked[:, :limit].tolist()
        return [keys[candidate] for candidate in candidates]
    contributions = reasons.contributions.take(candidates, axis=0)[None]
    return rank_events(contributions, np.array([len(reasons.positions)]))[0, :, :limit].tolist()
