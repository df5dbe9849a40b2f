"""Recommendations: the model's candidates with a fallback to popularity, filtered, re-ranked and selected.

The stages of a decision run in this order:

1. candidates: the model's, then the popular items of the partition, then the popular items of the bundle's training
   data; where the bundle does not know the current item, items like it take every other place;
2. filters (`policy.filters`) remove forbidden items;
3. re-rankers (`policy.rerankers`) reorder the slate; the default is no re-ranker;
4. caps (`policy.caps`) limit the places of groups of items;
5. the selection takes at most `k` choices and states the propensity of each;
6. pins (`policy.pins`) put items into fixed places.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from operator import attrgetter
from typing import NamedTuple, TypeVar

import msgspec

from clickscore.schemas.clients import CLIENT_FIELDS, REASON_FIELDS
from clickscore.schemas.decisions import (
    PLAIN_LIST,
    Because,
    Choice,
    Recommendation,
    RecommendationContext,
    ShownShelf,
    encode_decision,
    page_items,
)
from clickscore.schemas.events import AnyEvent
from clickscore.schemas.purposes import WITHHELD
from clickscore.stream.policy.ad_plan import make_ad_plan
from clickscore.stream.policy.caps import apply_caps, count_places, make_caps
from clickscore.stream.policy.diversity import FindVectors, make_diversity
from clickscore.stream.policy.experiments import CONTROL, MODEL, SIMILAR
from clickscore.stream.policy.filters import ON_PAGE, forbidden_items, make_filters
from clickscore.stream.policy.item_filters import make_item_filters
from clickscore.stream.policy.pins import make_pins
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.policy.rerankers import make_rerankers
from clickscore.stream.policy.rule_trace import RuleEffect, RuleTrace
from clickscore.stream.policy.rules import (
    AnyReranker,
    CatalogueFilter,
    RequestFilter,
    Reranker,
    Rule,
    UserFilter,
    bind_rerankers,
)
from clickscore.stream.policy.session_reasons import find_reasons
from clickscore.stream.policy.shelf_plan import ShelfPlan, make_shelf_plan, shelves_by_event
from clickscore.stream.policy.shelf_policy import job_of
from clickscore.stream.policy.shelf_sources import BOUGHT, NEW, TOGETHER, VIEWED
from clickscore.stream.policy.slate import (
    CandidateSource,
    Pick,
    Selection,
    Slate,
    alternate,
    make_choices,
    pick_candidates,
    select_first,
)
from clickscore.stream.reference.catalogue import newest_item
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request, Scores
from clickscore.stream.settings import PolicySettings

ORIGINS = (MODEL, SIMILAR, CONTROL, VIEWED, TOGETHER, BOUGHT, NEW)
"""Origins of the items that are counted."""

SLATE_SIZE = 64
"""Largest number of candidates that re-rankers and selections see: as many as a bundle has."""


Forbidden = Sequence[tuple[str, Container[str]]]
"""Name and forbidden items of each filter."""


class PreEncodedRecommendation(
    RecommendationContext, frozen=True, kw_only=True, tag_field="type", tag="recommendation", gc=False
):
    """A recommendation with items already encoded as JSON: popular items are encoded once for many users."""

    items: msgspec.Raw
    filtered: dict[str, int]
    moved: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


_Record = TypeVar("_Record", Recommendation, PreEncodedRecommendation)


class EncodedRecommendation(msgspec.Struct, frozen=True, gc=False):
    """A recommendation as JSON, with the number of items by origin."""

    value: bytes
    origins: dict[str, int]
    """Number of items by reason, those of all shelves; pinned and sponsored items are not counted."""
    filtered: dict[str, int]
    """Number of candidates removed by each rule."""
    moved: dict[str, int]
    """Number of shown places to which each re-ranker brought another item."""
    shelves: Sequence[ShownShelf]
    """The lists of the page, the main shelf or the plain list first."""


def encode_recommendation(decision: Recommendation) -> EncodedRecommendation:
    """Return a recommendation as JSON, with the number of items by origin."""
    reasons = [choice.reason for choice in page_items(decision)]
    origins = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons) if reason in ORIGINS}
    filtered, moved = decision.filtered, decision.moved or {}
    shelves = [ShownShelf(decision.shelf or PLAIN_LIST, decision.items)]
    if decision.shelves:
        filtered = Counter(filtered) + sum_counts(shelf.filtered for shelf in decision.shelves)
        moved = Counter(moved) + sum_counts(shelf.moved for shelf in decision.shelves)
        shelves += [ShownShelf(shelf.name, shelf.items) for shelf in decision.shelves]
    return EncodedRecommendation(encode_decision(decision), origins, filtered, moved, shelves)


def sum_counts(parts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """Return the sums of counts by name."""
    return sum(map(Counter, parts), Counter[str]())


class _PopularItems(NamedTuple):
    """Choices for users without scores and without a rule on any of the items, until ranking or catalogue change."""

    ranking: list[str]
    catalogue: AnyCatalogue
    catalogue_version: int
    choices: tuple[Choice, ...]
    filtered: dict[str, int]
    encoded: msgspec.Raw
    """`choices` as JSON."""
    considered: frozenset[str]
    """Chosen and removed items: the decision is the same for every user without a rule on any of these items."""


class Policy:
    """Decides on the items to recommend. A decision depends on request, scores and catalogue alone."""

    def __init__(
        self,
        policy_file: PolicyFile,
        bundle: str | None,
        prior: Sequence[str],
        settings: PolicySettings | None = None,
        *,
        known_items: Container[str] | None = None,
        find_vectors: FindVectors | None = None,
        rerankers: Sequence[AnyReranker] = (),
        select: Selection = select_first,
        shelf: ShelfPlan | None = None,
    ) -> None:
        """Set up the stages.

        Args:
            policy_file: Rules, sizes and ads.
            bundle: Version of the scoring bundle; absent without a model.
            prior: Popular items of the bundle's training data, best first: the last fallback.
            settings: Values for what the policy file leaves out: `k`, `reasons` and `reserve`.
            known_items: Items that the bundle knows; None without a model, where popular items stand for all items.
            find_vectors: Finds the vectors of items in the bundle, for diversity; None without a model.
            rerankers: Re-rankers of the filtered candidates, in the order of their runs.
            select: The selection, after the last re-ranker.
            shelf: The shelf that this policy fills; None for a plain list, whose policy knows those of the shelves.
        """
        settings = settings or PolicySettings()
        self.shelf = shelf
        """The shelf that this policy fills; None for a plain list."""
        self._source = shelf.source if shelf else None
        self._policy_file, self._settings = policy_file, settings
        self._pages = shelves_by_event(policy_file.pages)
        self._shelves: dict[str, tuple[ShelfPlan, Policy]] = {}
        self.label = shelf.label if shelf else policy_file.label
        """Version and content hash of the policy file."""
        self.bundle = bundle
        """Version of the scoring bundle; None without a model."""
        self.filters = (
            *make_filters(policy_file.hide),
            *make_item_filters(policy_file),
            *((ON_PAGE,) if shelf else ()),
        )
        """Filters in the order of their runs; ads pass the filters, too."""
        self._user_filters = [rule for rule in self.filters if isinstance(rule, UserFilter)]
        self._request_filters = [rule for rule in self.filters if isinstance(rule, RequestFilter)]
        self._catalogue_filters = [rule for rule in self.filters if isinstance(rule, CatalogueFilter)]
        self.shows_ads = policy_file.ads.shown
        """Whether ads are shown beside the items."""
        self._k = shelf.size if shelf else policy_file.size(settings)
        self.ad_plan = make_ad_plan(policy_file, settings, self._k)
        """Ad placements and limits."""
        self._max_reasons = policy_file.max_reasons(settings)
        self._prior = prior
        self._known_items, self._find_vectors = known_items, find_vectors
        diversity = make_diversity(policy_file.diversity, find_vectors, self._k)
        self._rerankers = (*make_rerankers(policy_file), *diversity, *rerankers)
        self._caps = make_caps(policy_file.limit, self._k)
        self._personal_caps = [cap for cap in self._caps if cap.is_personal]
        self._pins = make_pins(policy_file.pin, self.filters, self._k)
        self._select = select
        # Re-rankers and other selections may pick any candidate, and may treat each request differently. Without them
        # the first k candidates are selected, so no other is looked up, and popular items are shared between users.
        self._is_plain = not self._rerankers and not self._pins and select is select_first
        self._popular: _PopularItems | None = None
        self._forbidden: tuple[Request | None, AnyCatalogue | None, int, Forbidden] = (None, None, 0, ())

    def find_shelves(self, event: AnyEvent) -> list[tuple[ShelfPlan, "Policy"]]:
        """Return plan and policy of each shelf on the page of an event, from top to bottom; none for a plain list.

        Names that the policy does not know are left out, and so is each shelf of ads but the first. Where only ads
        remain, the page also has the list `for_you`.
        """
        names = event.placements or self._pages.get(type(event))
        if not names:
            return []
        shelves = [shelf for name in dict.fromkeys(names) if (shelf := self._find_shelf(name))]
        ads = [shelf for shelf in shelves if shelf[0].job == "sponsored"]
        shelves = [shelf for shelf in shelves if shelf not in ads[1:]]
        if shelves and all(plan.job == "sponsored" for plan, _ in shelves):
            shelves += [shelf for shelf in (self._find_shelf("for_you"),) if shelf]
        return shelves

    def reads_companions(self, event: AnyEvent) -> bool:
        """Return whether the page of an event has a shelf of what users bought together."""
        names = event.placements or self._pages.get(type(event))
        if not names:
            return False
        return any(job_of(name, self._policy_file.shelves) == "complement" for name in names)

    def _find_shelf(self, name: str) -> tuple[ShelfPlan, "Policy"] | None:
        """Return plan and policy of a shelf; None for an unknown name."""
        shelf = self._shelves.get(name)
        if shelf is None:
            plan = make_shelf_plan(self._policy_file, name, self._settings)
            if plan is None:
                return None
            policy = Policy(
                plan.rules,
                self.bundle,
                self._prior,
                self._settings,
                known_items=self._known_items,
                find_vectors=self._find_vectors,
                shelf=plan,
            )
            shelf = self._shelves[name] = plan, policy
        return shelf

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Rules of the policy in the order of their runs, each with a name and a sentence."""
        return (*self.filters, *self._rerankers, *self._caps, *self._pins)

    def forbidden(self, request: Request, catalogue: AnyCatalogue) -> Sequence[tuple[str, Container[str]]]:
        """Return name and forbidden items of each filter; the last answer is kept for the ad on the same request."""
        of_request, of_catalogue, version, forbidden = self._forbidden
        if of_request is not request or of_catalogue is not catalogue or version != catalogue.version:
            forbidden = forbidden_items(self.filters, request, catalogue)
            self._forbidden = request, catalogue, catalogue.version, forbidden
        return forbidden

    def recommend(self, request: Request, scores: Scores | None, catalogue: AnyCatalogue) -> Recommendation:
        """Return the decision on a request.

        Args:
            request: The event, with the user's session.
            scores: The model's output; without scores the decision falls back to popularity.
            catalogue: Stock and hidden items in the epoch of the request.
        """
        popular = self._popular_items(request, catalogue) if self._is_popular(request, scores) else None
        if popular is not None:
            return self._record(Recommendation, request, None, popular.choices, popular.filtered)
        return self._decide(request, scores, catalogue)

    def _decide(self, request: Request, scores: Scores | None, catalogue: AnyCatalogue) -> Recommendation:
        """Return the decision on a request that is not answered with the shared popular items."""
        forbidden = self.forbidden(request, catalogue)
        choices, filtered, moved = self._choose(request, scores, catalogue, forbidden)
        return self._record(Recommendation, request, scores, choices, filtered, moved=moved)

    def encoded(self, request: Request, scores: Scores | None, catalogue: AnyCatalogue) -> EncodedRecommendation:
        """Return `recommend` as JSON; popular items are encoded once for many users.

        Args:
            request: The event, with the user's session.
            scores: The model's output; without scores the decision falls back to popularity.
            catalogue: Stock and hidden items in the epoch of the request.
        """
        popular = self._popular_items(request, catalogue) if self._is_popular(request, scores) else None
        if popular is not None:
            record = self._record(PreEncodedRecommendation, request, None, popular.encoded, popular.filtered)
            origins = {CONTROL: len(popular.choices)} if popular.choices else {}
            shelves = [ShownShelf(PLAIN_LIST, popular.choices)]
            return EncodedRecommendation(encode_decision(record), origins, popular.filtered, {}, shelves)
        return encode_recommendation(self._decide(request, scores, catalogue))

    def _is_popular(self, request: Request, scores: Scores | None) -> bool:
        """Return whether popular items alone are candidates, and no stage can treat a user differently."""
        return scores is None and self._is_plain and self._source is None and self._unknown_item(request) is None

    def _unknown_item(self, request: Request) -> str | None:
        """Return the current item, if the bundle does not know the item.

        None in the control, which shows popular items.
        """
        if self._known_items is None or request.variant == CONTROL:
            return None
        item = newest_item(request.items)
        return item if item and item not in self._known_items else None

    def _record(
        self,
        record: Callable[..., _Record],
        request: Request,
        scores: Scores | None,
        items: object,
        filtered: dict[str, int],
        *,
        moved: dict[str, int] | None = None,
    ) -> _Record:
        event = request.event
        return record(
            decision_id=request.decision_id,
            user_id=event.user_id,
            event_id=event.event_id,
            ts=event.ts,
            bundle=self.bundle if scores is not None else None,
            policy=self.label,
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
            moved=moved or msgspec.UNSET,
        )

    def _choose(
        self,
        request: Request,
        scores: Scores | None,
        catalogue: AnyCatalogue,
        forbidden: Sequence[tuple[str, Container[str]]],
        trace: RuleTrace | None = None,
    ) -> tuple[tuple[Choice, ...], dict[str, int], dict[str, int]]:
        """Run the stages; return the choices, and the numbers of candidates that each rule removed and moved.

        Args:
            request: The event, with the user's session.
            scores: The model's output; absent for the fallback.
            catalogue: Stock and hidden items in the epoch of the request.
            forbidden: Name and forbidden items of each filter.
            trace: Notes what each rule does to each item; None for a decision.
        """
        filtered: dict[str, int] = {}
        moved: dict[str, int] = {}
        counts = count_places(self._caps, request, catalogue)
        sources: Iterable[CandidateSource] = self._sources(request, scores, catalogue)
        if trace is not None:
            sources = trace.watch_sources(sources, filtered)
        slate: Slate
        if self._is_plain:
            picks = pick_candidates(sources, forbidden, counts, self._k, filtered)
            slate = make_choices(picks, self._reasons(picks, request, scores))
        else:
            picks = pick_candidates(sources, forbidden, None, max(self._k, SLATE_SIZE), filtered)
            rerankers = bind_rerankers(self._rerankers, scores)
            slate = self._rerank(rerankers, make_choices(picks, {}), request, catalogue, (filtered, moved, trace))
            uncapped = slate if trace is None else trace.watch(slate, attrgetter("item_id"), filtered)
            slate = self._select(apply_caps(uncapped, counts, filtered), request, self._k)
            slate = self._rerank(self._pins, slate, request, catalogue, (filtered, moved, trace))
            shown = {choice.item_id for choice in slate if choice.reason == MODEL}
            because = self._reasons([pick for pick in picks if pick[0] in shown], request, scores)
            slate = [
                msgspec.structs.replace(choice, because=because[choice.item_id])
                if choice.item_id in because
                else choice
                for choice in slate
            ]
        return tuple(slate), filtered, moved

    def _reasons(
        self, picks: Sequence[Pick], request: Request, scores: Scores | None
    ) -> Mapping[str, tuple[Because, ...]]:
        """Return the events that raised the scores of candidates of the model most, by item; empty without reasons.

        Args:
            picks: Candidates; those of other origins have no reasons.
            request: The event, with the user's session.
            scores: The model's output.
        """
        if scores is None or scores.reasons is None or not self._max_reasons:
            return {}
        own = [pick for pick in picks if pick[2] == MODEL]
        if not own:
            return {}
        items = [pick[0] for pick in own]
        indices = [pick[3] for pick in own]
        if self._source or self._unknown_item(request) is not None:  # the index in a source is another one
            index_of = {item: index for index, (item, _) in enumerate(scores.candidates())}
            indices = [index_of[item] for item in items]
        return dict(zip(items, find_reasons(indices, request, scores.reasons, self._max_reasons), strict=True))

    def trace(self, request: Request, scores: Scores | None, catalogue: AnyCatalogue) -> list[RuleEffect]:
        """Return what the rules did to the items on the way to `recommend`, in the order of the stages.

        Args:
            request: The event, with the user's session.
            scores: The model's output; absent for the fallback.
            catalogue: Stock and hidden items in the epoch of the request.
        """
        trace = RuleTrace()
        self._choose(request, scores, catalogue, forbidden_items(self.filters, request, catalogue), trace)
        return trace.effects

    def _rerank(
        self,
        rerankers: Sequence[Reranker],
        slate: Slate,
        request: Request,
        catalogue: AnyCatalogue,
        notes: tuple[dict[str, int], dict[str, int], RuleTrace | None],
    ) -> Slate:
        """Run re-rankers, and note the items that each removes, and the shown places that have another item since."""
        filtered, moved, trace = notes
        for rule in rerankers:
            reranked = rule.rerank(slate, request, catalogue)
            if len(reranked) < len(slate):
                filtered[rule.name] = len(slate) - len(reranked)
            pairs = zip(slate[: self._k], reranked[: self._k], strict=False)
            changed = sum([choice.item_id != other.item_id for choice, other in pairs])
            changed += max(0, min(self._k, len(reranked)) - len(slate))  # places behind the end of the slate
            if changed:
                moved[rule.name] = changed
            if trace is not None:
                trace.compare(rule.name, slate, reranked, self._k)
            slate = reranked
        return slate

    def _sources(self, request: Request, scores: Scores | None, catalogue: AnyCatalogue) -> Iterator[CandidateSource]:
        """Yield the model's candidates, then popular items; for a shelf with a source, those of the source.

        Where the bundle does not know the current item, items like it take every other place.
        """
        if self._source is not None:
            yield from self._source(request, scores, catalogue, self._prior)
            return
        unknown_item = self._unknown_item(request)
        if unknown_item is not None:
            similar = SIMILAR, zip(islice(catalogue.similar_to(unknown_item), SLATE_SIZE), repeat(0.0))
            if scores is not None and scores.rows:
                yield from alternate(similar, (MODEL, scores.candidates()))
            else:
                yield from alternate(similar, (CONTROL, zip(request.popular, repeat(0.0))))
        elif scores is not None:
            yield MODEL, scores.candidates()
        yield CONTROL, zip(request.popular, repeat(0.0))
        yield CONTROL, zip(self._prior, repeat(0.0))

    def _popular_items(self, request: Request, catalogue: AnyCatalogue) -> _PopularItems | None:
        """Return the shared popular items; None where a rule speaks of any of the items for this user.

        They are chosen anew when the ranking or the catalogue has changed.
        """
        popular, version = self._popular, catalogue.version
        if (
            popular is None
            or popular.ranking is not request.popular
            or popular.catalogue is not catalogue
            or popular.catalogue_version != version
        ):
            popular = self._popular = self._choose_popular(request, catalogue)
        for rule in self._request_filters:
            if rule.forbid(request, catalogue):
                return None
        is_disjoint = popular.considered.isdisjoint
        if self._personal_caps and not is_disjoint(request.items):
            return None
        for rule in self._user_filters:
            if not is_disjoint(rule.forbid(request, catalogue)):
                return None
        return popular

    def _choose_popular(self, request: Request, catalogue: AnyCatalogue) -> _PopularItems:
        """Choose popular items for users without a rule of their own on any of the items."""
        anybody = msgspec.structs.replace(request, items=[], actions=b"", bought=frozenset())
        forbidden = forbidden_items(self._catalogue_filters, anybody, catalogue)
        choices, filtered, _ = self._choose(anybody, None, catalogue, forbidden)
        considered = list(dict.fromkeys((*request.popular, *self._prior)))
        if len(choices) == self._k:
            del considered[considered.index(choices[-1].item_id) + 1 :]
        return _PopularItems(
            ranking=request.popular,
            catalogue=catalogue,
            catalogue_version=catalogue.version,
            choices=choices,
            filtered=filtered,
            encoded=msgspec.Raw(encode_decision(choices)),
            considered=frozenset(considered),
        )
