"""Caps: limit the places that a group of items takes in a list."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from clickscore.schemas.decisions import Choice
from clickscore.stream.policy.policy_file import Limit
from clickscore.stream.policy.rules import Cap
from clickscore.stream.policy.slate import PlaceCounts
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request


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


def count_places(caps: Sequence[Cap], request: Request, catalogue: AnyCatalogue) -> PlaceCounts | None:
    """Return counts for an empty list; None without caps.

    Args:
        caps: Caps of the policy.
        request: The event, with the user's session.
        catalogue: What is known of the items.
    """
    if not caps:
        return None
    if len(caps) > 1:
        counts = [(cap.name, cap.limit, cap.group_of(request, catalogue), dict[str, int]()) for cap in caps]
        return str, partial(_find_full_cap, counts)  # each item is a group of its own
    name, _, limit, group_of, _ = caps[0]
    places: dict[str, int] = {}

    def find_full_cap(group: str) -> str | None:
        count = places.get(group, 0)
        if count >= limit:
            return name
        places[group] = count + 1
        return None

    return group_of(request, catalogue), find_full_cap


def _find_full_cap(
    counts: Sequence[tuple[str, int, Callable[[str], str | None], dict[str, int]]], item: str
) -> str | None:
    """Return the name of the first cap that is full for an item; None counts the item for all caps."""
    groups = [(group_of(item), places) for _, _, group_of, places in counts]
    for (group, places), (name, limit, _, _) in zip(groups, counts, strict=True):
        if group and places.get(group, 0) >= limit:
            return name
    for group, places in groups:
        if group:
            places[group] = places.get(group, 0) + 1
    return None


def apply_caps(choices: Iterable[Choice], counts: PlaceCounts | None, removed: dict[str, int]) -> list[Choice]:
    """Return the choices that exceed no cap, in their order.

    Args:
        choices: Choices, best first.
        counts: Counts of the places; None without caps.
        removed: Receives the number of items removed by each cap.
    """
    shown: list[Choice] = []
    for choice in choices:
        name = None
        if counts:
            group_of, find_full_cap = counts
            group = group_of(choice.item_id)
            name = find_full_cap(group) if group else None
        if name is None:
            shown.append(choice)
        else:
            removed[name] = removed.get(name, 0) + 1
    return shown
