"""Catalogue: the items and campaigns of the shop, built from the records of two compacted topics."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from clickscore.schemas.catalogue import Campaign, Item, decode_campaign, decode_item
from clickscore.stream.reference.campaigns import CampaignIndex, NewestItem, PageContext
from clickscore.stream.reference.price_order import Kind, PricedItem, PriceOrder

Decoded = TypeVar("Decoded", Item, Campaign)


class ItemDetails(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The facts of an item that only some policies read."""

    brand: str = ""
    price: float | None = None
    margin: float | None = None
    """Share of the price that the shop earns; None if unknown."""
    seller: str = ""
    regions: tuple[str, ...] = ()
    """Regions where the item is sold; empty for everywhere."""
    groups: tuple[str, ...] = ()
    """Customer groups to which the item is sold; empty for everybody."""
    flags: tuple[str, ...] = ()
    is_promoted: bool = False
    listed_at: int | None = None
    """Time from which the item is in the shop, ms; None if unknown."""


ANY = Kind("", "")
"""Kind of all items, for an order of the whole catalogue."""

NO_DETAILS = ItemDetails()
"""Details of an item of which the catalogue says nothing more."""


class ItemFacts(NamedTuple):
    """The facts of an item that decisions depend on."""

    is_listed: bool
    """Whether the catalogue has the item."""
    is_out_of_stock: bool
    is_hidden: bool
    """Whether the shop hides the item, or has removed it."""
    category: str
    """Category; empty where it is unknown."""
    details: ItemDetails = NO_DETAILS

    @property
    def kind(self) -> Kind | None:
        """Category and brand, if the catalogue has the item with a category; None for an item without similar items."""
        return Kind(self.category, self.details.brand) if self.is_listed and self.category else None

    @property
    def listed_at(self) -> int | None:
        """Time since which the item is in the shop, ms; None for an item without, or that the catalogue lacks."""
        return self.details.listed_at if self.is_listed else None

    def priced(self, item_id: str) -> PricedItem:
        """Return price and id; the price 0 stands for an unknown price."""
        return self.details.price or 0.0, item_id


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
        self.limited: set[str] = set()
        """Items that are sold in some regions or to some customer groups only."""
        self._categories: dict[str, str] = {}
        self._details: dict[str, ItemDetails] = {}
        self.budgeted: set[str] = set()
        """The campaigns with a budget."""
        self.campaign_index = CampaignIndex()
        """The same campaigns by target."""
        self.order = PriceOrder()
        """Listed items with a category, by category, brand and price."""
        self.arrivals = PriceOrder()
        """Listed items by the time since which they are in the shop, in place of a price; all are of the kind `ANY`."""

    def category_of(self, item_id: str) -> str | None:
        """Return the category of an item; None for an unknown item."""
        return self._categories.get(item_id)

    def details_of(self, item_id: str) -> ItemDetails:
        """Return what else the catalogue says of an item."""
        return self._details.get(item_id, NO_DETAILS)

    @property
    def has_limited(self) -> bool:
        """Whether any item is sold in some regions or to some customer groups only."""
        return bool(self.limited)

    def update_item(self, key: bytes | None, value: bytes | None) -> str | None:
        """Apply a record of `catalogue-items`. An empty value removes the item, like a tombstone.

        Returns:
            The reason why the record is ignored; None if the record was applied.
        """
        try:
            item_id, item = read_item(key, value)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return str(exc)
        self.replace_facts(item_id, facts_of(item))
        return None

    def update_campaign(self, key: bytes | None, value: bytes | None) -> str | None:
        """Apply a record of `ad-campaigns`. An empty value ends the campaign, like a tombstone.

        Returns:
            The reason why the record is ignored; None if the record was applied.
        """
        try:
            campaign_id, campaign = read_campaign(key, value)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return str(exc)
        self.replace_campaign(campaign_id, campaign)
        return None

    @property
    def has_campaigns(self) -> bool:
        """Whether there is any campaign."""
        return bool(self.campaigns)

    @property
    def has_budgets(self) -> bool:
        """Whether any campaign has a budget."""
        return bool(self.budgeted)

    def campaign(self, campaign_id: str) -> Campaign | None:
        """Return a campaign; None for an unknown id."""
        return self.campaigns.get(campaign_id)

    def facts(self, item_id: str) -> ItemFacts:
        """Return the facts of an item."""
        return ItemFacts(
            item_id in self.item_ids,
            item_id in self.out_of_stock,
            item_id in self.hidden,
            self._categories.get(item_id, ""),
            self.details_of(item_id),
        )

    def similar_to(self, item_id: str) -> Iterator[str]:
        """Yield the items of the same category and brand, the nearest price first; the item itself is among them."""
        facts = self.facts(item_id)
        if facts.kind is not None:
            yield from (similar for _, similar in self.order.nearest(facts.kind, facts.priced(item_id)[0]))

    def arrivals_before(self, ts: int) -> Iterator[tuple[str, int]]:
        """Yield the items that are in the shop since before a time (ms), each with its own time, the newest first."""
        yield from ((item, int(listed_at)) for listed_at, item in self.arrivals.below(ANY, ts))

    def matching(self, page: PageContext) -> list[Campaign]:
        """Return the campaigns that target a page, and those without a target."""
        item = newest_item(page.items)
        return self.campaign_index.matching(page, NewestItem(self.category_of(item) or "", self.details_of(item).brand))

    def replace_facts(self, item_id: str, facts: ItemFacts) -> None:
        """Replace the facts of an item."""
        self.version += 1
        self._reorder(item_id, self.facts(item_id), facts)
        _set_member(self.item_ids, item_id, is_member=facts.is_listed)
        _set_member(self.out_of_stock, item_id, is_member=facts.is_out_of_stock)
        _set_member(self.hidden, item_id, is_member=facts.is_hidden)
        if facts.category:
            self._categories[item_id] = facts.category
        else:
            self._categories.pop(item_id, None)
        details = facts.details
        _set_member(self.limited, item_id, is_member=bool(details.regions or details.groups))
        if details is NO_DETAILS:
            self._details.pop(item_id, None)
        else:
            self._details[item_id] = details

    def _reorder(self, item_id: str, former: ItemFacts, facts: ItemFacts) -> None:
        """Move an item to another place in the order of prices and of arrivals, if anything of these has changed."""
        times = former.listed_at, facts.listed_at
        if times[0] != times[1]:
            if times[0] is not None:
                self.arrivals.remove(ANY, (times[0], item_id))
            if times[1] is not None:
                self.arrivals.add(ANY, (times[1], item_id))
        entries = [(entry.kind, entry.priced(item_id)) for entry in (former, facts)]
        if entries[0] == entries[1]:
            return
        (old_kind, old_item), (kind, item) = entries
        if old_kind is not None:
            self.order.remove(old_kind, old_item)
        if kind is not None:
            self.order.add(kind, item)

    def replace_campaign(self, campaign_id: str, campaign: Campaign | None) -> None:
        """Replace a campaign; None ends a campaign."""
        self.version += 1
        former = self.campaigns.pop(campaign_id, None)
        self.budgeted.discard(campaign_id)
        if former is not None:
            self.campaign_index.remove(former)
        if campaign is not None:
            self.campaigns[campaign_id] = campaign
            if campaign.has_budget:
                self.budgeted.add(campaign_id)
            self.campaign_index.add(campaign)


def _set_member(members: set[str], item_id: str, *, is_member: bool) -> None:
    if is_member:
        members.add(item_id)
    else:
        members.discard(item_id)


def facts_of(item: Item | None) -> ItemFacts:
    """Return the facts of an item; None is a removed item, which must not be shown, unlike an unknown item."""
    if item is None:
        return ItemFacts(is_listed=False, is_out_of_stock=False, is_hidden=True, category="")
    return ItemFacts(
        is_listed=True,
        is_out_of_stock=item.stock == 0,
        is_hidden=item.hidden,
        category=sys.intern(item.category),
        details=_details_of(item),
    )


def _details_of(item: Item) -> ItemDetails:
    """Return the details of an item; brands and sellers are stored once for all their items."""
    details = ItemDetails(
        brand=sys.intern(item.brand),
        price=item.price,
        margin=item.margin,
        seller=sys.intern(item.seller),
        regions=item.regions,
        groups=item.groups,
        flags=item.flags,
        is_promoted=item.promoted,
        listed_at=item.listed_at,
    )
    return NO_DETAILS if details == NO_DETAILS else details


def newest_item(items: Sequence[str]) -> str:
    """Return the newest item of a session, searches skipped; empty for a session of searches."""
    if items and items[-1]:  # nearly every session: a search is rare
        return items[-1]
    return next((item for item in reversed(items) if item), "")


def read_item(key: bytes | None, value: bytes | None) -> tuple[str, Item | None]:
    """Return the id and the item of a record of `catalogue-items`; None for a removed item.

    Raises:
        msgspec.DecodeError: The value does not match the schema, or names another item than the key.
        UnicodeDecodeError: The key is not UTF-8.
    """
    item_id, item = _decode_record(key, value, decode_item)
    if item is not None and item.item_id != item_id:
        message = f"the key says item {item_id!r}, the value {item.item_id!r}"
        raise msgspec.ValidationError(message)
    return item_id, item


def read_campaign(key: bytes | None, value: bytes | None) -> tuple[str, Campaign | None]:
    """Return the id and the campaign of a record of `ad-campaigns`; None for an ended campaign.

    Raises:
        msgspec.DecodeError: The value does not match the schema, or names another campaign than the key.
        UnicodeDecodeError: The key is not UTF-8.
    """
    campaign_id, campaign = _decode_record(key, value, decode_campaign)
    if campaign is not None and campaign.campaign_id != campaign_id:
        message = f"the key says campaign {campaign_id!r}, the value {campaign.campaign_id!r}"
        raise msgspec.ValidationError(message)
    return campaign_id, campaign


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
