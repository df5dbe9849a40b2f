"""Shelf plan: what the policy of a shelf has in place of the policy of a plain list."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from clickscore.schemas.decisions import ShelfJob
from clickscore.schemas.events import ACTION_OF, Event, Impression
from clickscore.stream.policy.policy_file import ANY_NUMBER, PolicyFile
from clickscore.stream.policy.shelf_policy import Pages, job_of
from clickscore.stream.policy.shelf_sources import ShelfSource, make_source
from clickscore.stream.settings import PolicySettings


class ShelfPlan(NamedTuple):
    """A shelf of a page."""

    name: str
    job: ShelfJob
    label: str
    """Version and content hash of the policy file."""
    rules: PolicyFile
    """The policy file with the goals of the shelf, and without the rules that would defeat its job."""
    size: int
    """Number of items."""
    source: ShelfSource | None
    """Source of candidates; None for the candidates of a plain list."""


def make_shelf_plan(policy_file: PolicyFile, name: str, settings: PolicySettings) -> ShelfPlan | None:
    """Return the plan of a shelf; None for a name that the policy does not know.

    Args:
        policy_file: The policy.
        name: Name of the shelf.
        settings: Values for what the policy file leaves out.
    """
    job = job_of(name, policy_file.shelves)
    if job is None:
        return None
    table = policy_file.shelves.get(name)
    label = policy_file.label
    policy_file = msgspec.structs.replace(policy_file, goals=policy_file.goals.shelf_goals(name))
    size = (table.size if table else None) or policy_file.size(settings)
    source = make_source(job, policy_file.boost.fresh_days)
    return ShelfPlan(name, job, label, _rules_for(job, policy_file), size, source)


def _rules_for(job: ShelfJob, policy_file: PolicyFile) -> PolicyFile:
    """Return a policy without the rules that would defeat a job.

    Diversity would hide what a shelf of similar items is for, and the order of time is the order of other shelves.
    Pins are places of the list `for_you`. A shelf of viewed items has nothing but reminders. Bought items may be bought
    again, unless the policy says when those of some categories return. A shelf of the user's own items has the same
    items on each page, so that impressions without a click do not count there. A shelf of a single category would end
    where its category is full.
    """
    if job in ("similar", "recently_viewed", "buy_again", "new_in"):
        policy_file = msgspec.structs.replace(policy_file, diversity=0.0)
    if job != "for_you":
        policy_file = msgspec.structs.replace(policy_file, pin=())
    if job in ("recently_viewed", "buy_again") and policy_file.hide.seen is not None:
        policy_file = msgspec.structs.replace(policy_file, hide=msgspec.structs.replace(policy_file.hide, seen=None))
    if job in ("similar", "popular_in_category"):
        limit = msgspec.structs.replace(policy_file.limit, category=None)
        policy_file = msgspec.structs.replace(policy_file, limit=limit)
    if job == "recently_viewed":
        limit = msgspec.structs.replace(policy_file.limit, reminders=ANY_NUMBER)
        policy_file = msgspec.structs.replace(policy_file, limit=limit)
    if job == "buy_again" and not policy_file.hide.lets_return:
        policy_file = msgspec.structs.replace(policy_file, hide=msgspec.structs.replace(policy_file.hide, bought=False))
    return policy_file


def shelves_by_event(pages: Pages) -> dict[type[Event], Sequence[str]]:
    """Return the names of the shelves on the page of each class of events that has any."""
    classes: tuple[type[Event], ...] = (*ACTION_OF, Impression)
    names = {kind: getattr(pages, str(kind.__struct_config__.tag)) for kind in classes}
    return {kind: shelves for kind, shelves in names.items() if shelves}
