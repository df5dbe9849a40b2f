"""Filters: the items that must not be shown in answer to a request. Each filter is a pure function."""

from collections.abc import Callable, Collection

from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Request

Filter = Callable[[Request, Catalogue], Collection[str]]
"""Returns the item ids that are forbidden for a request. It adds no item and changes no order."""


def bought_already(request: Request, catalogue: Catalogue) -> Collection[str]:
    """Forbid the items that the user has bought."""
    del catalogue
    return request.bought


def out_of_stock(request: Request, catalogue: Catalogue) -> Collection[str]:
    """Forbid the items that the shop cannot deliver."""
    del request
    return catalogue.out_of_stock


def hidden(request: Request, catalogue: Catalogue) -> Collection[str]:
    """Forbid the items that the shop has hidden or removed from its catalogue."""
    del request
    return catalogue.hidden


FILTERS: dict[str, Filter] = {"bought": bought_already, "out_of_stock": out_of_stock, "hidden": hidden}
"""Filters in the order in which they run, by the name under which a decision counts the items that each removed."""


def forbidden_items(request: Request, catalogue: Catalogue) -> list[tuple[str, Collection[str]]]:
    """Return the name and the forbidden items of each filter that forbids at least one item."""
    return [(name, items) for name, forbid in FILTERS.items() if (items := forbid(request, catalogue))]
