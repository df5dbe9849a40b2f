"""Outcomes: join each event with the user's last decision, and count for each variant what its decisions led to.

The state is bounded: of each user the last decision and some sums, for a limited number of users.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from clickscore.schemas.decisions import Recommendation, count_model_items, page_items
from clickscore.schemas.durations import MINUTE_MS
from clickscore.schemas.events import AnyEvent, Impression, ItemEvent, Purchase
from clickscore.schemas.outcome_counts import VariantCounts
from clickscore.stream.policy.experiments import CHALLENGER, CONTROL, MODEL

WINDOW_MS = 30 * MINUTE_MS
"""Longest time from a decision to an event that counts as its outcome, ms: the usual gap of sessions."""
REMEMBERED_USERS = 50_000
"""Users whose last decision is remembered, at most: some 25 MB. The oldest decision goes first."""
LEAST_PROBABILITY = 0.001
"""Smallest probability of an action in its log score: a single impossible action must not outweigh all others."""


class _User(msgspec.Struct, gc=False):
    """Sums of a user, and the user's last decision."""

    variant: str
    ts: int = 0
    items: frozenset[str] = frozenset()
    actions: dict[str, float] | None = None
    decisions: int = 0
    clicks: int = 0
    purchases: int = 0
    scored_actions: int = 0
    action_score: float = 0.0
    predictions: int = 0
    prediction: float = 0.0


class OutcomeCounter:
    """Counts the outcomes of a partition."""

    def __init__(
        self,
        champion: VariantCounts | None = None,
        challenger: VariantCounts | None = None,
        users: int = REMEMBERED_USERS,
    ) -> None:
        """Start without users.

        Args:
            champion: Counts of the champion so far.
            challenger: Counts of the challenger so far.
            users: Number of users whose last decision is remembered, at most.
        """
        self.champion = champion or VariantCounts()
        self.challenger = challenger or VariantCounts()
        self._max_users = users
        self._users: OrderedDict[str, _User] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of remembered users."""
        return len(self._users)

    def forget(self, user_ids: Iterable[str]) -> None:
        """Forget users, such as erased ones; the sums keep no id."""
        for user_id in user_ids:
            self._users.pop(user_id, None)

    def add(self, event: AnyEvent, decision: Recommendation) -> None:
        """Count an event as the outcome of the user's last decision, and take its own decision as the last one.

        Bots and agents, late events, impressions, the control, and users without consent to personalisation do not
        count.

        Args:
            event: The event.
            decision: Decision on the event.
        """
        variant, withheld = decision.variant, decision.withheld
        if (
            variant not in (MODEL, CHALLENGER)
            or isinstance(event, Impression)
            or decision.late
            or decision.client in ("bot", "agent")
            or (withheld is not msgspec.UNSET and "personalisation" in withheld)
        ):
            return
        user = self._users.get(event.user_id)
        if user is None or user.variant != variant:
            user = self._users[event.user_id] = _User(variant)
        self._users.move_to_end(event.user_id)
        if len(self._users) > self._max_users:
            self._users.popitem(last=False)
        counts = self.challenger if variant == CHALLENGER else self.champion
        self._count_outcome(user, event, counts)
        self._count_decision(user, decision, counts)

    def _count_outcome(self, user: _User, event: AnyEvent, counts: VariantCounts) -> None:
        if not user.decisions or event.ts - user.ts > WINDOW_MS:
            return
        if isinstance(event, ItemEvent) and event.item_id in user.items:
            counts.clicks.move_user((user.decisions, user.clicks), (user.decisions, user.clicks + 1))
            user.clicks += 1
        if isinstance(event, Purchase):
            counts.purchases.move_user((user.decisions, user.purchases), (user.decisions, user.purchases + 1))
            user.purchases += 1
        probability = _probability(user.actions, event)
        if probability is not None:
            previous = user.scored_actions, user.action_score
            user.scored_actions += 1
            user.action_score += math.log(max(probability, LEAST_PROBABILITY))
            counts.action_scores.move_user(previous, (user.scored_actions, user.action_score))

    def _count_decision(self, user: _User, decision: Recommendation, counts: VariantCounts) -> None:
        from_model = count_model_items(decision)
        counts.decisions += 1
        counts.model_items += from_model
        counts.popular_items += sum(choice.reason == CONTROL for choice in page_items(decision))
        counts.clicks.move_user((user.decisions, user.clicks), (user.decisions + 1, user.clicks))
        counts.purchases.move_user((user.decisions, user.purchases), (user.decisions + 1, user.purchases))
        user.decisions += 1
        if decision.purchase is not None:
            previous = user.predictions, user.prediction
            user.predictions += 1
            user.prediction += decision.purchase
            counts.purchase_predictions.move_user(previous, (user.predictions, user.prediction))
        user.ts = decision.ts
        user.items = frozenset(choice.item_id for choice in page_items(decision))
        user.actions = decision.actions


def _probability(actions: dict[str, float] | None, event: AnyEvent) -> float | None:
    """Return the predicted probability of an event's action, given that the user does not leave.

    Args:
        actions: Predicted probability of each next action; None without a prediction.
        event: The next event of the user.
    """
    name = event.__struct_config__.tag
    if actions is None or not isinstance(name, str) or name not in actions:
        return None
    return actions[name] / max(1.0 - actions.get("leave", 0.0), LEAST_PROBABILITY)
