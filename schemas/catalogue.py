"""Catalogue and campaigns: what the shop may recommend and advertise, as compacted topics hold it."""

from typing import Annotated

import msgspec

from clickscore.schemas.events import Id, Millis, Price


class Item(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An item of the catalogue, keyed by its id; a tombstone removes it."""

    item_id: Id
    title: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    category: Annotated[str, msgspec.Meta(max_length=256)] = ""
    brand: Annotated[str, msgspec.Meta(max_length=256)] = ""
    price: Price | None = None
    stock: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Pieces left; none where the shop does not say, which counts as in stock."""
    hidden: bool = False
    """Never recommend it."""


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """An ad campaign, keyed by its id; a tombstone ends it."""

    campaign_id: Id
    item_id: Id
    """The item that is advertised."""
    bid: Price
    """What a click is worth to the advertiser, in the shop's currency."""
    target_items: frozenset[str] = frozenset()
    """Shown where the session holds one of these items."""
    target_categories: frozenset[str] = frozenset()
    """Shown where the session's newest item is of one of these categories. With no target at all: everywhere."""
    starts_at: Millis = 0
    ends_at: Millis | None = None
    daily_budget: Price | None = None
    frequency_cap: Annotated[int, msgspec.Meta(ge=1)] | None = None


decode_item = msgspec.json.Decoder(Item).decode
decode_campaign = msgspec.json.Decoder(Campaign).decode
encode = msgspec.json.Encoder().encode
