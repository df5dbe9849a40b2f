"""Catalogue and campaigns: the items and ads of the shop, as records of two compacted topics."""

from collections.abc import Callable, Iterator
from typing import Annotated, Literal, TypeVar

import msgspec

from clickscore.schemas.decisions import BidUnit
from clickscore.schemas.events import Price, Word, time_fault
from clickscore.schemas.field_types import MAX_BID, NAME_PATTERN, NAME_WORDS, EventTime, Id, Millis
from clickscore.schemas.json_depth import bounded_depth
from clickscore.schemas.open_decisions import MAX_WINDOW_MS, PURCHASE_WINDOW_MS
from clickscore.schemas.value_faults import describe_fault


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
    margin: Annotated[float, msgspec.Meta(ge=-1, le=1)] | None = None
    """Share of the price that the shop earns, -1 to 1; null if unknown."""
    seller: Annotated[str, msgspec.Meta(max_length=256)] = ""
    """Seller, in a shop with several."""
    regions: Annotated[tuple[Word, ...], msgspec.Meta(max_length=256)] = ()
    """Regions where the item is sold, as events name them in `region`; empty for everywhere."""
    groups: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)] = ()
    """Customer groups to which the item is sold, as events name them in `customer_group`; empty for everybody."""
    flags: Annotated[tuple[Word, ...], msgspec.Meta(max_length=16)] = ()
    """Marks of the shop's own, such as `adult` or `clearance`, which a policy may hide."""
    promoted: bool = False
    """Whether the item is in a promotion."""
    listed_at: EventTime | None = None
    """Time from which the item is in the shop, ms; null if unknown."""


Money = Annotated[float, msgspec.Meta(ge=0, le=MAX_BID)]
"""A bid or a budget, in the shop's currency."""

Target = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
"""A category or a brand, as the catalogue has it: an empty text would target the items of which it says nothing."""

QueryWord = Annotated[
    str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^\S+$", extra={"words": "be a single word"})
]
"""A single word of a search."""

PlacementName = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, extra=NAME_WORDS)]
"""Name of an ad placement, as the policy file has it."""


Pacing = Literal["even", "asap", "front_loaded"]
"""How a budget is spent over a day: along the traffic, as soon as possible, or sooner than the traffic comes."""


class Campaign(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An ad campaign. The key of the record is the campaign id; a tombstone ends the campaign.

    An unknown field is refused: a field that nothing reads would promise what does not happen.
    """

    campaign_id: Id
    item_id: Id
    """Advertised item."""
    bid: Money
    """Highest price, in the shop's currency, for what `bid_per` names."""
    bid_per: BidUnit = "click"
    """What the bid is for: a click, a thousand impressions, or an order."""
    target_items: frozenset[Id] = frozenset()
    """Targeted items: the ad may be shown if the session holds any of these items."""
    target_categories: frozenset[Target] = frozenset()
    """Targeted categories: the ad may be shown if the session's newest item is in any of these categories."""
    target_brands: frozenset[Target] = frozenset()
    """Targeted brands: the ad may be shown if the session's newest item is of any of these brands."""
    target_queries: frozenset[QueryWord] = frozenset()
    """Targeted words: the ad may be shown after a search with any of these words, in capitals or not.

    A campaign without any target may be shown in every session.
    """
    regions: frozenset[Word] = frozenset()
    """Regions where the ad may be shown, as events name them in `region`; empty for everywhere."""
    groups: frozenset[Word] = frozenset()
    """Customer groups to which the ad may be shown, as events name them in `customer_group`; empty for everybody."""
    placements: frozenset[PlacementName] = frozenset()
    """Ad placements of the policy where the ad may be shown; empty for all."""
    quality_floor: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """Lowest quality with which the ad takes part in an auction, 0 to 1."""
    starts_at: Millis = 0
    """First event time of the campaign, ms, from the year 2000 on; 0 for no limit."""
    ends_at: EventTime | None = None
    """End of the campaign in event time, ms: no ad is shown at or after the end. An end before the start cancels the
    campaign. Null for no end.
    """
    daily_budget: Money | None = None
    """Largest amount that is charged on a day (UTC), in the shop's currency; null for any. The day is that of the
    newest event of the partition, to which a late click counts.
    """
    total_budget: Money | None = None
    """Largest amount that is charged in all, in the shop's currency; null for any."""
    pacing: Pacing | None = None
    """How a budget is spent over the day; null for `even`. Only a campaign with a budget may have a pacing."""
    frequency_cap: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Largest number of impressions of this campaign to a user on a day (UTC, event time); null for any."""
    view_window_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_WINDOW_MS)] = 0
    """Time after an impression within which an order of the item counts without a click, ms; 0 for none."""
    purchase_window_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_WINDOW_MS)] = PURCHASE_WINDOW_MS
    """Time after a click within which an order of the item counts, ms."""

    @property
    def has_budget(self) -> bool:
        """Whether the spend is limited."""
        return self.daily_budget is not None or self.total_budget is not None


_decode_item = bounded_depth(msgspec.json.Decoder(Item).decode)
_decode_campaign = bounded_depth(msgspec.json.Decoder(Campaign).decode)


def decode_item(text: bytes) -> Item:
    """Return the item in JSON.

    Raises:
        msgspec.DecodeError: The JSON is malformed or nested too deeply, or it does not match the schema. The message
            names the field in a sentence.
        UnicodeDecodeError: A text is not UTF-8.
    """
    return _decode(_decode_item, text, Item)


def decode_campaign(text: bytes) -> Campaign:
    """Return the campaign in JSON.

    Raises:
        msgspec.DecodeError: The JSON is malformed or nested too deeply, or it does not match the schema. The message
            names the field in a sentence; so it does where two fields contradict each other.
        UnicodeDecodeError: A text is not UTF-8.
    """
    campaign = _decode(_decode_campaign, text, Campaign)
    faults = list(_campaign_faults(campaign))
    if faults:
        raise msgspec.ValidationError("; ".join(faults))
    return campaign


def _campaign_faults(campaign: Campaign) -> Iterator[str]:
    """Yield a sentence for a wrong time, and for each contradiction between fields of a campaign."""
    if campaign.pacing is not None and not campaign.has_budget:
        yield "pacing is set, but nothing reads it without a budget: add daily_budget or total_budget, or remove pacing"
    if campaign.bid_per == "order" and not (campaign.view_window_ms or campaign.purchase_window_ms):
        yield (
            "bid_per is order, but view_window_ms and purchase_window_ms are both 0, so that no order would ever be "
            "paid: set one of them"
        )
    fault = time_fault("starts_at", campaign.starts_at) if campaign.starts_at else None
    if fault:
        yield fault


_Record = TypeVar("_Record", Item, Campaign)


def _decode(decode: Callable[[bytes], _Record], text: bytes, kind: type[_Record]) -> _Record:
    """Return a record in JSON; a refusal names the field in a sentence.

    Args:
        decode: Decodes the record.
        text: JSON of the record.
        kind: Type of the record.
    """
    try:
        return decode(text)
    except msgspec.ValidationError as exc:
        raise msgspec.ValidationError(_describe_fault(exc, text, kind)) from exc


class _Times(msgspec.Struct):
    starts_at: int | float | None = None
    ends_at: int | float | None = None
    listed_at: int | float | None = None


_decode_times = msgspec.json.Decoder(_Times).decode


def _describe_fault(fault: msgspec.ValidationError, text: bytes, kind: type[Item] | type[Campaign]) -> str:
    """Return a sentence about a refused record; for a time in seconds or microseconds with the likely unit.

    Args:
        fault: The refusal.
        text: JSON of the record.
        kind: Type of the record.
    """
    field = str(fault).rpartition("`$.")[2].removesuffix("`")
    if field in _Times.__struct_fields__:
        try:
            ts = getattr(_decode_times(text), field)
        except (msgspec.DecodeError, UnicodeDecodeError):
            ts = None
        sentence = None if ts is None else time_fault(field, ts)
        if sentence:
            return sentence
    try:
        return describe_fault(fault, msgspec.json.decode(text), kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return str(fault)  # the rest of the text is no JSON


encode = msgspec.json.Encoder(order="deterministic").encode  # sets in sorted order: equal bytes in every process
