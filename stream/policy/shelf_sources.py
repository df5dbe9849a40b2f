"""Shelf sources: the candidates of each shelf of a page, best first. Each source is a pure function.

The rules of the policy then run on the candidates of a shelf as on those of a plain list.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice, repeat

from clickscore.schemas.decisions import ShelfJob
from clickscore.schemas.durations import DAY_MS
from clickscore.stream.policy.experiments import CONTROL, MODEL, SIMILAR
from clickscore.stream.policy.filters import bought_now, in_cart, on_screen
from clickscore.stream.policy.slate import CandidateSource
from clickscore.stream.reference.catalogue import newest_item
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request, Scores

TOGETHER = "together"
"""The `reason` stated with an item that users bought together with those in the cart and on screen."""

BOUGHT = "bought"
"""The `reason` stated with an item that the user bought in an earlier session."""

NEW = "new"
"""The `reason` stated with an item that is new in the shop."""

VIEWED = "viewed"
"""The `reason` stated with an item that the user has met in this session."""

MAX_COMPANIONS = 64
"""Companions of a request at most: as many as a slate has candidates."""

MAX_CANDIDATES = 256
"""Candidates of a source of a shelf at most, before the rules: a category may have thousands of items."""

ShelfSource = Callable[[Request, Scores | None, AnyCatalogue, Sequence[str]], Iterator[CandidateSource]]
"""Yields the candidates for a request, the model's scores, a catalogue, and the popular items of the training data."""


def page_item(request: Request, catalogue: AnyCatalogue) -> str:
    """Return the item on screen, or else the newest item of the session; empty where there is none.

    Args:
        request: The event, with the user's session.
        catalogue: State of the items.
    """
    return next(iter(on_screen(request, catalogue)), "") or newest_item(request.items) or ""


def similar_items(
    request: Request, scores: Scores | None, catalogue: AnyCatalogue, prior: Sequence[str]
) -> Iterator[CandidateSource]:
    """Yield the model's candidates of the page item's category, then the items of its kind by price, then popular ones.

    Args:
        request: The event, with the user's session.
        scores: The model's output; absent where no model scores the request.
        catalogue: Category, brand and price of the items.
        prior: Popular items of the training data.
    """
    item = page_item(request, catalogue)
    category = catalogue.category_of(item)
    if category and scores is not None:
        candidates = ((other, score) for other, score in scores.candidates() if other != item)
        yield MODEL, ((other, score) for other, score in candidates if catalogue.category_of(other) == category)
    if item:
        others = (other for other in catalogue.similar_to(item) if other != item)
        yield SIMILAR, zip(islice(others, MAX_CANDIDATES), repeat(0.0))
    for reason, ranking in _popular_of(category, request, catalogue, prior):
        yield reason, ((other, score) for other, score in ranking if other != item)


def viewed_items(
    request: Request, scores: Scores | None, catalogue: AnyCatalogue, prior: Sequence[str]
) -> Iterator[CandidateSource]:
    """Yield the items of the session, the newest first.

    Args:
        request: The event, with the user's session.
        scores: Not read.
        catalogue: Not read.
        prior: Not read.
    """
    del scores, catalogue, prior
    yield VIEWED, ((item, 0.0) for item in reversed(request.items) if item)


def popular_in_category(
    request: Request, scores: Scores | None, catalogue: AnyCatalogue, prior: Sequence[str]
) -> Iterator[CandidateSource]:
    """Yield the popular items of the page item's category: those of the partition, then those of the training data.

    Args:
        request: The event, with the user's session.
        scores: Not read.
        catalogue: Categories of the items.
        prior: Popular items of the training data.
    """
    del scores
    yield from _popular_of(catalogue.category_of(page_item(request, catalogue)), request, catalogue, prior)


def companion_anchors(request: Request, catalogue: AnyCatalogue) -> Collection[str]:
    """Return the items to complement: those on screen and in the cart, or else the newest item of the session.

    Args:
        request: The event, with the user's session.
        catalogue: State of the items.
    """
    anchors = dict.fromkeys((*on_screen(request, catalogue), *sorted(in_cart(request, catalogue))))
    return list(anchors) or [item for item in (newest_item(request.items),) if item]


def bought_together(
    request: Request, scores: Scores | None, catalogue: AnyCatalogue, prior: Sequence[str]
) -> Iterator[CandidateSource]:
    """Yield what users of the partition bought together with the items in the cart and on screen.

    Args:
        request: The event, with the companions of these items.
        scores: Not read.
        catalogue: Not read.
        prior: Not read.
    """
    del scores, catalogue, prior
    yield TOGETHER, zip(request.companions, repeat(0.0))


def bought_before(
    request: Request, scores: Scores | None, catalogue: AnyCatalogue, prior: Sequence[str]
) -> Iterator[CandidateSource]:
    """Yield what the user bought in earlier sessions, the oldest purchase first: it is the nearest to be used up.

    Args:
        request: The event, with the user's purchases.
        scores: Not read.
        catalogue: Not read.
        prior: Not read.
    """
    del scores, catalogue, prior
    recent = bought_now(request)
    yield BOUGHT, ((item, 0.0) for item in request.purchases if item not in recent)


def new_items(
    request: Request, scores: Scores | None, catalogue: AnyCatalogue, prior: Sequence[str], *, days: int
) -> Iterator[CandidateSource]:
    """Yield the items that are new in the shop, the newest first.

    Args:
        request: The event.
        scores: Not read.
        catalogue: Knows since when items are in the shop.
        prior: Not read.
        days: Days until an item is not new any more.
    """
    del scores, prior
    ts = request.event.ts
    arrivals = islice(catalogue.arrivals_before(ts + 1), MAX_CANDIDATES)
    yield NEW, ((item, 0.0) for item, listed_at in arrivals if ts - listed_at < days * DAY_MS)


def _popular_of(
    category: str | None, request: Request, catalogue: AnyCatalogue, prior: Sequence[str]
) -> Iterator[CandidateSource]:
    """Yield the popular items of a category; none where the category is unknown."""
    if category:
        for items in (request.popular, prior):
            yield CONTROL, ((item, 0.0) for item in items if catalogue.category_of(item) == category)


_SOURCES: Mapping[ShelfJob, ShelfSource] = {
    "similar": similar_items,
    "complement": bought_together,
    "recently_viewed": viewed_items,
    "buy_again": bought_before,
    "popular_in_category": popular_in_category,
}


def make_source(job: ShelfJob, fresh_days: int) -> ShelfSource | None:
    """Return the source of a job; None for `for_you`, which has the candidates of a plain list, and for `sponsored`.

    Args:
        job: What the shelf shows.
        fresh_days: Days until an item is not new any more.
    """
    return partial(new_items, days=fresh_days) if job == "new_in" else _SOURCES.get(job)
