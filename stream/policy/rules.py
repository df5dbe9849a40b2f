"""Rules: what must not be shown in answer to a request, each rule a function of its own."""

from collections.abc import Callable, Collection

from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Request

POLICY_VERSION = "1"

Rule = Callable[[Request, Catalogue], Collection[str]]


def bought_already(request: Request, catalogue: Catalogue) -> Collection[str]:
    """Forbid what the user has bought."""
    del catalogue
    return request.bought


def out_of_stock(request: Request, catalogue: Catalogue) -> Collection[str]:
    """Forbid what cannot be delivered."""
    del request
    return catalogue.out_of_stock


def hidden(request: Request, catalogue: Catalogue) -> Collection[str]:
    """Forbid what the shop has hidden or taken out of its catalogue."""
    del request
    return catalogue.hidden


RULES: tuple[tuple[str, Rule], ...] = (
    ("bought", bought_already),
    ("out_of_stock", out_of_stock),
    ("hidden", hidden),
)
