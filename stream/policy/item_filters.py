"""Item filters: forbid items by what the catalogue says of them: category, brand, flags, price, region and group."""

from collections.abc import Callable, Collection, Container

from clickscore.schemas.events import Impression, ItemEvent
from clickscore.stream.policy.filters import MatchingItems, on_screen
from clickscore.stream.policy.policy_file import Hide, Only, PolicyFile, PriceBand
from clickscore.stream.policy.rules import CatalogueFilter, Filter, RequestFilter
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request

Forbid = Callable[[Request, AnyCatalogue], Container[str]]
"""Returns the item ids forbidden for a request."""


def hidden_category(categories: Collection[str]) -> Forbid:
    """Forbid items of some categories."""
    return lambda _, catalogue: MatchingItems(lambda item: catalogue.category_of(item) in categories)


def other_category(categories: Collection[str]) -> Forbid:
    """Forbid items of all other categories, and items without a category."""
    return lambda _, catalogue: MatchingItems(lambda item: catalogue.category_of(item) not in categories)


def hidden_brand(brands: Collection[str]) -> Forbid:
    """Forbid items of some brands."""
    return lambda _, catalogue: MatchingItems(lambda item: catalogue.details_of(item).brand in brands)


def other_brand(brands: Collection[str]) -> Forbid:
    """Forbid items of all other brands, and items without a brand."""
    return lambda _, catalogue: MatchingItems(lambda item: catalogue.details_of(item).brand not in brands)


def flagged(flags: Collection[str]) -> Forbid:
    """Forbid items with any of some flags."""
    marks = frozenset(flags)
    return lambda _, catalogue: MatchingItems(lambda item: not marks.isdisjoint(catalogue.details_of(item).flags))


def unavailable(request: Request, catalogue: AnyCatalogue) -> Container[str]:
    """Forbid items that are not sold in the region of the event, or not to its customer group.

    An item that is sold in some regions is forbidden where the event names no region; groups likewise.
    """
    if not catalogue.has_limited:
        return ()
    region, group = request.event.region, request.event.customer_group

    def is_unavailable(item: str) -> bool:
        details = catalogue.details_of(item)
        is_elsewhere = bool(details.regions) and region not in details.regions
        return is_elsewhere or (bool(details.groups) and group not in details.groups)

    return MatchingItems(is_unavailable)


def price_on_screen(request: Request, catalogue: AnyCatalogue) -> float | None:
    """Return the price of the item on screen: as the event says, else as the catalogue says; None if unknown."""
    event = request.event
    if isinstance(event, ItemEvent) and not isinstance(event, Impression) and event.price is not None:
        return event.price
    return next((catalogue.details_of(item).price for item in on_screen(request, catalogue)), None)


def price_band(band: PriceBand) -> Forbid:
    """Forbid items whose price is outside a band around the price of the item on screen; unknown prices are allowed."""

    def forbid(request: Request, catalogue: AnyCatalogue) -> Container[str]:
        centre = price_on_screen(request, catalogue)
        if centre is None:
            return ()
        lowest = centre * band.lowest
        highest = float("inf") if band.highest is None else centre * band.highest

        def is_outside(item: str) -> bool:
            price = catalogue.details_of(item).price
            return price is not None and not lowest <= price <= highest

        return MatchingItems(is_outside)

    return forbid


UNAVAILABLE = RequestFilter(
    "unavailable", "it is not sold in the user's region or to the user's customer group", unavailable
)
"""Filter of items that are sold in some regions or to some customer groups only."""


def make_item_filters(policy_file: PolicyFile) -> tuple[Filter, ...]:
    """Return the item filters that a policy uses, in the order of their runs."""
    return (
        *((UNAVAILABLE,) if policy_file.hide.unavailable else ()),
        *_listed_filters(policy_file.hide, policy_file.only),
        *((_price_filter(policy_file.price_band),) if policy_file.price_band != PriceBand() else ()),
    )


def _listed_filters(hide: Hide, only: Only) -> tuple[Filter, ...]:
    """Return the filters with a list of names in the policy file."""
    rules: list[tuple[str, str, Callable[[Collection[str]], Forbid], Collection[str]]] = [
        ("flagged", "the policy hides its flag", flagged, hide.flags),
        ("hidden_category", "the policy hides its category", hidden_category, hide.categories),
        ("other_category", "the policy shows other categories only", other_category, only.categories),
        ("hidden_brand", "the policy hides its brand", hidden_brand, hide.brands),
        ("other_brand", "the policy shows other brands only", other_brand, only.brands),
    ]
    return tuple(
        CatalogueFilter(name, sentence, make(frozenset(names))) for name, sentence, make, names in rules if names
    )


def _price_filter(band: PriceBand) -> Filter:
    return RequestFilter("price_band", "its price is too far from the price of the item on screen", price_band(band))
