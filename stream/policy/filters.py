"""Filters: name the items forbidden for a request. Each filter is a pure function."""

from collections.abc import Callable, Collection, Container, Mapping, Sequence

from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.events import ACTION_OF, Cart, Impression, ItemEvent, Purchase, RemoveFromCart
from clickscore.schemas.seen_items import hashes_seen_often, short_hash
from clickscore.stream.policy.policy_file import Hide
from clickscore.stream.policy.rules import CatalogueFilter, Filter, RequestFilter, UserFilter
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import UNKNOWN_DAY, Request

_CART, _PURCHASE = ACTION_OF[Cart], ACTION_OF[Purchase]
_LEFT_CART = (ACTION_OF[RemoveFromCart], _PURCHASE)


class MatchingItems(Container[str]):
    """The items that pass a test."""

    def __init__(self, test: Callable[[str], bool]) -> None:
        self._test = test

    def __contains__(self, item: object) -> bool:
        return isinstance(item, str) and self._test(item)


def bought_already(request: Request, catalogue: AnyCatalogue) -> Collection[str]:
    """Forbid items bought by the user."""
    del catalogue
    return request.bought


def bought_now(request: Request) -> Collection[str]:
    """Return the items that the user has bought in this session."""
    return {item for item, action in zip(request.items, request.actions, strict=True) if action == _PURCHASE}


def bought_unless_again(
    categories: Collection[str], after_days: Mapping[str, int]
) -> Callable[[Request, AnyCatalogue], Collection[str]]:
    """Forbid items bought by the user, but items of some categories only until they are bought again.

    Args:
        categories: Categories whose items return with the next session.
        after_days: For other categories the days from the purchase to the return. A purchase of an unknown day, from
            before days were remembered, never returns.
    """

    def forbid(request: Request, catalogue: AnyCatalogue) -> Collection[str]:
        if not request.bought:
            return ()
        recent, today = bought_now(request), request.event.ts // DAY_MS

        def returns(item: str) -> bool:
            category, day = catalogue.category_of(item) or "", request.purchases.get(item, UNKNOWN_DAY)
            wait = after_days.get(category)
            return category in categories or (wait is not None and day != UNKNOWN_DAY and today - day >= wait)

        return {item for item in request.bought if item in recent or not returns(item)}

    return forbid


def out_of_stock(request: Request, catalogue: AnyCatalogue) -> Container[str]:
    """Forbid items without stock."""
    del request
    return catalogue.out_of_stock


def hidden(request: Request, catalogue: AnyCatalogue) -> Container[str]:
    """Forbid items hidden by the shop or removed from the catalogue."""
    del request
    return catalogue.hidden


def on_screen(request: Request, catalogue: AnyCatalogue) -> Collection[str]:
    """Forbid the item of the page that the user looks at: the item of the event, or of the page with an impression.

    A page of search results has no such item.
    """
    del catalogue
    event = request.event
    if not isinstance(event, Impression):
        return (event.item_id,) if isinstance(event, ItemEvent) else ()
    return (request.items[-1],) if request.items else ()


def in_cart(request: Request, catalogue: AnyCatalogue) -> Collection[str]:
    """Forbid items that the user has put into the cart in this session, and has neither taken out nor bought."""
    del catalogue
    actions = request.actions
    first = actions.find(_CART)
    if first < 0:
        return ()
    cart: set[str] = set()
    for position in range(first, len(actions)):
        action = actions[position]
        if action == _CART:
            cart.add(request.items[position])
        elif action in _LEFT_CART:
            cart.discard(request.items[position])
    return cart


def on_page(request: Request, catalogue: AnyCatalogue) -> Collection[str]:
    """Forbid the items that the page shows already."""
    del catalogue
    return request.shown


def seen_often(impressions: int) -> Callable[[Request, AnyCatalogue], Container[str]]:
    """Forbid items that were shown to the user in this session without a click.

    Args:
        impressions: Number of impressions from which on an item is forbidden.
    """

    def forbid(request: Request, catalogue: AnyCatalogue) -> Container[str]:
        del catalogue
        hashes = hashes_seen_often(request.seen, impressions)
        return MatchingItems(lambda item: short_hash(item) in hashes) if hashes else ()

    return forbid


HIDDEN = CatalogueFilter("hidden", "the shop hides it, or has removed it from the catalogue", hidden)
"""Filter of every policy: an item that the shop hides is never shown."""

BOUGHT = UserFilter("bought", "the user has bought it", bought_already)
OUT_OF_STOCK = CatalogueFilter("out_of_stock", "it is out of stock", out_of_stock)
ON_SCREEN = UserFilter("on_screen", "it is on screen", on_screen)
ON_PAGE = UserFilter("on_page", "the page shows it already", on_page)
"""Filter of every shelf: no item is twice on a page."""

IN_CART = UserFilter("in_cart", "it is in the cart", in_cart)


def make_filters(hide: Hide) -> tuple[Filter, ...]:
    """Return the filters of a policy, in the order of their runs. A candidate counts for the first that removes it."""
    switches: list[tuple[Filter, bool]] = [
        (_bought_filter(hide), hide.bought),
        (OUT_OF_STOCK, hide.out_of_stock),
        (HIDDEN, True),
        (ON_SCREEN, hide.on_screen),
        (IN_CART, hide.in_cart),
    ]
    filters = tuple(rule for rule, is_on in switches if is_on)
    return filters if hide.seen is None else (*filters, _seen_filter(hide.seen))


def _seen_filter(impressions: int) -> RequestFilter:
    times = "once" if impressions == 1 else f"{impressions} times"
    sentence = f"it was shown {times} or more in this session without a click"
    return RequestFilter("seen", sentence, seen_often(impressions))


def _bought_filter(hide: Hide) -> UserFilter:
    if not hide.lets_return:
        return BOUGHT
    return BOUGHT._replace(forbid=bought_unless_again(frozenset(hide.bought_again), hide.again_after))


def forbidden_items(
    filters: Sequence[Filter], request: Request, catalogue: AnyCatalogue
) -> list[tuple[str, Container[str]]]:
    """Return the name and the forbidden items of each filter with at least a single forbidden item.

    Args:
        filters: Filters of the policy.
        request: The event, with the user's session.
        catalogue: State of the items in the epoch of the request.
    """
    return [(rule.name, items) for rule in filters if (items := rule.forbid(request, catalogue))]
