"""Recommenders: rank items for the requests of an arm, by a bundle or by a baseline trained on the log itself.

A recommender gets the requests in the order of the log. It may learn from earlier requests. It must not use later ones
of the same batch, which had not happened yet; `backtest.lookahead` finds a recommender that does.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from clickscore.backtest.arms import Arm
from clickscore.schemas.clients import FIRST_MACHINE
from clickscore.schemas.events import ACTIONS, Impression, ItemEvent
from clickscore.schemas.purposes import TRAINING
from clickscore.stream.request import Request, Scores
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer

FOLLOWERS = 64
"""Length of a co-occurrence ranking: as many items as a bundle's candidates."""
COUNTED_FOLLOWERS = 4 * FOLLOWERS
"""Followers counted per item: four times the ranking, so that pruning the rarer half never touches the ranking."""

REMOVE_FROM_CART = ACTIONS.index("remove_from_cart")


class Recommender(Protocol):
    """Ranks items for requests."""

    def rank(self, requests: Sequence[Request], is_judged: Sequence[bool]) -> Sequence[Scores | None]:
        """Return a ranking for each judged request, or None where the recommender has no ranking.

        Args:
            requests: Requests in the order of the log.
            is_judged: Whether each request needs a ranking; the other requests only warm up.
        """
        ...


class BundleRecommender:
    """Ranks items by the scores of a bundle."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def rank(self, requests: Sequence[Request], is_judged: Sequence[bool]) -> Sequence[Scores | None]:
        """Return the scores of the judged requests."""
        selected = [request for request, judge in zip(requests, is_judged, strict=True) if judge]
        scores = iter(self._scorer.score(selected))
        return [next(scores) if judge else None for judge in is_judged]


class PopularityRecommender:
    """Ranks no item: the policy then falls back on popular items, as in a worker without a bundle."""

    def rank(self, requests: Sequence[Request], is_judged: Sequence[bool]) -> Sequence[Scores | None]:
        """Return None for each request."""
        del requests
        return [None] * len(is_judged)


class RepeatRecommender:
    """Ranks the session's own items, the newest first."""

    def rank(self, requests: Sequence[Request], is_judged: Sequence[bool]) -> Sequence[Scores | None]:
        """Return each item of the session once."""
        return [
            scores_in_order(dict.fromkeys(item for item in reversed(request.items) if item)) if judge else None
            for request, judge in zip(requests, is_judged, strict=True)
        ]


class CooccurrenceRecommender:
    """Ranks items by how often they came next after the session's last item, in the partition so far.

    An item may follow itself.
    """

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)  # by partition and item

    def rank(self, requests: Sequence[Request], is_judged: Sequence[bool]) -> Sequence[Scores | None]:
        """Return the followers of each session's last item, the most frequent first, ties in order of counting."""
        return [
            self._rank_followers(request) if judge else self._count(request)
            for request, judge in zip(requests, is_judged, strict=True)
        ]

    def _rank_followers(self, request: Request) -> Scores | None:
        self._count(request)
        last = next((item for item in reversed(request.items) if item), "")
        counts = self._counts.get((_partition(request), last))
        return scores_in_order(item for item, _ in counts.most_common(FOLLOWERS)) if counts else None

    def _count(self, request: Request) -> None:
        """Count the event's item as a follower of the session's previous item."""
        event, items = request.event, request.items
        if not isinstance(event, ItemEvent) or isinstance(event, Impression) or request.late:
            return
        if request.withheld & TRAINING or request.client >= FIRST_MACHINE:
            return
        if items[-1] != event.item_id or request.actions[-1] == REMOVE_FROM_CART:
            return
        previous = next((item for item in reversed(items[:-1]) if item), "")
        if not previous:
            return
        counts = self._counts[_partition(request), previous]
        counts[event.item_id] += 1
        if len(counts) > COUNTED_FOLLOWERS:
            frequent = counts.most_common(COUNTED_FOLLOWERS // 2)
            counts.clear()
            counts.update(dict(frequent))


def scores_in_order(items: Iterable[str]) -> Scores:
    """Return items, best first, in the form of a bundle's scores, without probabilities."""
    order = list(items)
    return Scores(list(range(len(order))), [0.0] * len(order), {}, 0.0, order)


def _partition(request: Request) -> str:
    return request.decision_id.rpartition("-")[0]


def make_recommender(arm: Arm, scorers: dict[str, Scorer]) -> Recommender:
    """Return a new recommender for an arm.

    Args:
        arm: Arm of the backtest.
        scorers: Loaded bundles by folder; a missing bundle is loaded and added.

    Raises:
        BundleError: The arm's bundle cannot be served.
    """
    match arm.baseline:
        case "repeat":
            return RepeatRecommender()
        case "co-occurrence":
            return CooccurrenceRecommender()
        case "popularity":
            return PopularityRecommender()
        case None:
            return BundleRecommender(load_scorer(arm, scorers))


def load_scorer(arm: Arm, scorers: dict[str, Scorer]) -> Scorer:
    """Return the scorer of an arm's bundle, loaded once for all arms."""
    scoring = arm.settings.scoring
    if scoring.bundle not in scorers:
        bundle = load_bundle(Path(scoring.bundle), scoring.score_threads, scoring.min_overlap)
        scorers[scoring.bundle] = Scorer(bundle, scoring.score_batch)
    return scorers[scoring.bundle]
