"""Decisions: the recommendation and the ad chosen for a user in answer to an event.

Scores are rounded to 6 decimals (see `round_score`), and only Kafka headers have wall-clock time, so a repeated
decision is byte-equal to the first.
"""

from typing import Literal

import msgspec

from clickscore.schemas.clients import Client, ClientReason
from clickscore.schemas.json_depth import bounded_depth
from clickscore.schemas.purposes import Purpose

BidUnit = Literal["click", "thousand_impressions", "order"]
"""What an advertiser bids for, and pays for."""

ExclusionCause = Literal["not_running", "item", "quality", "cap", "budget"]
"""Why a campaign takes no part: its time, a filter on its item, its quality floor, its frequency cap, its budget."""


class Because(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event of the session that raised the score of an item."""

    item_id: str
    """Item of the event."""
    action: str
    """Type of the event."""
    contribution: float
    """Difference between the item's score and its score without the event; above 0."""


class Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An item of a recommendation."""

    item_id: str
    score: float
    """Score of the model for a candidate of the model, also where it is shown as `sponsored`; 0 for any other item."""
    propensity: float
    """Probability with which the policy showed this item at this position."""
    reason: str
    """Origin of the item: `model`; `similar` to the current item; `popular`; `pinned` to a fixed place by the policy;
    `sponsored` for an ad; and on shelves `viewed` in this session, bought `together` with items on screen and in the
    cart, `bought` by the user before, or `new` in the shop."""
    because: tuple[Because, ...] = ()
    """Events with the largest contributions, largest first; left out if empty, and with `reasons` set to 0."""
    sponsored: bool = False
    """Whether the item is an ad, and must be shown as such; left out for any other item."""
    campaign_id: str | None = None
    """Campaign of a sponsored item; left out for any other item."""


ShelfJob = Literal[
    "for_you",
    "similar",
    "complement",
    "recently_viewed",
    "buy_again",
    "popular_in_category",
    "new_in",
    "sponsored",
]
"""What a shelf of a page shows."""


class Shelf(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A shelf of a page. No item of it is on another shelf of the page, or among its ads unless the shelf shows ads."""

    name: str
    """Name in the policy."""
    job: ShelfJob
    """What the shelf shows."""
    items: tuple[Choice, ...]
    """The items to show, best first: fewer than the shelf has places, or none, where its sources have no more."""
    filtered: dict[str, int] = {}
    """Number of candidates removed by each rule of the policy; left out where no candidate was removed."""
    moved: dict[str, int] = {}
    """Number of shown places to which each re-ranker of the policy brought another item; left out without a move."""


class RecommendationContext(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="recommendation", gc=False
):
    """All fields of a recommendation except the items: the event, the session and the model's probabilities."""

    decision_id: str
    """`TOPIC-PARTITION-OFFSET` of the answered event: the same after any crash."""
    user_id: str
    event_id: str
    ts: int
    """Event time of the answered event, ms."""
    bundle: str | None
    """Version of the scoring bundle; null without scores."""
    policy: str
    """Version and content hash of the policy: `VERSION@HASH`."""
    variant: str
    """Variant of the A/B test: `model`, `popular`, or `challenger` for users who get the challenger of a rollout."""
    session_id: str
    session_length: int
    """Number of events of the session so far, the answered event included."""
    late: bool
    """Whether the event came later than allowed. A late event gets a decision, but changes no state."""
    actions: dict[str, float] | None
    """Probability of each next action (view, cart, favourite, purchase, leave); null where no model predicts it."""
    purchase: float | None
    """Probability of a purchase in the rest of the session; null where no model predicts it."""
    withheld: tuple[Purpose, ...] | msgspec.UnsetType = msgspec.UNSET
    """Purposes without the user's consent; left out where there is consent for all."""
    client: Client | msgspec.UnsetType = msgspec.UNSET
    """Class of the user; left out for a shopper. A bot or an agent counts in no experiment and pays for no ad."""
    client_reason: ClientReason | msgspec.UnsetType = msgspec.UNSET
    """Why the user has the class; left out for a user without a class."""


class Recommendation(
    RecommendationContext, frozen=True, kw_only=True, tag_field="type", tag="recommendation", gc=False
):
    """The items to show, best first."""

    items: tuple[Choice, ...]
    filtered: dict[str, int]
    """Number of candidates removed by each rule of the policy: up to the last chosen item, or among the best 64
    candidates where the policy has a boost, a lowest relevance or a pin. An item that several sources offer counts for
    each of them.
    """
    moved: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    """Number of shown places to which each re-ranker of the policy brought another item; left out without a move."""
    shelf: str | msgspec.UnsetType = msgspec.UNSET
    """Name of the main shelf, whose items are in `items`; left out for a page of one plain list."""
    shelves: tuple[Shelf, ...] | msgspec.UnsetType = msgspec.UNSET
    """The other shelves of the page, from top to bottom; left out for a page of one plain list."""


class SoldSlot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A slot for an ad, with the campaign that won it."""

    placement: str
    """Ad placement of the policy."""
    slot: int
    """Number of the slot in its placement, from 0."""
    position: int | None
    """Position of the sponsored item in the recommendation, from 0; null for an ad beside the list."""
    campaign_id: str
    item_id: str
    bid: float
    """Highest price that the campaign pays for what `bid_per` names."""
    bid_per: BidUnit
    probability: float
    """Probability that an impression brings what the bid is for."""
    quality: float
    """Quality of the advertised item for this user, 0 to 1."""
    exposure: float
    """Probability that the slot is seen, relative to the first slot of the placement."""
    price: float
    """Price for what `bid_per` names: at most the bid, and 0 for a bot or an agent."""
    runner_up: str | None
    """Campaign that would have won the slot otherwise; null where no other campaign wanted it."""
    multiplier: float | msgspec.UnsetType = msgspec.UNSET
    """Factor on the bid, from the pacing of the budget; left out for a campaign without a budget."""
    view_window_ms: int | msgspec.UnsetType = msgspec.UNSET
    """Time after an impression within which an order of the item counts without a click, ms; left out for 0."""
    purchase_window_ms: int | msgspec.UnsetType = msgspec.UNSET
    """Time after a click within which an order of the item counts, ms; left out for a day."""


class Ad(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ad", gc=False):
    """The campaigns to show, if any. Campaign, item and bid of the first slot are repeated beside the slots."""

    decision_id: str
    """`TOPIC-PARTITION-OFFSET-ad` of the answered event."""
    user_id: str
    event_id: str
    ts: int
    bundle: str | None
    policy: str
    variant: str
    session_id: str
    campaign_id: str | None
    item_id: str | None
    bid: float | None
    purchase: float | None
    propensity: float
    reason: str
    """Reason for the campaigns, or for showing no ad, in words."""
    withheld: tuple[Purpose, ...] | msgspec.UnsetType = msgspec.UNSET
    """Purposes without the user's consent; left out where there is consent for all."""
    client: Client | msgspec.UnsetType = msgspec.UNSET
    """Class of the user; left out for a shopper. A bot or an agent counts in no experiment and pays for no ad."""
    client_reason: ClientReason | msgspec.UnsetType = msgspec.UNSET
    """Why the user has the class; left out for a user without a class."""
    slots: tuple[SoldSlot, ...] = ()
    """The sold slots: by placement in order of names, then by slot."""
    budgets: dict[str, float | None] | msgspec.UnsetType = msgspec.UNSET
    """Factor on the bid of each campaign with a budget that could take part, from its pacing; null where no lease let
    the campaign spend. Left out without any."""
    click_factors: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    """Factor on the click probability of each campaign that took part with a bid for clicks, as learned from outcomes;
    left out before there are enough."""
    excluded: dict[ExclusionCause, int] | msgspec.UnsetType = msgspec.UNSET
    """Number of matching campaigns that took no part in the auctions, by cause; left out without any."""


AnyDecision = Recommendation | Ad

decode_decision = bounded_depth(msgspec.json.Decoder(AnyDecision).decode)
encode_decision = msgspec.json.Encoder().encode


PLAIN_LIST = "list"
"""Name of the list of a page without shelves, where the lists of pages are counted."""


class ShownShelf(msgspec.Struct, frozen=True, gc=False):
    """A list of a page."""

    name: str
    """Name of the shelf; `PLAIN_LIST` for a page without shelves."""
    items: tuple[Choice, ...]


def page_items(decision: Recommendation) -> tuple[Choice, ...]:
    """Return the items of all shelves of a page, the main shelf first; of a plain list its items."""
    shelves = decision.shelves or ()
    return decision.items if not shelves else sum((shelf.items for shelf in shelves), decision.items)


def count_model_items(decision: Recommendation) -> int:
    """Return the number of items of the page that the model chose; the others have another origin."""
    return sum([choice.reason == "model" for choice in page_items(decision)])


def compared_variant(decision: Recommendation) -> str:
    """Return the variant for which a decision counts where variants are compared.

    A decision of the variant `model` or `challenger` without one item of the model counts as `fallback`: its reactions
    say nothing of the model. A decision for a bot or an agent counts as `machine`. `variant` itself stays the user's
    bucket of the A/B test.
    """
    return comparison_variant(
        decision.variant,
        has_model_items=count_model_items(decision) > 0,
        is_machine=decision.client in ("bot", "agent"),
    )


COMPARED_VARIANTS = frozenset(("model", "popular", "challenger", "fallback", "machine"))
"""All that `comparison_variant` returns: a hand-over with another variant is refused."""


def comparison_variant(variant: str, *, has_model_items: bool, is_machine: bool) -> str:
    """Return the variant for which a decision counts, as `compared_variant` says.

    Args:
        variant: Variant of the A/B test.
        has_model_items: Whether the model chose any item.
        is_machine: Whether the decision is for a bot or an agent.
    """
    if is_machine:
        return "machine"
    return "fallback" if variant in ("model", "challenger") and not has_model_items else variant


SCORE_DECIMALS = 6
"""Decimals of scores, probabilities and contributions in decisions."""


def round_score(score: float) -> float:
    """Return a score rounded to `SCORE_DECIMALS` decimals, for decisions."""
    return round(score, SCORE_DECIMALS)
