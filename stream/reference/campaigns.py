"""Campaigns: find the campaigns that target a page, through an index over all targets.

A change of a campaign touches only the index entries of its old and new targets.
"""

from collections.abc import Iterator, Sequence

import msgspec

from clickscore.schemas.catalogue import Campaign

_NOTHING: dict[str, Campaign] = {}


class PageContext(msgspec.Struct, frozen=True, gc=False):
    """What campaigns may target on a page."""

    items: Sequence[str]
    """Items of the session, oldest first; an empty text for a search."""
    query: frozenset[str] = frozenset()
    """Words of the search that the page answers, without capitals."""
    region: str | None = None
    """Region of the user; None if unknown."""
    group: str | None = None
    """Customer group of the user; None if unknown."""


class NewestItem(msgspec.Struct, frozen=True, gc=False):
    """What the catalogue says of the newest item of a session; empty texts where it says nothing."""

    category: str
    brand: str


class CampaignIndex:
    """Campaigns by target."""

    def __init__(self) -> None:
        self._by_item: dict[str, dict[str, Campaign]] = {}
        self._by_category: dict[str, dict[str, Campaign]] = {}
        self._by_brand: dict[str, dict[str, Campaign]] = {}
        self._by_word: dict[str, dict[str, Campaign]] = {}
        self._untargeted: dict[str, Campaign] = {}

    def add(self, campaign: Campaign) -> None:
        """Add a campaign."""
        for index, target in self._entries(campaign):
            index.setdefault(target, {})[campaign.campaign_id] = campaign
        if not has_targets(campaign):
            self._untargeted[campaign.campaign_id] = campaign

    def remove(self, campaign: Campaign) -> None:
        """Remove a campaign."""
        for index, target in self._entries(campaign):
            campaigns = index[target]
            del campaigns[campaign.campaign_id]
            if not campaigns:
                del index[target]
        self._untargeted.pop(campaign.campaign_id, None)

    def matching(self, page: PageContext, newest: NewestItem) -> list[Campaign]:
        """Return the campaigns for a page: those that target it, and those without a target.

        Args:
            page: The page.
            newest: What the catalogue says of the session's newest item.
        """
        matches = self._untargeted.copy()
        if self._by_item:
            for item in page.items:
                matches.update(self._by_item.get(item, _NOTHING))
        matches.update(self._by_category.get(newest.category, _NOTHING))
        matches.update(self._by_brand.get(newest.brand, _NOTHING))
        for word in page.query:
            matches.update(self._by_word.get(word, _NOTHING))
        return [campaign for campaign in matches.values() if _is_for_user(campaign, page)]

    def _entries(self, campaign: Campaign) -> Iterator[tuple[dict[str, dict[str, Campaign]], str]]:
        """Yield each index that lists the campaign, with the target that leads to the campaign."""
        for item in campaign.target_items:
            yield self._by_item, item
        for category in campaign.target_categories:
            yield self._by_category, category
        for brand in campaign.target_brands:
            yield self._by_brand, brand
        for word in {word.casefold() for word in campaign.target_queries}:
            yield self._by_word, word


def has_targets(campaign: Campaign) -> bool:
    """Return whether a campaign targets anything of a page."""
    return bool(
        campaign.target_items or campaign.target_categories or campaign.target_brands or campaign.target_queries
    )


def is_target(campaign: Campaign, page: PageContext, newest: NewestItem) -> bool:
    """Return whether a campaign is for a page, without an index.

    Args:
        campaign: The campaign.
        page: The page.
        newest: What the catalogue says of the session's newest item.
    """
    return _is_for_user(campaign, page) and (
        not has_targets(campaign)
        or not campaign.target_items.isdisjoint(page.items)
        or newest.category in campaign.target_categories
        or newest.brand in campaign.target_brands
        or any(word.casefold() in page.query for word in campaign.target_queries)
    )


def _is_for_user(campaign: Campaign, page: PageContext) -> bool:
    """Return whether a campaign is for the region and the customer group of a user."""
    return (not campaign.regions or page.region in campaign.regions) and (
        not campaign.groups or page.group in campaign.groups
    )
