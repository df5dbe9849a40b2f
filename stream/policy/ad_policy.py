"""Ad policy: the tables of a policy file that say where ads are shown, how many, and how their price is set."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

import msgspec

from clickscore.schemas.catalogue import PlacementName
from clickscore.schemas.field_types import MAX_BID

Pricing = Literal["second_price", "first_price"]
"""Rule of the price of a slot."""

MAX_SLOTS = 100
"""Slots of a placement at most, and ads on a page."""

Exposure = Annotated[float, msgspec.Meta(gt=0, le=1)]
Place = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Reserve = Annotated[float, msgspec.Meta(ge=0, le=MAX_BID)]
AdLimit = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class AdPlacement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Slots for ads, beside the list of items or within."""

    exposure: Annotated[tuple[Exposure, ...], msgspec.Meta(min_length=1, max_length=MAX_SLOTS)] = (1.0,)
    """For each slot the probability that it is seen, relative to the first slot; it never rises."""
    places: Annotated[tuple[Place, ...], msgspec.Meta(max_length=MAX_SLOTS)] = ()
    """For each slot its place in the list, from 1, rising; empty for slots beside the list."""
    floating: bool = False
    """Whether an ad that may not be at its place goes to the next place where it may."""
    relevance: Share = 0.0
    """Lowest quality of an ad in the list, as a share of the quality of the item that the ad displaces."""
    pricing: Pricing = "second_price"
    """Rule of the price: the lowest bid that keeps the slot, or the bid itself."""
    reserve: Reserve | None = None
    """Lowest expected value of an impression in this placement; by default `ads.reserve`."""


class Ads(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ads, beside the list of items or within."""

    shown: bool = True
    """Whether any ad is shown."""
    reserve: Reserve | None = None
    """Lowest expected value of an ad's impression, in the currency of the bids; by default the setting `reserve`."""
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.01
    """Share of the next views, and of the purchases of a session, that an ad gets."""
    quality_weight: Share = 0.5
    """Exponent of relevance in the quality of an ad: 0 leaves relevance out."""
    per_page: AdLimit | None = None
    """Number of ads on a page, at most; by default as many as the placements have slots."""
    per_session: AdLimit | None = None
    """Number of ads in a session, at most; by default any."""
    placements: Annotated[dict[PlacementName, AdPlacement], msgspec.Meta(min_length=1, max_length=16)] = msgspec.field(
        default_factory=lambda: {"beside": AdPlacement()}
    )
    """Placements by name; by default one slot beside the list, named `beside`."""


def ad_contradictions(ads: Ads, k: int | None) -> Iterator[str]:
    """Yield a sentence for each contradiction within the ads of a policy.

    Args:
        ads: The table `ads`.
        k: Number of items in a recommendation; None where the setting says so.
    """
    if not ads.shown:
        for field in msgspec.structs.fields(Ads):
            default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            if field.name != "shown" and getattr(ads, field.name) != default:
                yield f"ads.{field.name} is about shown ads, but ads.shown = false shows none: remove one of the two"
    yield from _limit_contradictions(ads)
    for name, placement in sorted(ads.placements.items()):
        yield from _placement_contradictions(f"ads.placements.{name}", placement, k)
        if placement.relevance and not ads.quality_weight:
            yield (
                f"ads.placements.{name}.relevance compares the quality of items, but ads.quality_weight = 0 makes "
                "every quality 1: remove one of the two"
            )
    counts = Counter(number for placement in ads.placements.values() for number in set(placement.places))
    for number, count in sorted(counts.items()):
        if count > 1:
            yield f"two slots of ads.placements have the place {number}: keep one"


def _limit_contradictions(ads: Ads) -> Iterator[str]:
    """Yield a sentence where the limit of a page can never be reached."""
    slots = sum([len(placement.exposure) for placement in ads.placements.values()])
    if ads.per_page is not None and ads.per_page > slots:
        yield (
            f"ads.per_page is {ads.per_page}, but ads.placements has {slots} slot{'' if slots == 1 else 's'} on a "
            "page: add slots, or remove per_page"
        )
    if ads.per_page is not None and ads.per_session is not None and ads.per_page > ads.per_session:
        yield (
            f"ads.per_page ({ads.per_page}) is above ads.per_session ({ads.per_session}), so that no page has as many "
            "ads: lower per_page, or raise per_session"
        )


def _placement_contradictions(path: str, placement: AdPlacement, k: int | None) -> Iterator[str]:
    """Yield a sentence for each contradiction within an ad placement.

    Args:
        path: Path of the table in the file.
        placement: The placement.
        k: Number of items in a recommendation; None where the setting says so.
    """
    exposure, places = placement.exposure, placement.places
    if any(later > earlier for earlier, later in pairwise(exposure)):
        yield f"{path}.exposure rises: put the slots in the order in which they are seen"
    if any(later <= earlier for earlier, later in pairwise(places)):
        yield f"{path}.places does not rise: put the places in their order, each once"
    if places and len(places) != len(exposure):
        yield f"{path} has {len(places)} places and {len(exposure)} exposures: each slot needs one of both"
    if not places and (placement.floating or placement.relevance):
        yield f"{path} sets floating or relevance, which speak of places in the list, but has no places"
    if k is not None and places and max(places) > k:
        yield f"{path} has a slot at place {max(places)}, but a list has {k} items (k)"
