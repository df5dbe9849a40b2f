"""Filters: name the items forbidden for a request. Each filter is a pure function."""

from collections.abc import Callable, Container

from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request

Filter = Callable[[Request, AnyCatalogue], Container[str]]
"""Returns the item ids forbidden for a request. A filter adds no item and changes no order."""


def bought_already(request: Request, catalogue: AnyCatalogue) -> Container[str]:
    """Forbid items bought by the user."""
    del catalogue
    return request.bought


def out_of_stock(request: Request, catalogue: AnyCatalogue) -> Container[str]:
    """Forbid items without stock."""
    del request
    return catalogue.out_of_stock


def hidden(request: Request, catalogue: AnyCatalogue) -> Container[str]:
    """Forbid items hidden by the shop or removed from the catalogue."""
    del request
    return catalogue.hidden


FILTERS: dict[str, Filter] = {"bought": bought_already, "out_of_stock": out_of_stock, "hidden": hidden}
"""Filters by name, in the order of their runs. A decision counts removed candidates under these names."""


def forbidden_items(request: Request, catalogue: AnyCatalogue) -> list[tuple[str, Container[str]]]:
    """Return the name and the forbidden items of each filter with at least a single forbidden item."""
    return [(name, items) for name, forbid in FILTERS.items() if (items := forbid(request, catalogue))]
