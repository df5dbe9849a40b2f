"""Request: an event with a decision to make, and the model's scores of the candidates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from clickscore.schemas.decisions import SCORE_DECIMALS
from clickscore.schemas.events import AnyEvent

UNKNOWN_DAY = 0
"""Day of a purchase from before days were remembered."""


FindMultiplier = Callable[[str], float | None]
"""Returns the factor on the bid of a campaign with a budget; None where no lease lets it spend."""
FindClickFactor = Callable[[str], float]
"""Returns the factor on the click probability of a campaign, as learned from outcomes."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """An event with a decision to make, and a copy of the user's session as of the event."""

    decision_id: str
    """`TOPIC-PARTITION-OFFSET` of the event: the id of the recommendation."""
    event: AnyEvent
    session_id: str
    session_length: int
    """Number of events of the session so far, this event included."""
    items: list[str]
    """Item of each remembered event of the session, oldest first; an empty string for a search."""
    actions: bytes
    """Action code of each remembered event (index into `schemas.events.ACTIONS`)."""
    bought: frozenset[str]
    """Items bought by the user, in this session or earlier."""
    variant: str
    """A/B test bucket of the user: `model`, `popular`, or `challenger` where a rollout tries another bundle."""
    late: bool
    """Whether the event time was behind the watermark."""
    popular: list[str]
    """Popular items of the partition when the event came, best first."""
    ages: Sequence[int] = ()
    """Age of each remembered event, ms since the session began; empty where ages are unknown."""
    withheld: int = 0
    """Bits of the purposes without the user's consent, in the order of `schemas.purposes.PURPOSES`."""
    client: int = 0
    """Class of the user: index into `schemas.clients.CLIENTS`."""
    ad_impressions: bytes = b""
    """Ads shown to the user on the day of the event, as `schemas.snapshots.AdState` has them."""
    session_ads: int = 0
    """Number of ads shown in the session."""
    purchases: dict[str, int] = {}
    """Day of the purchase of each item in `bought`, days since 1970, in order of purchase; 0 for an unknown day."""
    companions: Sequence[str] = ()
    """Items that users bought together with those in the cart and on screen; only for a page with such a shelf."""
    find_multiplier: FindMultiplier | None = None
    """Finds the budgets of the campaigns as of the event; None where no budget counts."""
    find_click_factor: FindClickFactor | None = None
    """Finds how often ads are clicked as of the event; None where too few outcomes are known."""
    seen: bytes = b""
    """Impressions of items in the session, as `schemas.seen_items` writes impressions down."""
    shown: frozenset[str] = frozenset()
    """Items that the page shows already: on its earlier shelves, and as ads."""


class Reasons(NamedTuple):
    """Contribution of each event of the session to the score of each candidate."""

    contributions: np.ndarray
    """(candidates, events read by the model plus padding): by how much an event raised a candidate's score."""
    positions: Sequence[int]
    """Position in `Request.items` of each event read by the model."""
    ranked: np.ndarray | None = None
    """Keys of `rank_events` for the first candidates: (candidates, columns); None without ranks."""

    def contributions_to(self, candidate: int) -> Iterator[tuple[float, int]]:
        """Yield (contribution, position in `Request.items`) of each event for a candidate."""
        return zip(self.contributions[candidate, : len(self.positions)].tolist(), self.positions, strict=True)


def rank_events(contributions: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the events of sessions by contribution, largest first; of equal contributions the newer event comes first.

    An event is a key: its contribution in units of the last decimal of decisions, times the number of columns, plus its
    column. So one sort orders by both, and for many sessions it costs little more than for a single one.

    Args:
        contributions: (sessions, candidates, columns).
        lengths: Number of events of each session; the columns behind are padding, and get a key below 0: (sessions,).

    Returns:
        Keys: int64 (sessions, candidates, columns).
    """
    columns = np.arange(contributions.shape[-1])
    units = np.rint(contributions.astype(np.float64) * 10.0**SCORE_DECIMALS)
    with np.errstate(invalid="ignore"):  # a foreign graph may return NaN, which becomes a number below 0
        keys = units.astype(np.int64) * len(columns) + columns
    np.copyto(keys, -1, where=(columns >= lengths[:, None])[:, None])
    keys.sort(axis=-1)
    return keys[..., ::-1]


class Scores(NamedTuple):
    """The model's output for a request."""

    rows: list[int]
    """Candidates, best first, as row numbers of the bundle's item table."""
    scores: list[float]
    """Score of each candidate, rounded to 6 decimals."""
    actions: dict[str, float] | None
    """Probability of each next action; None where the model has no such head."""
    purchase: float | None
    """Probability of a purchase in the rest of the session; None where the model has no such head."""
    items_by_row: Sequence[str]
    """Item id of each row. Ids are looked up lazily: few candidates are shown, and each lookup misses the CPU cache."""
    reasons: Reasons | None = None
    """Contributions of the session's events; absent where reasons are switched off."""
    row_of: Mapping[str, int] | None = None
    """Row of each item, to look up a few scores; None without such a table."""

    def candidates(self) -> Iterator[tuple[str, float]]:
        """Yield (item id, score) of each candidate, best first, looked up lazily."""
        return zip(map(self.items_by_row.__getitem__, self.rows), self.scores, strict=True)

    def score_of(self, item: str) -> float | None:
        """Return the score of an item; None for an item that is no candidate."""
        if self.row_of is None:
            return dict(self.candidates()).get(item)
        row = self.row_of.get(item)
        if row is None or row not in self.rows:
            return None
        return self.scores[self.rows.index(row)]
