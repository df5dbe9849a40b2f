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


class CapCounter:
    """Counts the places of a list that each group of items takes."""

    def __init__(self, caps: Sequence[Cap], request: Request, catalogue: AnyCatalogue) -> None:
        """Start with an empty list.

        Args:
            caps: Caps of the policy.
            request: The event, with the user's session.
            catalogue: What is known of the items.
        """
        self._caps = [(cap.name, cap.limit, cap.group_of(request, catalogue), dict[str, int]()) for cap in caps]

    def find_full_cap(self, item: str) -> str | None:
        """Return the name of the first cap that is full for an item; None counts the item as shown."""
        for name, limit, group_of, places in self._caps:
            group = group_of(item)
            if group and places.get(group, 0) >= limit:
                return name
        for _, _, group_of, places in self._caps:
            if group := group_of(item):
                places[group] = places.get(group, 0) + 1
        return None


def apply_caps(choices: Iterable[Choice], counter: CapCounter, removed: dict[str, int]) -> list[Choice]:
    """Return the choices that exceed no cap, in their order.

    Args:
        choices: Choices, best first.
        counter: Counts the places.
        removed: Receives the number of items removed by each cap.
    """
    shown: list[Choice] = []
    for choice in choices:
        name = counter.find_full_cap(choice.item_id)
        if name is None:
            shown.append(choice)
        else:
            removed[name] = removed.get(name, 0) + 1
    return shown
