"""Policy parts: a policy without each part in turn, to measure the effect of the part."""

from collections.abc import Iterator
from typing import Any

import msgspec

from clickscore.stream.policy.ad_policy import Ads
from clickscore.stream.policy.goal_policy import Goals
from clickscore.stream.policy.policy_file import ANY_NUMBER, Boost, Hide, Limit, Only, PolicyFile, PriceBand
from clickscore.stream.policy.shelf_policy import Pages, job_of

_TABLES: dict[str, msgspec.Struct] = {
    "hide": Hide(out_of_stock=False, bought=False, on_screen=False, in_cart=False, unavailable=False),
    "only": Only(),
    "limit": Limit(reminders=ANY_NUMBER),
    "boost": Boost(),
}
"""Tables with a part in each field, and all parts switched off."""

_PARTS: dict[str, object] = {
    "price_band": PriceBand(),
    "goals": Goals(),
    "diversity": 0.0,
    "pin": (),
}
"""Fields with a single part each, switched off."""

_DEPENDENT: dict[str, dict[str, Any]] = {"hide.bought": {"bought_again": (), "again_after": {}}}
"""Fields without a meaning of their own: each goes with the part."""

_SETTINGS_OF_A_PART = ("boost.fresh_days",)
"""Fields without an effect of their own."""


def policies_without_a_part(policy: PolicyFile) -> Iterator[tuple[str, PolicyFile]]:
    """Yield the name of each part of a policy, and the policy without the part.

    The names are the fields in the file, for example `hide.on_screen`.
    """
    for table, switched_off in _TABLES.items():
        current = getattr(policy, table)
        for field in msgspec.structs.fields(type(switched_off)):
            name, value = f"{table}.{field.name}", getattr(switched_off, field.name)
            if getattr(current, field.name) != value and name not in _SETTINGS_OF_A_PART:
                reduced = msgspec.structs.replace(current, **{field.name: value}, **_DEPENDENT.get(name, {}))
                yield name, _replace(policy, table, reduced)
    for name, value in _PARTS.items():
        if getattr(policy, name) != value and (name != "goals" or policy.goals.counts_money):
            yield name, _replace(policy, name, value)
    if policy.ads.shown:
        yield "ads", _without_ads(policy)


def _without_ads(policy: PolicyFile) -> PolicyFile:
    """Return a policy without ads, and without the shelves for ads: a policy that shows no ad may not name any."""
    names = {*policy.shelves, *(name for names in msgspec.structs.astuple(policy.pages) for name in names)}
    ads = {name for name in names if job_of(name, policy.shelves) == "sponsored"}
    pages = {
        event: tuple(name for name in shelves if name not in ads)
        for event, shelves in msgspec.structs.asdict(policy.pages).items()
    }
    tables = {name: table for name, table in policy.shelves.items() if name not in ads}
    return msgspec.structs.replace(policy, ads=Ads(shown=False), pages=Pages(**pages), shelves=tables)


def _replace(policy: PolicyFile, field: str, value: object) -> PolicyFile:
    changed: Any = {field: value}
    return msgspec.structs.replace(policy, **changed)
