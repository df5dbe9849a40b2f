"""Caps: limit the places that a group of items takes in a list."""

from collections.abc import Callable, Iterable, Sequence

from clickscore.schemas.decisions import Choice
from clickscore.stream.policy.policy_file import Limit
from clickscore.stream.policy.rules import Cap
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


FindFullCap = Callable[[str], str | None]
"""Returns the name of a cap that is full for an item. None counts the item as shown."""


def count_places(caps: Sequence[Cap], request: Request, catalogue: AnyCatalogue) -> FindFullCap | None:
    """Return a function that counts the places of an empty list by group; None without caps.

    Args:
        caps: Caps of the policy.
        request: The event, with the user's session.
        catalogue: What is known of the items.
    """
    counts = [(cap.name, cap.limit, cap.group_of(request, catalogue), dict[str, int]()) for cap in caps]
    if not counts:
        return None
    (name, limit, group_of, places), *others = counts

    def find_full_cap(item: str) -> str | None:
        """Look at a single cap, as the default policy has: every decision does, so no loop is here."""
        group = group_of(item)
        if group:
            count = places.get(group, 0)
            if count >= limit:
                return name
            places[group] = count + 1
        return None

    return find_full_cap if not others else lambda item: _find_full_cap(item, counts)


def _find_full_cap(
    item: str, counts: Sequence[tuple[str, int, Callable[[str], str | None], dict[str, int]]]
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


def apply_caps(choices: Iterable[Choice], find_full_cap: FindFullCap | None, removed: dict[str, int]) -> list[Choice]:
    """Return the choices that exceed no cap, in their order.

    Args:
        choices: Choices, best first.
        find_full_cap: Counts the places; None without caps.
        removed: Receives the number of items removed by each cap.
    """
    shown: list[Choice] = []
    for choice in choices:
        name = find_full_cap(choice.item_id) if find_full_cap else None
        if name is None:
            shown.append(choice)
        else:
            removed[name] = removed.get(name, 0) + 1
    return shown
