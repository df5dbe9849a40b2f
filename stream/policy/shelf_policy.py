"""Shelf policy: the tables of a policy file that name the shelves of each page, with the job and the size of each."""

from collections.abc import Iterator, Mapping
from typing import Annotated, get_args

import msgspec

from clickscore.schemas.decisions import ShelfJob
from clickscore.schemas.events import MAX_SHELVES, ShelfName

SHELF_JOBS: tuple[ShelfJob, ...] = get_args(ShelfJob)
"""All jobs of shelves. Each is also the name of a shelf that needs no table."""

ShelfNames = Annotated[tuple[ShelfName, ...], msgspec.Meta(max_length=MAX_SHELVES)]
ShelfSize = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class Pages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of the shelves on the page of each event type, from top to bottom; empty for one plain list."""

    view: ShelfNames = ()
    click: ShelfNames = ()
    cart: ShelfNames = ()
    remove_from_cart: ShelfNames = ()
    favourite: ShelfNames = ()
    purchase: ShelfNames = ()
    search: ShelfNames = ()
    impression: ShelfNames = ()


class ShelfTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A shelf."""

    job: ShelfJob | None = None
    """What the shelf shows; by default its name says so."""
    size: ShelfSize | None = None
    """Number of items; by default as many as a list has."""


def job_of(name: str, shelves: Mapping[str, ShelfTable]) -> ShelfJob | None:
    """Return the job of a shelf; None for an unknown shelf.

    Args:
        name: Name of the shelf.
        shelves: Tables of the policy by name.
    """
    table = shelves.get(name)
    if table is not None and table.job is not None:
        return table.job
    return next((job for job in SHELF_JOBS if job == name), None)


def shelf_contradictions(pages: Pages, shelves: Mapping[str, ShelfTable]) -> Iterator[str]:
    """Yield a sentence for each contradiction within the shelves of a policy.

    Args:
        pages: The table `pages`.
        shelves: The table `shelves`.
    """
    jobs = ", ".join(SHELF_JOBS)
    for name, table in sorted(shelves.items()):
        job = job_of(name, shelves)
        if job is None:
            yield f"shelves.{name} says no job, and its name is none: set job to one of {jobs}"
        elif job == "sponsored" and table.size is not None:
            yield f"shelves.{name}.size is set, but ads.placements says how many ads a page has: remove size"
    for event, names in msgspec.structs.asdict(pages).items():
        for name in sorted(set(names)):
            if names.count(name) > 1:
                yield f"pages.{event} names the shelf {name!r} twice: keep one"
            if name not in shelves and job_of(name, shelves) is None:
                yield f"pages.{event} names the shelf {name!r}, which has no table in shelves, and is none of {jobs}"
        ads = [name for name in dict.fromkeys(names) if job_of(name, shelves) == "sponsored"]
        if len(ads) > 1:
            yield f"pages.{event} has the same ads on the shelves {' and '.join(map(repr, ads))}: keep one"
        if names and len(ads) == len(set(names)):
            yield f"pages.{event} has ads alone: add a shelf of another job"
