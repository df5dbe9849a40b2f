"""Ad plan: the ad placements and limits of a policy file, ready for auctions."""

from typing import NamedTuple

from clickscore.stream.policy.ad_policy import AdPlacement, Pricing
from clickscore.stream.policy.auction import Slot
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.settings import PolicySettings


class Placement(NamedTuple):
    """An ad placement."""

    name: str
    slots: tuple[Slot, ...]
    reserve: float
    """Lowest score times exposure of a shown ad, in the currency of the bids, for one impression."""
    pricing: Pricing
    relevance: float
    """Lowest quality of an ad in the list, as a share of the displaced item's quality."""


class AdPlan(NamedTuple):
    """Ad placements and limits."""

    placements: tuple[Placement, ...]
    """Placements in the order of their names."""
    share: float
    """Share of the next views and of the purchases that an ad gets."""
    quality_weight: float
    """Exponent of relevance in the quality of an ad."""
    per_page: int | None
    """Largest number of ads on a page; None for any."""
    per_session: int | None
    """Largest number of ads in a session; None for any."""
    size: int
    """Number of items in a recommendation."""
    is_in_list: bool
    """Whether ads may be among the recommended items."""


def make_ad_plan(policy_file: PolicyFile, settings: PolicySettings, size: int) -> AdPlan:
    """Return the ad plan of a policy; without ads there is no placement.

    Args:
        policy_file: The policy.
        settings: Values for what the policy file leaves out.
        size: Number of items in the list.
    """
    ads = policy_file.ads
    tables = sorted(ads.placements.items()) if ads.shown else ()
    reserve = policy_file.reserve(settings)
    placements = tuple(
        Placement(
            name,
            tuple(_slots(table, size)),
            reserve if table.reserve is None else table.reserve,
            table.pricing,
            table.relevance,
        )
        for name, table in tables
    )
    is_in_list = any(table.places for _, table in tables)
    return AdPlan(placements, ads.share, ads.quality_weight, ads.per_page, ads.per_session, size, is_in_list)


def _slots(table: AdPlacement, size: int) -> list[Slot]:
    """Return the slots of a placement; a slot behind the end of the list is left out.

    Args:
        table: The placement.
        size: Number of items in a recommendation.
    """
    if not table.places:
        return [Slot(number, exposure) for number, exposure in enumerate(table.exposure)]
    return [
        Slot(number, exposure, tuple(range(first - 1, size if table.floating else first)))
        for number, (exposure, first) in enumerate(zip(table.exposure, table.places, strict=True))
        if first <= size
    ]
