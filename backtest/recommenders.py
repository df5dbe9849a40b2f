"""Recommenders: what ranks items for an arm: a bundle, or a baseline that has learned from the past of the log alone.

A recommender is asked in the order of the log. It may remember what it was asked, which has happened; what comes later
in the same batch has not, and must not change an answer (see `backtest.lookahead`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from clickscore.backtest.arms import Arm
from clickscore.schemas.events import ACTIONS, Impression, ItemEvent
from clickscore.stream.request import Request, Scores
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer

FOLLOWERS = 64
"""Items that may follow another and are recommended, as many as a bundle's candidates."""
COUNTED = 4 * FOLLOWERS
"""Followers that are counted of an item before the rarest are forgotten."""

REMOVAL = ACTIONS.index("remove_from_cart")


class Recommender(Protocol):
    """Ranks items for requests."""

    def answer(self, requests: Sequence[Request], due: Sequence[bool]) -> Sequence[Scores | None]:
        """Return a ranking for each request that is due; none for the others, or where it has nothing to say."""
        ...


class BundleRecommender:
    """What a bundle scores."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def answer(self, requests: Sequence[Request], due: Sequence[bool]) -> Sequence[Scores | None]:
        """Return the bundle's scores."""
        wanted = [request for request, is_due in zip(requests, due, strict=True) if is_due]
        found = iter(self._scorer.score(wanted))
        return [next(found) if is_due else None for is_due in due]


class PopularityRecommender:
    """Nothing of its own: the policy falls back on what is popular, as a worker without a bundle does."""

    def answer(self, requests: Sequence[Request], due: Sequence[bool]) -> Sequence[Scores | None]:
        """Return nothing."""
        del requests
        return [None] * len(due)


class RepeatRecommender:
    """The session's own items, the newest first."""

    def answer(self, requests: Sequence[Request], due: Sequence[bool]) -> Sequence[Scores | None]:
        """Return each item of a session once."""
        return [
            ranking(dict.fromkeys(item for item in reversed(request.items) if item)) if is_due else None
            for request, is_due in zip(requests, due, strict=True)
        ]


class CooccurrenceRecommender:
    """What most often came next after the session's last item, in the partition so far, repeats of it included."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)  # by partition and item

    def answer(self, requests: Sequence[Request], due: Sequence[bool]) -> Sequence[Scores | None]:
        """Return the followers of each session's last item, the most frequent first; of equals the first counted."""
        return [
            self._answer_one(request) if is_due else self._learn(request)
            for request, is_due in zip(requests, due, strict=True)
        ]

    def _answer_one(self, request: Request) -> Scores | None:
        self._learn(request)
        last = next((item for item in reversed(request.items) if item), "")
        counts = self._counts.get((_partition(request), last))
        return ranking(item for item, _ in counts.most_common(FOLLOWERS)) if counts else None

    def _learn(self, request: Request) -> None:
        """Count an event on an item as a follower of the one before it."""
        event, items = request.event, request.items
        if not isinstance(event, ItemEvent) or isinstance(event, Impression) or request.late:
            return
        if items[-1] != event.item_id or request.actions[-1] == REMOVAL:
            return
        before = next((item for item in reversed(items[:-1]) if item), "")
        if not before:
            return
        counts = self._counts[_partition(request), before]
        counts[event.item_id] += 1
        if len(counts) > COUNTED:
            kept = counts.most_common(COUNTED // 2)
            counts.clear()
            counts.update(dict(kept))


def ranking(items: Iterable[str]) -> Scores:
    """Return items, best first, in the form of a bundle's answer; it says nothing about actions and purchases."""
    order = list(items)
    return Scores(list(range(len(order))), [0.0] * len(order), {}, 0.0, order)


def _partition(request: Request) -> str:
    return request.decision_id.rpartition("-")[0]


def recommender_of(arm: Arm, scorers: dict[str, Scorer]) -> Recommender:
    """Return a new recommender for an arm; a bundle that is not among `scorers` yet is loaded into them.

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
            return BundleRecommender(scorer_of(arm, scorers))


def scorer_of(arm: Arm, scorers: dict[str, Scorer]) -> Scorer:
    """Return what scores with an arm's bundle, loaded once."""
    folder = arm.settings.scoring.bundle
    if folder not in scorers:
        scorers[folder] = Scorer(
            load_bundle(Path(folder), arm.settings.scoring.score_threads, arm.settings.scoring.min_overlap),
            arm.settings.scoring.score_batch,
        )
    return scorers[folder]
