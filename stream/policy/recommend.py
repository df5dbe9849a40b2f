"""Recommendations: the model's candidates with a fallback to popularity, filtered, re-ranked and selected.

The stages of a decision run in this order:

1. candidates: the model's, then the popular items of the partition, then the popular items of the bundle's
   training data;
2. filters (`policy.filters`) remove forbidden items;
3. re-rankers reorder the slate; the default is no re-ranker;
4. the selection takes at most `k` choices and states the propensity of each.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple, TypeVar

import msgspec

from clickscore.schemas.clients import CLIENT_FIELDS, REASON_FIELDS
from clickscore.schemas.decisions import (
    Because,
    Choice,
    Recommendation,
    RecommendationContext,
    count_model_items,
    encode_decision,
    round_score,
)
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.purposes import WITHHELD
from clickscore.stream.policy.experiments import CONTROL, MODEL
from clickscore.stream.policy.filters import forbidden_items
from clickscore.stream.policy.slate import CandidateSource, Reranker, Selection, fill_slate, select_first
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request, Scores
from clickscore.stream.settings import PolicySettings

POLICY_VERSION = "1"
"""Version in the field `policy` of decisions. Raise the version with each change of filters or stages."""


class PreEncodedRecommendation(
    RecommendationContext, frozen=True, kw_only=True, tag_field="type", tag="recommendation", gc=False
):
    """A recommendation with items already encoded as JSON: popular items are encoded once for many users."""

    items: msgspec.Raw
    filtered: dict[str, int]


_Record = TypeVar("_Record", Recommendation, PreEncodedRecommendation)


class EncodedRecommendation(NamedTuple):
    """A recommendation as JSON, with the number of items by origin."""

    value: bytes
    from_model: int
    from_fallback: int
    """Number of popular items."""


class _PopularItems(NamedTuple):
    """Choices for all users without scores and purchases, valid until ranking or catalogue change."""

    ranking: list[str]
    catalogue: AnyCatalogue
    catalogue_version: int
    choices: tuple[Choice, ...]
    filtered: dict[str, int]
    encoded: msgspec.Raw
    """`choices` as JSON."""


class Policy:
    """Decides on the items to recommend. A decision depends on request, scores and catalogue alone."""

    def __init__(
        self,
        settings: PolicySettings,
        bundle: str | None,
        prior: Sequence[str],
        *,
        rerankers: Sequence[Reranker] = (),
        select: Selection = select_first,
    ) -> None:
        """Set up the stages.

        Args:
            settings: `k` and `reasons`.
            bundle: Version of the scoring bundle; absent without a model.
            prior: Popular items of the bundle's training data, best first: the last fallback.
            rerankers: Re-rankers of the filtered candidates, in the order of their runs.
            select: The selection, after the last re-ranker.
        """
        self._k = settings.k
        self._max_reasons = settings.reasons
        self._bundle = bundle
        self._prior = prior
        self._rerankers = rerankers
        self._select = select
        # Re-rankers and other selections may pick any candidate, and may treat each request differently. Without them
        # the first k candidates are selected, so no other is looked up, and popular items are shared between users.
        self._is_plain = not rerankers and select is select_first
        self._slate_limit = settings.k if self._is_plain else sys.maxsize
        self._popular: _PopularItems | None = None

    def recommend(self, request: Request, scores: Scores | None, catalogue: AnyCatalogue) -> Recommendation:
        """Return the decision on a request.

        Args:
            request: The event, with the user's session.
            scores: The model's output; without scores the decision falls back to popularity.
            catalogue: Stock and hidden items in the epoch of the request.
        """
        if scores is None and not request.bought and self._is_plain:
            popular = self._popular_items(request, catalogue)
            return self._record(Recommendation, request, None, popular.choices, popular.filtered)
        choices, filtered = self._choose(request, scores, catalogue)
        return self._record(Recommendation, request, scores, choices, filtered)

    def encoded(self, request: Request, scores: Scores | None, catalogue: AnyCatalogue) -> EncodedRecommendation:
        """Return `recommend` as JSON; popular items are encoded once for many users.

        Args:
            request: The event, with the user's session.
            scores: The model's output; without scores the decision falls back to popularity.
            catalogue: Stock and hidden items in the epoch of the request.
        """
        if scores is not None or request.bought or not self._is_plain:
            decision = self.recommend(request, scores, catalogue)
            from_model = count_model_items(decision) if scores is not None else 0
            return EncodedRecommendation(encode_decision(decision), from_model, len(decision.items) - from_model)
        popular = self._popular_items(request, catalogue)
        record = self._record(PreEncodedRecommendation, request, None, popular.encoded, popular.filtered)
        return EncodedRecommendation(encode_decision(record), 0, len(popular.choices))

    def _record(
        self, record: Callable[..., _Record], request: Request, scores: Scores | None, items: object, filtered: object
    ) -> _Record:
        event = request.event
        return record(
            decision_id=request.decision_id,
            user_id=event.user_id,
            event_id=event.event_id,
            ts=event.ts,
            bundle=self._bundle if scores is not None else None,
            policy=POLICY_VERSION,
            variant=request.variant,
            session_id=request.session_id,
            session_length=request.session_length,
            late=request.late,
            actions=scores.actions if scores is not None else None,
            purchase=scores.purchase if scores is not None else None,
            withheld=WITHHELD[request.withheld],
            client=CLIENT_FIELDS[request.client],
            client_reason=REASON_FIELDS[request.client],
            items=items,
            filtered=filtered,
        )

    def _choose(
        self, request: Request, scores: Scores | None, catalogue: AnyCatalogue
    ) -> tuple[tuple[Choice, ...], dict[str, int]]:
        """Run the stages; return the choices, and the number of candidates removed by each filter.

        Args:
            request: The event, with the user's session.
            scores: The model's output; absent for the fallback.
            catalogue: Stock and hidden items in the epoch of the request.
        """
        forbidden = forbidden_items(request, catalogue)
        slate, filtered = fill_slate(self._sources(request, scores), forbidden, self._slate_limit)
        for rerank in self._rerankers:
            slate = rerank(slate, request, catalogue)
        return tuple(self._select(slate, request, self._k)), filtered

    def _sources(self, request: Request, scores: Scores | None) -> Iterator[CandidateSource]:
        """Yield the model's candidates, then the fallback to popularity."""
        if scores is not None:
            yield MODEL, scores.candidates(), self._because(request, scores)
        yield CONTROL, zip(request.popular, repeat(0.0)), None
        yield CONTROL, zip(self._prior, repeat(0.0)), None

    def _because(self, request: Request, scores: Scores) -> Callable[[int], tuple[Because, ...]] | None:
        """Return a function from a candidate's index to the events with the largest contributions.

        Of equal contributions the newer event comes first.
        """
        reasons, limit = scores.reasons, self._max_reasons
        if reasons is None or not limit:
            return None
        return lambda candidate: tuple(
            Because(
                item_id=request.items[position],
                action=ACTIONS[request.actions[position]],
                contribution=round_score(contribution),
            )
            for contribution, position in sorted(reasons.contributions_to(candidate), reverse=True)[:limit]
            if round_score(contribution) > 0
        )

    def _popular_items(self, request: Request, catalogue: AnyCatalogue) -> _PopularItems:
        """Return the shared popular items, chosen anew when the ranking or the catalogue has changed."""
        popular, version = self._popular, catalogue.version
        if (
            popular is None
            or popular.ranking is not request.popular
            or popular.catalogue is not catalogue
            or popular.catalogue_version != version
        ):
            choices, filtered = self._choose(request, None, catalogue)
            encoded = msgspec.Raw(encode_decision(choices))
            popular = self._popular = _PopularItems(request.popular, catalogue, version, choices, filtered, encoded)
        return popular
