"""Caps: limit the places that a group of items takes in a list."""

from collections.abc import Callable, Iterable, Iterator

from clickscore.schemas.decisions import Choice
from clickscore.stream.policy.policy_file import Limit
from clickscore.stream.policy.rules import Cap
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request

AppliedCap = tuple[str, int, Callable[[str], str | None]]
"""Name and limit of a cap, and the function from an item to its group for a request."""


def session_items(request: Request, catalogue: AnyCatalogue) -> Callable[[str], str | None]:
    """Return a function that puts the items of the session into one group."""
    del catalogue
    return dict.fromkeys(request.items, "session").get


def category_items(request: Request, catalogue: AnyCatalogue) -> Callable[[str], str | None]:
    """Return a function that groups items by category."""
    del request
    return catalogue.category_of


def brand_items(request: Request, catalogue: AnyCatalogue) -> Callable[[str], str | None]:
    """Return a function that groups items by brand."""
    del request
    return lambda item: catalogue.details_of(item).brand


def seller_items(request: Request, catalogue: AnyCatalogue) -> Callable[[str], str | None]:
    """Return a function that groups items by seller."""
    del request
    return lambda item: catalogue.details_of(item).seller


def make_caps(limit: Limit, k: int) -> tuple[Cap, ...]:
    """Return the caps of a policy, without those that `k` places cannot exceed.

    Args:
        limit: Limits of the policy.
        k: Number of items in a recommendation.
    """
    reminders = Cap(
        "reminders",
        f"{limit.reminders} places already repeat items of this session" if limit.reminders else "the user has met it",
        limit.reminders,
        session_items,
        is_personal=True,
    )
    shelves = [
        Cap(name, f"the list has {places} items of this {name} already", places, group_of)
        for name, places, group_of in (
            ("category", limit.category, category_items),
            ("brand", limit.brand, brand_items),
            ("seller", limit.seller, seller_items),
        )
        if places is not None
    ]
    return tuple(cap for cap in (reminders, *shelves) if cap.limit < k)


def apply_caps(choices: Iterable[Choice], caps: Iterable[AppliedCap], removed: dict[str, int]) -> Iterator[Choice]:
    """Yield the choices that exceed no cap, in their order.

    Args:
        choices: Choices, best first.
        caps: Caps of the request.
        removed: Receives the number of items removed by each cap.
    """
    places: dict[tuple[str, str], int] = {}
    for choice in choices:
        groups = [(name, group, limit) for name, limit, group_of in caps if (group := group_of(choice.item_id))]
        full = next((name for name, group, limit in groups if places.get((name, group), 0) >= limit), None)
        if full is not None:
            removed[full] = removed.get(full, 0) + 1
            continue
        for name, group, _ in groups:
            places[name, group] = places.get((name, group), 0) + 1
        yield choice
