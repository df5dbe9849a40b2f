"""Policy: which of the scored candidates a user is shown.

A short list of rules over one request, each a function of its own. A rule names the items that it forbids; the best
of the others are shown. Diversity, exploration, boosts and caps take their places in `RULES` and `Policy`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from clickscore.schemas.decisions import (
    Because,
    Choice,
    Recommendation,
    ShelvedRecommendation,
    encode_decision,
    rounded,
)
from clickscore.schemas.events import ACTIONS
from clickscore.stream.policy.experiments import CONTROL, MODEL
from clickscore.stream.policy.rules import POLICY_VERSION, RULES
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Request, Scores
from clickscore.stream.settings import PolicySettings

Answer = TypeVar("Answer", Recommendation, ShelvedRecommendation)


class Shelf:
    """The items to show in answer to one request, filled from the best down."""

    def __init__(self, request: Request, catalogue: Catalogue, k: int) -> None:
        self.choices: list[Choice] = []
        self.filtered: dict[str, int] = {}
        self._k = k
        self._shown: set[str] = set()
        self._forbidden = [(name, items) for name, rule in RULES if (items := rule(request, catalogue))]

    def fill(
        self,
        candidates: Iterable[tuple[str, float]],
        reason: str,
        because: Callable[[int], tuple[Because, ...]] = lambda _: (),
    ) -> None:
        """Add the candidates that no rule forbids, in order, until the shelf is full.

        Args:
            candidates: Items with their scores, best first.
            reason: Where they come from.
            because: The events that spoke for a candidate, by its place.
        """
        choices, shown, forbidden, k = self.choices, self._shown, self._forbidden, self._k
        for place, (item, score) in enumerate(candidates):
            if len(choices) == k:
                return
            if item in shown:
                continue
            for rule, items in forbidden:
                if item in items:
                    self.filtered[rule] = self.filtered.get(rule, 0) + 1
                    break
            else:
                shown.add(item)
                choices.append(Choice(item_id=item, score=score, propensity=1.0, reason=reason, because=because(place)))


class _Popular(NamedTuple):
    """What is shown to everybody, as long as ranking and catalogue stay the same."""

    ranking: list[str]
    version: int
    shelf: Shelf
    items: msgspec.Raw


class Policy:
    """Decides what to recommend: the model's candidates, then what is popular, as far as the rules allow."""

    def __init__(
        self, settings: PolicySettings, catalogue: Catalogue, bundle: str | None, prior: Sequence[str]
    ) -> None:
        """Decide by these.

        Args:
            settings: `k` and `reasons`.
            catalogue: Stock and flags.
            bundle: Version of the bundle that scores, none where none does.
            prior: What was popular in the bundle's training data, best first: shown after what is popular now.
        """
        self._k = settings.k
        self._most = settings.reasons
        self._catalogue = catalogue
        self._bundle = bundle
        self._prior = prior
        self._popular: _Popular | None = None

    def recommend(self, request: Request, scores: Scores | None) -> Recommendation:
        """Return the decision on a request; no `scores` where the model cannot speak or may not."""
        shelf = self._fill(request, scores)
        return self._answer(Recommendation, request, scores, tuple(shelf.choices), shelf.filtered)

    def encoded(self, request: Request, scores: Scores | None) -> bytes:
        """Return the same decision as its topic holds it; what many are shown is not encoded for each."""
        if scores is not None or request.bought:
            return encode_decision(self.recommend(request, scores))
        popular = self._popular_for(request)
        return encode_decision(
            self._answer(ShelvedRecommendation, request, None, popular.items, popular.shelf.filtered)
        )

    def _answer(
        self, kind: Callable[..., Answer], request: Request, scores: Scores | None, items: object, filtered: object
    ) -> Answer:
        event = request.event
        return kind(
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
            items=items,
            filtered=filtered,
        )

    def _fill(self, request: Request, scores: Scores | None) -> Shelf:
        if scores is None and not request.bought:
            return self._popular_for(request).shelf
        shelf = Shelf(request, self._catalogue, self._k)
        if scores is not None:
            shelf.fill(scores.candidates(), MODEL, self._because(request, scores))
        if len(shelf.choices) < self._k:
            self._fill_popular(shelf, request)
        return shelf

    def _because(self, request: Request, scores: Scores) -> Callable[[int], tuple[Because, ...]]:
        """Return what names the events that spoke most for a candidate: of equal ones the newer first."""
        reasons, most = scores.reasons, self._most
        if reasons is None or not most:
            return lambda _: ()
        return lambda candidate: tuple(
            Because(item_id=request.items[at], action=ACTIONS[request.actions[at]], contribution=rounded(brought))
            for brought, at in sorted(reasons.contributions_to(candidate), reverse=True)[:most]
            if rounded(brought) > 0
        )

    def _popular_for(self, request: Request) -> _Popular:
        """Return what everybody sees who has neither scores nor purchases: made once for a ranking and a catalogue."""
        popular = self._popular
        if popular is None or popular.ranking is not request.popular or popular.version != self._catalogue.version:
            shelf = Shelf(request, self._catalogue, self._k)
            self._fill_popular(shelf, request)
            items = msgspec.Raw(encode_decision(shelf.choices))
            popular = self._popular = _Popular(request.popular, self._catalogue.version, shelf, items)
        return popular

    def _fill_popular(self, shelf: Shelf, request: Request) -> None:
        shelf.fill(((item, 0.0) for item in request.popular), CONTROL)
        shelf.fill(((item, 0.0) for item in self._prior), CONTROL)
