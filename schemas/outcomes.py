"""Outcomes: what became of a decision, on `decision-outcomes`, and what advertisers pay, on `ad-charges`.

Both follow from the partition's log alone, so a repeat after a crash has the same bytes.
"""

from typing import Literal

import msgspec

from clickscore.schemas.decisions import BidUnit
from clickscore.schemas.json_depth import bounded_depth
from clickscore.schemas.purposes import Purpose

ChargeReason = Literal["charged", "no impression", "repeated", "too fast", "machine", "order moved", "budget"]
"""Why an amount is charged, is not charged, or is given back."""


class LineOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Reactions to an item of a page. Numbers that are 0 are left out."""

    item_id: str
    placement: str
    """Shelf of the item, `list` on a page without shelves; for an ad the ad placement of the policy."""
    position: int | None = None
    """Position in the list, from 0; left out for an ad beside the lists."""
    campaign_id: str | None = None
    """Campaign of an ad; left out for any other item."""
    impressions: int = 0
    clicks: int = 0
    """All clicks, invalid ones included."""
    valid_clicks: int = 0
    """Clicks after an impression, at the speed of a person, no repeats within seconds, and by no machine."""
    carts: int = 0
    purchases: int = 0
    """Order lines."""
    revenue: float = 0.0
    """Sum of price * quantity of the order lines, in the shop's currency."""
    gross: float = 0.0
    """Price of everything that the campaign bids for, invalid traffic included."""
    net: float = 0.0
    """Price of what is charged. With a budget the campaign may pay less: `ad-charges` has what it pays."""


class DecisionOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="outcome"):
    """What became of a decision. The record with the largest `revision` counts; it replaces the earlier ones."""

    decision_id: str
    """Id of the recommendation; the ads of the page are in the same record."""
    user_id: str
    ts: int
    """Event time of the answered event, ms."""
    variant: str
    """Variant for which the decision counts: that of the A/B test; `fallback` where the model was to choose and chose
    no item; `machine` for a bot or an agent."""
    revision: int = 0
    """0 for the record at the end of the click window; corrections count up."""
    withheld: tuple[Purpose, ...] = ()
    """Purposes without the user's consent at the decision; left out where there is consent for all."""
    lines: tuple[LineOutcome, ...] = ()
    """Items of the page with a reaction, from top to bottom."""


class AdCharge(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="charge"):
    """What a campaign pays for an event, or gets back. The sum of `net` over all records is what it owes.

    A sold slot is charged once at most, so it never costs more than the price that the decision states.
    """

    charge_id: str
    """`DECISION_ID/SLOT/NUMBER`, and `/LEASE` behind it for a rest that a later lease pays. A repeat after a crash
    has the same id.
    """
    campaign_id: str
    decision_id: str
    """Id of the recommendation of the page."""
    slot: int
    """Index of the slot in the decision on ads."""
    placement: str
    bid_per: BidUnit
    ts: int
    """Event time of the newest event behind the charge, ms."""
    gross: float
    """Price of what happened, whether it is charged or not."""
    net: float
    """Amount to pay; below 0 for a credit."""
    reason: ChargeReason


decode_outcome = bounded_depth(msgspec.json.Decoder(DecisionOutcome).decode)
decode_charge = bounded_depth(msgspec.json.Decoder(AdCharge).decode)
encode_outcome = msgspec.json.Encoder().encode
