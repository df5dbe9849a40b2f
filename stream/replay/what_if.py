"""What if: say in sentences how the decision of another policy or bundle differs, and why."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.policy.policy_words import diff_policies


class DecidedItems(NamedTuple):
    """Items and campaign of a decision, and why other items are not shown."""

    items: tuple[str, ...]
    campaign_id: str | None
    removed: Mapping[str, str]
    """Reason for each removed item, to follow "because"."""
    ranks: Mapping[str, int] | None
    """Rank of each candidate of the model, from 1; None without a model."""


def describe_changes(
    old: DecidedItems, new: DecidedItems, policy: PolicyFile, alternative: PolicyFile
) -> Iterator[str]:
    """Yield the differences of two decisions on an event in sentences, then those of their policies.

    Args:
        old: The decision.
        new: What would have been decided.
        policy: Policy of the decision.
        alternative: Policy that would have decided.
    """
    yield from _item_changes(old, new)
    if old.campaign_id != new.campaign_id:
        yield f"the ad would be {_campaign(new.campaign_id)} instead of {_campaign(old.campaign_id)}"
    if policy != alternative:
        for change in diff_policies(policy, alternative):
            yield f"the policies differ in {change}"


def _item_changes(old: DecidedItems, new: DecidedItems) -> Iterator[str]:
    """Yield the differences between the shown items."""
    old_positions = {item: position for position, item in enumerate(old.items, start=1)}
    new_positions = {item: position for position, item in enumerate(new.items, start=1)}
    for item, position in old_positions.items():
        if item not in new_positions:
            yield f"{item} would not be shown (it was at place {position}): {_absence(item, new)}"
    for item, position in new_positions.items():
        if item not in old_positions:
            yield f"{item} would be shown at place {position}: in the decision, {_absence(item, old)}"
    remaining, moved = (
        [item for item in old.items if item in new_positions],
        [item for item in new.items if item in old_positions],
    )
    if remaining != moved:
        for item, position in new_positions.items():
            if item in old_positions and position != old_positions[item]:
                yield f"{item} would be at place {position} instead of {old_positions[item]}"
    elif remaining and len(remaining) < len(old.items):
        yield "the other items would keep their order"


def _absence(item: str, decided: DecidedItems) -> str:
    """Return the reason why a decision does not show an item."""
    if item in decided.removed:
        return f"it is not shown because {decided.removed[item]}"
    if decided.ranks is None:
        return "other items take the places"
    rank = decided.ranks.get(item)
    if rank is None:
        return "it is not among the candidates of the model"
    return f"it is number {rank} of the model, and {len(decided.items)} other items take the places"


def _campaign(campaign_id: str | None) -> str:
    return f"that of campaign {campaign_id}" if campaign_id else "none"
