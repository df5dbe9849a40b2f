"""Words of a policy: sentences that say what a policy does, and what changes between two policies."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

import msgspec

from clickscore.schemas.decisions import ShelfJob
from clickscore.stream.policy.ad_policy import AdPlacement
from clickscore.stream.policy.goal_policy import Goals, GoalWeights, VariantGoals
from clickscore.stream.policy.policy_file import Boost, PolicyFile, PriceBand
from clickscore.stream.policy.shelf_policy import ShelfTable, job_of
from clickscore.stream.settings import PolicySettings


def explain_policy(policy: PolicyFile) -> list[str]:
    """Return what a policy does, in sentences."""
    return list(policy_sentences(policy).values())


def diff_policies(old: PolicyFile, new: PolicyFile) -> list[str]:
    """Return what changes from one policy to another, in sentences; empty where both do the same."""
    old_parts, new_parts = policy_sentences(old), policy_sentences(new)
    return [
        f"{part}: {old_parts.get(part, 'Nothing.')} -> {new_parts.get(part, 'Nothing.')}"
        for part in dict.fromkeys((*old_parts, *new_parts))
        if old_parts.get(part) != new_parts.get(part)
    ]


def policy_sentences(policy: PolicyFile, settings: PolicySettings | None = None) -> dict[str, str]:
    """Return a sentence for each part of a policy, by the part's name in the file.

    Args:
        policy: The policy.
        settings: Values for what the policy leaves out; without settings the sentences name the settings.
    """
    return {part: f"{sentence[0].upper()}{sentence[1:]}." for part, sentence in _parts(policy, settings)}


def _parts(policy: PolicyFile, settings: PolicySettings | None) -> Iterator[tuple[str, str]]:
    size = policy.size(settings) if settings else policy.k
    yield "k", f"a list has {_number(size, 'item') if size else 'as many items as the setting k says'}"
    if policy.reasons is not None:
        yield "reasons", f"an item names at most {_number(policy.reasons, 'event')} as its reasons"
    yield from _hidden_parts(policy)
    yield from _only_parts(policy)
    yield from _price_parts(policy.price_band)
    yield from _limit_parts(policy)
    yield from _boost_parts(policy.boost)
    yield from _goal_parts(policy.goals)
    if policy.diversity:
        yield (
            "diversity",
            f"items like those on earlier places stand back, by the share {_decimal(policy.diversity)} of likeness "
            f"against {_decimal(1 - policy.diversity)} of relevance",
        )
    for pin in policy.pin:
        yield f"pin {pin.place}", f"{pin.item!r} has place {pin.place}"
    yield from _ad_parts(policy, settings)
    yield from _shelf_parts(policy)
    if policy.boost.fresh_days != Boost().fresh_days or "new_in" in _shelf_jobs(policy).values():
        days = _number(policy.boost.fresh_days, "day")
        yield "boost.fresh_days", f"an item is new for {days} on shelves of the job new_in"


def _hidden_parts(policy: PolicyFile) -> Iterator[tuple[str, str]]:
    hide = policy.hide
    yield "hidden", "items that the shop hides, or has removed from the catalogue, are never shown"
    for name, items, is_hidden in (
        ("out_of_stock", "items without stock are", hide.out_of_stock),
        ("bought", "items that the user has bought are", hide.bought),
        ("on_screen", "the item on screen is", hide.on_screen),
        ("in_cart", "items in the cart are", hide.in_cart),
        ("unavailable", "items not sold in the user's region or to the user's group are", hide.unavailable),
    ):
        yield f"hide.{name}", f"{items} {'not shown' if is_hidden else 'shown like any other'}"
    if hide.seen is not None:
        times = "once" if hide.seen == 1 else f"{hide.seen} times"
        yield "hide.seen", f"items that were shown {times} in a session without a click are not shown again in it"
    if hide.bought_again:
        yield (
            "hide.bought_again",
            f"bought items of the categories {_listed(hide.bought_again)} return with the next session",
        )
    for category, days in hide.again_after.items():
        yield f"hide.again_after.{category}", f"bought items of {category!r} return after {_number(days, 'day')}"
    for name, names in (("flags", hide.flags), ("categories", hide.categories), ("brands", hide.brands)):
        if names:
            yield f"hide.{name}", f"items with the {name} {_listed(names)} are not shown"


def _only_parts(policy: PolicyFile) -> Iterator[tuple[str, str]]:
    only = policy.only
    for name, names in (("categories", only.categories), ("brands", only.brands)):
        if names:
            yield f"only.{name}", f"only items with the {name} {_listed(names)} are shown"
    if only.relevance:
        yield (
            "only.relevance",
            f"candidates with less than {_decimal(only.relevance)} of the best candidate's relevance are not shown, "
            "and popular items do not take their places",
        )


def _price_parts(band: PriceBand) -> Iterator[tuple[str, str]]:
    if band != PriceBand():
        highest = "" if band.highest is None else f" and at most {_decimal(band.highest)} times"
        yield (
            "price_band",
            f"prices are at least {_decimal(band.lowest)} times{highest} the price of the item on screen",
        )


def _limit_parts(policy: PolicyFile) -> Iterator[tuple[str, str]]:
    limit = policy.limit
    yield "limit.reminders", _reminders(limit.reminders)
    for name, places in (("category", limit.category), ("brand", limit.brand), ("seller", limit.seller)):
        if places is not None:
            yield f"limit.{name}", f"at most {_number(places, 'item')} of a list share a {name}"


def _reminders(places: int) -> str:
    if not places:
        return "items that the user has met in this session are not shown"
    return f"at most {places} {'places repeat' if places > 1 else 'place repeats'} items of this session"


def _boost_parts(boost: Boost) -> Iterator[tuple[str, str]]:
    for name, factors in (("items", boost.items), ("categories", boost.categories), ("brands", boost.brands)):
        if factors:
            yield f"boost.{name}", f"the relevance of the {name} {_factors(factors)} is multiplied"
    if boost.promoted != 1.0:
        yield "boost.promoted", f"the relevance of items in a promotion is multiplied by {_decimal(boost.promoted)}"
    if boost.margin != 1.0:
        yield (
            "boost.margin",
            f"the relevance of an item is multiplied by {_decimal(boost.margin)} to the power of its margin",
        )
    if boost.fresh != 1.0:
        yield (
            "boost.fresh",
            f"the relevance of new items is multiplied by {_decimal(boost.fresh)}, fading over {boost.fresh_days} days",
        )


def _goal_parts(goals: Goals) -> Iterator[tuple[str, str]]:
    if goals.is_used:
        yield from _table_parts("goals", "", goals)
    for name, shelf in sorted(goals.shelves.items()):
        yield from _table_parts(f"goals.shelves.{name}", f"on the shelf {name}, ", shelf)


def _table_parts(path: str, shelf: str, goals: VariantGoals) -> Iterator[tuple[str, str]]:
    """Yield a sentence for the weights of a table of goals, and for those of each variant.

    Args:
        path: Name of the table in the file.
        shelf: Words for the shelf of the table, to begin a sentence with; empty for a table of all lists.
        goals: The table.
    """
    yield path, f"{shelf}{_goal_sentence(goals)}"
    for variant, weights in sorted(goals.variants.items()):
        yield f"{path}.variants.{variant}", f"{shelf}for users of the variant {variant}, {_goal_sentence(weights)}"


def _goal_sentence(weights: GoalWeights) -> str:
    if weights.is_relevance:
        return "items are ordered by relevance alone"
    parts = [
        f"{what} {_decimal(worth)}{money}"
        for what, worth, money in (
            ("a click is worth", weights.click, ""),
            ("an item put into the cart is worth", weights.cart, ""),
            ("an order is worth", weights.order, " times its price"),
            ("its margin is worth", weights.margin, " times the money that the shop earns"),
        )
        if worth
    ]
    return f"items are ordered by expected value: {', '.join(parts)}"


def _ad_parts(policy: PolicyFile, settings: PolicySettings | None) -> Iterator[tuple[str, str]]:
    if not policy.ads.shown:
        yield "ads", "no ad is shown"
        return
    ads = policy.ads
    lowest = policy.reserve(settings) if settings else ads.reserve
    reserve = "the setting reserve" if lowest is None else _decimal(lowest)
    yield "ads", f"the most valuable matching ads are shown, if the expected value of an impression reaches {reserve}"
    yield (
        "ads.share",
        f"an ad is expected to get {_decimal(100 * ads.share)} % of the next views and of a session's purchases",
    )
    quality = f"relevance to the power of {_decimal(ads.quality_weight)}" if ads.quality_weight else "1 for every item"
    yield "ads.quality_weight", f"the expected value of an ad is multiplied by its quality, which is {quality}"
    if ads.per_page is not None:
        yield "ads.per_page", f"a page has at most {_number(ads.per_page, 'ad')}"
    if ads.per_session is not None:
        yield "ads.per_session", f"a session has at most {_number(ads.per_session, 'ad')}"
    for name, placement in sorted(ads.placements.items()):
        yield f"ads.placements.{name}", f"the placement {name} has {'; '.join(_placement_parts(placement))}"


def _placement_parts(placement: AdPlacement) -> Iterator[str]:
    places = ", ".join(map(str, placement.places))
    seen = ", ".join(map(_decimal, placement.exposure))
    slots = f"{_number(len(placement.exposure), 'slot')} with exposure {seen}"
    yield f"{slots} at the places {places} of the list" if places else f"{slots} beside the list"
    if placement.floating:
        yield "an ad that may not be at its place goes to the next place where it may"
    if placement.relevance:
        yield f"an ad needs {_decimal(placement.relevance)} of the quality of the item that it displaces"
    if placement.reserve is not None:
        yield f"the expected value of an impression reaches {_decimal(placement.reserve)}"
    yield f"an ad pays {'the lowest bid that keeps its slot' if placement.pricing == 'second_price' else 'its bid'}"


def _shelf_parts(policy: PolicyFile) -> Iterator[tuple[str, str]]:
    pages = msgspec.structs.asdict(policy.pages)
    for event, names in pages.items():
        if names:
            yield f"pages.{event}", f"the page of the event {event} has the shelves {_listed(names)}, no item twice"
    for name, job in _shelf_jobs(policy).items():
        table = policy.shelves.get(name, ShelfTable())
        size = f"at most {_number(table.size, 'item')}: " if table.size else ""
        yield f"shelves.{name}", f"the shelf {name} has {size}{_JOB_WORDS[job]}"


def _shelf_jobs(policy: PolicyFile) -> dict[str, ShelfJob]:
    """Return the job of each shelf that the policy names, by name."""
    pages = msgspec.structs.astuple(policy.pages)
    names = dict.fromkeys((*policy.shelves, *(name for names in pages for name in names)))
    return {name: job for name in names if (job := job_of(name, policy.shelves))}


_JOB_WORDS: dict[ShelfJob, str] = {
    "for_you": "the items of a plain list; popular items follow those of the model",
    "similar": (
        "items like the one on screen: the model's of its category, then those of its category and brand by price, "
        "then popular items of its category; fewer where there are no more"
    ),
    "complement": (
        "what at least two users bought together with the items on screen and in the cart; "
        "fewer where there are no more"
    ),
    "buy_again": "what the user bought in earlier sessions, the oldest purchase first; fewer where there are no more",
    "new_in": "items that are new in the shop, the newest first; fewer where there are no more",
    "recently_viewed": "the items of this session, the newest first; fewer where there are no more",
    "popular_in_category": "popular items of the category of the item on screen; fewer where there are no more",
    "sponsored": "the ads beside the list; none where no ad is shown",
}


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _decimal(value: float) -> str:
    """Return a number in full, so that no two policies have the same words: `1000000.5` and not `1e+06`."""
    return f"{Decimal(f'{value:.15g}'):f}"  # 15 digits: 100 * 0.07 is 7, and not 7.000000000000001


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _factors(factors: Mapping[str, float]) -> str:
    return ", ".join(f"{name!r} (by {_decimal(factor)})" for name, factor in factors.items())
