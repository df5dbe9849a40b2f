"""Catalogue and campaigns: the items and ads of the shop, as records of two compacted topics."""

from typing import Annotated

import msgspec

from clickscore.schemas.events import Id, Millis, Price
from clickscore.schemas.json_depth import bounded_depth


class Item(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An item of the catalogue. The key of the record is the item id; a tombstone removes the item."""

    item_id: Id
    title: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    category: Annotated[str, msgspec.Meta(max_length=256)] = ""
    brand: Annotated[str, msgspec.Meta(max_length=256)] = ""
    price: Price | None = None
    stock: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Number of pieces in stock; null if unknown. An unknown number counts as in stock."""
    hidden: bool = False
    """Whether the item must never be recommended."""


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """An ad campaign. The key of the record is the campaign id; a tombstone ends the campaign."""

    campaign_id: Id
    item_id: Id
    """Advertised item."""
    bid: Price
    """Value of a click for the advertiser, in the shop's currency."""
    target_items: frozenset[str] = frozenset()
    """Targeted items: the ad may be shown if the session holds any of these items."""
    target_categories: frozenset[str] = frozenset()
    """Targeted categories: the ad may be shown if the session's newest item is in any of these categories.

    A campaign without any target may be shown in every session.
    """
    starts_at: Millis = 0
    """First event time of the campaign, ms."""
    ends_at: Millis | None = None
    """End of the campaign in event time, ms: no ad is shown at or after the end. Null for no end."""
    daily_budget: Price | None = None
    """Not applied yet: the field is accepted, and ads are shown without a budget."""
    frequency_cap: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Not applied yet: the field is accepted, and ads are shown without a cap."""


decode_item = bounded_depth(msgspec.json.Decoder(Item).decode)
decode_campaign = bounded_depth(msgspec.json.Decoder(Campaign).decode)
encode = msgspec.json.Encoder().encode
