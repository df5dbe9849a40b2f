"""List changes: how much the shown items change without each part of the decision, measured on a replay."""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import msgspec

from clickscore.schemas.decisions import Recommendation, page_items
from clickscore.schemas.events import Impression
from clickscore.stream.deciders import make_policy
from clickscore.stream.due_decisions import DecidedPage, DueDecision
from clickscore.stream.policy.experiments import MODEL, unit_hash
from clickscore.stream.policy.pages import decide_page
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.policy.policy_parts import policies_without_a_part
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request, Scores
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import PolicySettings

SESSION, HISTORY, POPULARITY = "session", "history", "popularity"
"""Names of the parts beside the rules: the whole session, the events before the newest, and popular items."""

Alternative = Callable[[Request, Scores | None, AnyCatalogue], Collection[str]]
"""Returns the items shown without a part."""


class PartShare(msgspec.Struct, frozen=True, kw_only=True):
    """How much the lists change without a part."""

    part: str
    """Name of the part: `session`, `history`, `popularity`, or the field of the policy file."""
    items: float
    """Share of the shown items to be replaced."""
    pages: float
    """Share of the pages with another item or another order."""


class ListChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements of a replay."""

    events: int
    """Number of events with a decision, without impressions."""
    measured: int
    """Number of events in the sample."""
    shown: int
    """Number of shown items in the sample."""
    by_model: int
    """Number of shown items from the model."""
    sponsored: int
    """Number of shown items that are ads."""
    pages_with_ads: int
    """Number of pages with an ad, in the list or beside."""
    parts: tuple[PartShare, ...]
    """Parts, the largest share of items first."""


class _Counts(NamedTuple):
    items: int = 0
    pages: int = 0


class ListWatch:
    """Decides on sampled events again without each part. An instance is a `DecisionWatch`."""

    def __init__(
        self, policy_file: PolicyFile, scorer: Scorer | None, settings: PolicySettings, *, share: float
    ) -> None:
        """Prepare the alternatives.

        Args:
            policy_file: The policy.
            scorer: The model; None without a model.
            settings: Values for fields left out of the policy file.
            share: Share of the events in the sample, 0 to 1; the same events in every run.
        """
        self._settings = settings
        self._scorer = scorer
        self._share = share
        self._alternatives = dict(self._make_alternatives(policy_file))
        self._counts = dict.fromkeys(self._alternatives, _Counts())
        self._events = self._measured = self._shown = self._by_model = self._sponsored = self._pages_with_ads = 0

    def __call__(self, case: DueDecision, scores: Scores | None, page: DecidedPage) -> None:
        """Count a decision, and the decisions without each part; an impression asks for no page, and does not count."""
        request = case.request
        if isinstance(request.event, Impression):
            return
        self._events += 1
        if unit_hash("statement", request.decision_id) >= self._share:
            return
        decision = _decode(page.recommendation.value or b"")
        choices = page_items(decision)
        shown = [choice.item_id for choice in choices]
        self._measured += 1
        self._shown += len(shown)
        self._by_model += sum(choice.reason == MODEL for choice in choices)
        self._sponsored += sum(choice.sponsored for choice in choices)
        self._pages_with_ads += page.ad is not None and bool(page.ad.slots)
        for name, alternative in self._alternatives.items():
            items_without = list(alternative(request, scores, case.catalogue))
            common = len(set(shown) & set(items_without))
            items, pages = self._counts[name]
            self._counts[name] = _Counts(items + len(shown) - common, pages + (shown != items_without))

    def changes(self) -> ListChanges:
        """Return the measurements."""
        parts = [
            PartShare(
                part=name,
                items=counts.items / max(1, self._shown),
                pages=counts.pages / max(1, self._measured),
            )
            for name, counts in self._counts.items()
        ]
        return ListChanges(
            events=self._events,
            measured=self._measured,
            shown=self._shown,
            by_model=self._by_model,
            sponsored=self._sponsored,
            pages_with_ads=self._pages_with_ads,
            parts=tuple(sorted(parts, key=lambda part: (-part.items, -part.pages, part.part))),
        )

    def _make_alternatives(self, policy_file: PolicyFile) -> Iterator[tuple[str, Alternative]]:
        policy = make_policy(policy_file, self._scorer, self._settings)
        if self._scorer is not None:
            yield SESSION, lambda request, _, catalogue: _items(policy, request, None, catalogue)
            yield HISTORY, self._without_history(policy, self._scorer)
        yield POPULARITY, self._without_popularity(policy_file)
        for name, reduced in policies_without_a_part(policy_file):
            yield name, self._with_policy(make_policy(reduced, self._scorer, self._settings))

    def _with_policy(self, policy: Policy) -> Alternative:
        return lambda request, scores, catalogue: _items(policy, request, scores, catalogue)

    def _without_history(self, policy: Policy, scorer: Scorer) -> Alternative:
        """Return the decision on the newest event of the session alone."""

        def decide(request: Request, _: Scores | None, catalogue: AnyCatalogue) -> Collection[str]:
            newest = msgspec.structs.replace(
                request, items=request.items[-1:], actions=request.actions[-1:], ages=request.ages[-1:]
            )
            return _items(policy, newest, scorer.score([newest])[0], catalogue)

        return decide

    def _without_popularity(self, policy_file: PolicyFile) -> Alternative:
        policy = make_policy(policy_file, self._scorer, self._settings, has_prior=False)

        def decide(request: Request, scores: Scores | None, catalogue: AnyCatalogue) -> Collection[str]:
            return _items(policy, msgspec.structs.replace(request, popular=[]), scores, catalogue)

        return decide


def _items(policy: Policy, request: Request, scores: Scores | None, catalogue: AnyCatalogue) -> list[str]:
    """Return the items of a page, shelf by shelf."""
    recommendation, _ = decide_page(policy, request, scores, catalogue)
    decision = _decode(recommendation.value)
    return [choice.item_id for choice in page_items(decision)]


_decode = msgspec.json.Decoder(Recommendation).decode
