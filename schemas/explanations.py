"""Explanation: a past decision made again, compared with the published record, and taken apart into its parts."""

from typing import Literal

import msgspec

from clickscore.schemas.decisions import Ad, Because, Choice, Shelf
from clickscore.schemas.events import AnyEvent, Epoch

Verdict = Literal["equal", "different", "not published", "not recomputed", "no decision"]
"""Comparison of the decision that was made again with the published record."""


class FieldDifference(msgspec.Struct, frozen=True):
    """A field with other values in two decisions, each as JSON; `(none)` where a decision lacks the field."""

    field: str
    published: str
    recomputed: str


class RememberedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the session as the decision knew it."""

    action: str
    item_id: str
    """Item of the event; empty for a search."""
    before_ms: int | None
    """Time from this event to the newest event of the session, ms; None where it is unknown."""


class SessionPart(msgspec.Struct, frozen=True, kw_only=True):
    """What the decision knew about the user."""

    session_id: str
    length: int
    """Number of events of the session; older events than the remembered ones count, too."""
    events: tuple[RememberedEvent, ...]
    bought: tuple[str, ...]
    late: bool
    variant: str
    client: str
    client_reason: str
    withheld: tuple[str, ...]


class CandidatePart(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate of the model."""

    item_id: str
    score: float
    because: tuple[Because, ...]
    """Events of the session that raised the score most; empty for a bundle without reasons."""


class ModelPart(msgspec.Struct, frozen=True, kw_only=True):
    """Output of the model."""

    bundle: str
    purchase: float | None
    actions: dict[str, float] | None
    candidates: tuple[CandidatePart, ...]
    """Best candidates before any rule."""


class RulePart(msgspec.Struct, frozen=True, kw_only=True):
    """Effect of a rule on an item."""

    item_id: str
    rule: str
    sentence: str
    """Reason, to follow "because" for a removal."""
    rank_before: int | None
    rank_after: int | None
    shelf: str = ""
    """Shelf of the page where the rule ran; empty for a plain list."""


class CampaignPart(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign that matched the session."""

    campaign_id: str
    item_id: str
    bid: float
    expected_value: float | None
    """Worth of an impression; null for a campaign that took no part in the auction."""
    outcome: str
    """Why the campaign was shown or not, in words."""


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """What another policy or bundle would have decided."""

    bundle: str | None
    policy: str
    items: tuple[str, ...]
    campaign_id: str | None
    changes: tuple[str, ...]
    """What differs from the decision, and why, in sentences; empty where nothing differs."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A decision and everything on which it depended."""

    decision_id: str
    verdict: Verdict
    problem: str = ""
    """Why the decision could not be made again, or why there is none, in words."""
    approximate: tuple[str, ...] = ()
    """What is missing in the topics, in words: where anything is, the decision may come out otherwise."""
    repeats: int = 0
    """Number of further records with the same bytes."""
    event: AnyEvent | None = None
    session: SessionPart | None = None
    model: ModelPart | None = None
    """Output of the model; absent where no model scored the event."""
    rules: tuple[RulePart, ...] = ()
    campaigns: tuple[CampaignPart, ...] = ()
    """Matching campaigns: bidders of the auction by value, then excluded campaigns."""
    items: tuple[Choice, ...] = ()
    shelf: str = ""
    """Name of the main shelf, which has these items; empty for a plain list."""
    shelves: tuple[Shelf, ...] = ()
    """The other shelves of the page."""
    ad: Ad | None = None
    epoch: Epoch | None = None
    policy: str = ""
    bundle: str | None = None
    published: msgspec.Raw | None = None
    recomputed: msgspec.Raw | None = None
    differences: tuple[FieldDifference, ...] = ()
    """Fields that differ between the published record and the decision made again."""
    contradiction: msgspec.Raw | None = None
    """Another record of the same id with other bytes, which must not be."""
    what_if: tuple[Alternative, ...] = ()
