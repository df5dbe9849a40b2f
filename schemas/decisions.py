"""Decisions: what was chosen for a user in answer to one event. No wall-clock time: that goes into Kafka headers.

Encoders write scores rounded to 6 decimals (see `rounded`), so that a repeated decision is byte-equal to the first.
"""

import msgspec


class Because(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event of the session that spoke for an item."""

    item_id: str
    """What the event was about."""
    action: str
    """What was done: the type of the event."""
    contribution: float
    """By how much the item's score would be lower without it, above 0."""


class Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One item of a recommendation."""

    item_id: str
    score: float
    """The model's score; 0 where `reason` is `popular`."""
    propensity: float
    """Probability with which the policy showed this item at this position."""
    reason: str
    """Where the item came from: `model` or `popular`."""
    because: tuple[Because, ...] = ()
    """The events that spoke most for it, the most first; left out where there are none, or `reasons` is 0."""


class RecommendationContext(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="recommendation", gc=False
):
    """All fields of a recommendation except its items: the event, the session and the model's probabilities."""

    decision_id: str
    """`TOPIC-PARTITION-OFFSET` of the event that it answers: the same after any crash."""
    user_id: str
    event_id: str
    ts: int
    """Event time of the event that it answers, ms."""
    bundle: str | None
    """Version of the bundle that scored, none where none did."""
    policy: str
    variant: str
    session_id: str
    session_length: int
    """Events of the session so far, this one included."""
    late: bool
    """The event was later than allowed: decided from the session as it stands, state untouched."""
    actions: dict[str, float] | None
    """Probability of each next action (view, cart, favourite, purchase, leave)."""
    purchase: float | None
    """Probability of a purchase in what is left of this session."""


class Recommendation(
    RecommendationContext, frozen=True, kw_only=True, tag_field="type", tag="recommendation", gc=False
):
    """The items to show, best first."""

    items: tuple[Choice, ...]
    filtered: dict[str, int]
    """How many candidates each rule removed."""


class Ad(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ad", gc=False):
    """The campaign to show, or none."""

    decision_id: str
    """`TOPIC-PARTITION-OFFSET-ad` of the event that it answers."""
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
    """Why this campaign, or why none, in words."""


AnyDecision = Recommendation | Ad

decode_decision = msgspec.json.Decoder(AnyDecision).decode
encode_decision = msgspec.json.Encoder().encode


def rounded(score: float) -> float:
    """Return a score as decisions state it: 6 decimals."""
    return round(score, 6)
