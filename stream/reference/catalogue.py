"""Catalogue: the items and campaigns of the shop, built from the records of two compacted topics."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from clickscore.schemas.catalogue import Campaign, Item, decode_campaign, decode_item

Decoded = TypeVar("Decoded", Item, Campaign)


class Catalogue:
    """Items and campaigns by id, with indexes for the policy.

    An item that the catalogue does not know may be recommended: a shop can begin without a catalogue.
    """

    def __init__(self) -> None:
        self.version = 0
        """Number of applied updates. A result that was computed from an older version is recognised by this number."""
        self.item_ids: set[str] = set()
        """Items of the catalogue, without the removed ones."""
        self.out_of_stock: set[str] = set()
        self.hidden: set[str] = set()
        self.campaigns: dict[str, Campaign] = {}
        self._categories: dict[str, str] = {}
        self._by_item: dict[str, dict[str, Campaign]] = defaultdict(dict)
        self._by_category: dict[str, dict[str, Campaign]] = defaultdict(dict)
        self._untargeted: dict[str, Campaign] = {}

    def category_of(self, item_id: str) -> str | None:
        """Return the category of an item; None for an unknown item."""
        return self._categories.get(item_id)

    def update_item(self, key: bytes | None, value: bytes | None) -> str | None:
        """Apply a record of `catalogue-items`. An empty value removes the item, like a tombstone.

        Returns:
            The reason why the record is ignored; None if the record was applied.
        """
        try:
            item_id, item = _decode_record(key, value, decode_item)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return str(exc)
        if item is not None and item.item_id != item_id:
            return f"the key says item {item_id!r}, the value {item.item_id!r}"
        self._replace_item(item_id, item)
        self.version += 1
        return None

    def update_campaign(self, key: bytes | None, value: bytes | None) -> str | None:
        """Apply a record of `ad-campaigns`. An empty value ends the campaign, like a tombstone.

        Returns:
            The reason why the record is ignored; None if the record was applied.
        """
        try:
            campaign_id, campaign = _decode_record(key, value, decode_campaign)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return str(exc)
        if campaign is not None and campaign.campaign_id != campaign_id:
            return f"the key says campaign {campaign_id!r}, the value {campaign.campaign_id!r}"
        self._replace_campaign(campaign_id, campaign)
        self.version += 1
        return None

    def matching(self, items: list[str]) -> list[Campaign]:
        """Return the campaigns that target an item of the session, the category of the newest item, or everybody."""
        matches = dict(self._untargeted)
        for item in items:
            matches.update(self._by_item.get(item, {}))
        newest = next((item for item in reversed(items) if item), "")
        matches.update(self._by_category.get(self._categories.get(newest, ""), {}))
        return list(matches.values())

    def _replace_item(self, item_id: str, item: Item | None) -> None:
        self.out_of_stock.discard(item_id)
        self.hidden.discard(item_id)
        self._categories.pop(item_id, None)
        if item is None:
            # The shop removed the item: unlike an unknown item, a removed item must not be shown.
            self.hidden.add(item_id)
            self.item_ids.discard(item_id)
            return
        self.item_ids.add(item_id)
        if item.stock == 0:
            self.out_of_stock.add(item_id)
        if item.hidden:
            self.hidden.add(item_id)
        if item.category:
            self._categories[item_id] = item.category

    def _replace_campaign(self, campaign_id: str, campaign: Campaign | None) -> None:
        """Replace a campaign, and touch only the index entries of the old and the new targets."""
        former = self.campaigns.pop(campaign_id, None)
        if former is not None:
            for index, target in self._index_entries(former):
                index[target].pop(campaign_id)
                if not index[target]:
                    del index[target]
            self._untargeted.pop(campaign_id, None)
        if campaign is not None:
            self.campaigns[campaign_id] = campaign
            for index, target in self._index_entries(campaign):
                index[target][campaign_id] = campaign
            if not campaign.target_items and not campaign.target_categories:
                self._untargeted[campaign_id] = campaign

    def _index_entries(self, campaign: Campaign) -> Iterator[tuple[dict[str, dict[str, Campaign]], str]]:
        """Yield each index that lists the campaign, with the target that leads to the campaign."""
        for item in campaign.target_items:
            yield self._by_item, item
        for category in campaign.target_categories:
            yield self._by_category, category


def _decode_record(
    key: bytes | None, value: bytes | None, decode: Callable[[bytes], Decoded]
) -> tuple[str, Decoded | None]:
    """Return the key as text and the decoded value; None for a tombstone.

    Args:
        key: Key of the record.
        value: Value of the record; null and empty are tombstones. Some clients cannot send null.
        decode: Decoder of the topic.

    Raises:
        msgspec.DecodeError: The value does not match the schema.
        UnicodeDecodeError: The key is not UTF-8.
    """
    return (key or b"").decode(), decode(value) if value else None
