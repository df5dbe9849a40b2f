"""Catalogue: the items and campaigns that a worker knows, as the compacted topics told it so far."""

from collections import defaultdict

import msgspec

from clickscore.schemas.catalogue import Campaign, Item, decode_campaign, decode_item


class Catalogue:
    """Items and campaigns by id, and what the policy asks of them.

    An item that the catalogue does not know may be recommended: a shop can begin without one.
    """

    def __init__(self) -> None:
        self.version = 0
        """Counts the updates taken, so that what was made from an older version can be told."""
        self.out_of_stock: set[str] = set()
        self.hidden: set[str] = set()
        self.campaigns: dict[str, Campaign] = {}
        self._category_of: dict[str, str] = {}
        self._by_item: dict[str, list[Campaign]] = defaultdict(list)
        self._by_category: dict[str, list[Campaign]] = defaultdict(list)
        self._untargeted: list[Campaign] = []

    def category_of(self, item_id: str) -> str | None:
        """Return an item's category; none where it is unknown."""
        return self._category_of.get(item_id)

    def update_item(self, key: bytes | None, value: bytes | None) -> str | None:
        """Take a record of `catalogue-items`; return what is wrong with it, none where it was taken."""
        try:
            item_id = (key or b"").decode()
            item = None if value is None else decode_item(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            return str(exc)
        if item is not None and item.item_id != item_id:
            return f"the key says item {item_id!r}, the value {item.item_id!r}"
        self._replace_item(item_id, item)
        self.version += 1
        return None

    def update_campaign(self, key: bytes | None, value: bytes | None) -> str | None:
        """Take a record of `ad-campaigns`; return what is wrong with it, none where it was taken."""
        try:
            campaign_id = (key or b"").decode()
            campaign = None if value is None else decode_campaign(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            return str(exc)
        if campaign is not None and campaign.campaign_id != campaign_id:
            return f"the key says campaign {campaign_id!r}, the value {campaign.campaign_id!r}"
        self.campaigns.pop(campaign_id, None)
        if campaign is not None:
            self.campaigns[campaign_id] = campaign
        self._index_campaigns()
        self.version += 1
        return None

    def matching(self, items: list[str]) -> list[Campaign]:
        """Return the campaigns that target one of a session's items, its newest item's category, or nothing."""
        found = {campaign.campaign_id: campaign for campaign in self._untargeted}
        for item in items:
            for campaign in self._by_item.get(item, ()):
                found[campaign.campaign_id] = campaign
        newest = next((item for item in reversed(items) if item), "")
        for campaign in self._by_category.get(self._category_of.get(newest, ""), ()):
            found[campaign.campaign_id] = campaign
        return list(found.values())

    def _replace_item(self, item_id: str, item: Item | None) -> None:
        self.out_of_stock.discard(item_id)
        self.hidden.discard(item_id)
        self._category_of.pop(item_id, None)
        if item is None:
            # The shop took it out: unlike an item never heard of, it must not be shown.
            self.hidden.add(item_id)
            return
        if item.stock == 0:
            self.out_of_stock.add(item_id)
        if item.hidden:
            self.hidden.add(item_id)
        if item.category:
            self._category_of[item_id] = item.category

    def _index_campaigns(self) -> None:
        self._by_item.clear()
        self._by_category.clear()
        self._untargeted = []
        for campaign in self.campaigns.values():
            for item in campaign.target_items:
                self._by_item[item].append(campaign)
            for category in campaign.target_categories:
                self._by_category[category].append(campaign)
            if not campaign.target_items and not campaign.target_categories:
                self._untargeted.append(campaign)
