"""Session reasons: the events with the largest contributions, with and without ranks made for a whole micro-batch."""

import numpy as np
import pytest
from msgspec.structs import replace

from clickscore.schemas.decisions import Because
from clickscore.schemas.events import ACTIONS
from clickscore.stream.policy.session_reasons import find_reasons
from clickscore.stream.request import Reasons, Request, rank_events
from tests.scored_requests import make_request

COLUMNS = 8
"""Events of the longest session of a batch; shorter ones are padded."""


def session(length: int) -> Request:
    items = [f"item-{number}" for number in range(length)]
    return replace(make_request(*items), actions=bytes(1 + number % 6 for number in range(length)))


def expected(request: Request, contributions: np.ndarray, limit: int) -> list[tuple[Because, ...]]:
    """Sort all events of each candidate, as one would by hand."""
    named: list[tuple[Because, ...]] = []
    for row in contributions[:, : len(request.items)].astype(np.float64).round(6).tolist():
        largest = sorted(((value, position) for position, value in enumerate(row)), reverse=True)[:limit]
        named.append(
            tuple(
                Because(item_id=request.items[position], action=ACTIONS[request.actions[position]], contribution=value)
                for value, position in largest
                if value > 0
            )
        )
    return named


@pytest.mark.parametrize("decimals", [1, 6, 9])
@pytest.mark.parametrize("limit", [1, 3, 20])
def test_ranks_of_a_micro_batch_change_no_reason(decimals: int, limit: int):
    rng = np.random.default_rng(decimals)
    contributions = np.round(rng.normal(0.2, 1, (5, 20, COLUMNS)), decimals).astype(np.float32)  # equal ones among them
    lengths = np.array([0, 1, 3, 7, 8])
    ranked = rank_events(contributions[:, :16], lengths)
    for index, length in enumerate(lengths.tolist()):
        request, own = session(length), contributions[index]
        wanted = expected(request, own, limit)
        for ranks in (None, ranked[index]):
            reasons = Reasons(own, range(length), ranks)
            assert find_reasons(range(16), request, reasons, limit) == wanted[:16]
            assert find_reasons([3, 19], request, reasons, limit) == [wanted[3], wanted[19]]  # 19 has no ranks
            assert find_reasons([], request, reasons, limit) == []


def test_contribution_that_is_no_number_is_no_reason():
    contributions = np.array([[np.nan, 0.5, -np.inf]])
    named = find_reasons([0], session(3), Reasons(contributions, range(3)), 3)
    assert named == [(Because(item_id="item-1", action=ACTIONS[2], contribution=0.5),)]
