"""Words of a policy: sentences that say what a policy does, and what changes between two policies."""

from collections.abc import Iterator

from clickscore.stream.policy.policy_file import PolicyFile


def explain_policy(policy: PolicyFile) -> list[str]:
    """Return what a policy does, in sentences."""
    return list(_sentences(policy).values())


def diff_policies(old: PolicyFile, new: PolicyFile) -> list[str]:
    """Return what changes from one policy to another, in sentences; empty where both do the same."""
    old_parts, new_parts = _sentences(old), _sentences(new)
    return [
        f"{part}: {old_parts.get(part, 'Nothing.')} -> {new_parts.get(part, 'Nothing.')}"
        for part in dict.fromkeys((*old_parts, *new_parts))
        if old_parts.get(part) != new_parts.get(part)
    ]


def _sentences(policy: PolicyFile) -> dict[str, str]:
    """Return a sentence for each part of a policy, by the part's name in the file."""
    return {part: f"{sentence[0].upper()}{sentence[1:]}." for part, sentence in _parts(policy)}


def _parts(policy: PolicyFile) -> Iterator[tuple[str, str]]:
    yield "k", f"a list has {policy.k or 'as many'} items{'' if policy.k else ' as the setting k says'}"
    if policy.reasons is not None:
        yield "reasons", f"an item names at most {policy.reasons} events as its reasons"
    yield from _hidden_parts(policy)
    yield "limit.reminders", _reminders(policy.limit.reminders)
    yield from _ad_parts(policy)


def _hidden_parts(policy: PolicyFile) -> Iterator[tuple[str, str]]:
    hide = policy.hide
    yield "hidden", "items that the shop hides, or has removed from the catalogue, are never shown"
    for name, items, is_hidden in (
        ("out_of_stock", "items without stock", hide.out_of_stock),
        ("bought", "items that the user has bought", hide.bought),
        ("on_screen", "the item on screen", hide.on_screen),
        ("in_cart", "items in the cart", hide.in_cart),
    ):
        is_single = name == "on_screen"
        verb = ("is" if is_single else "are") + (" not shown" if is_hidden else " shown like any other")
        yield f"hide.{name}", f"{items} {verb}"


def _reminders(places: int) -> str:
    if not places:
        return "items that the user has met in this session are not shown"
    return f"at most {places} {'places repeat' if places > 1 else 'place repeats'} items of this session"


def _ad_parts(policy: PolicyFile) -> Iterator[tuple[str, str]]:
    if not policy.ads.shown:
        yield "ads", "no ad is shown"
        return
    reserve = policy.ads.reserve
    value = "the setting reserve" if reserve is None else f"{reserve:g}"
    yield "ads", f"the most valuable matching ad is shown, if its expected value reaches {value}"
