"""Label join: keep each arm's predictions of open sessions, and join labels when a session has ended."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec
import xxhash

from clickscore.backtest.labels import Label, SessionAction, label_session
from clickscore.backtest.shared_pipelines import ArmDecisions
from clickscore.schemas.clients import FIRST_MACHINE
from clickscore.schemas.decisions import Recommendation, count_model_items
from clickscore.schemas.events import ACTION_OF, Impression, ItemEvent
from clickscore.schemas.purposes import PERSONALISATION, TRAINING
from clickscore.stream.pipeline_records import Output, SessionMerge
from clickscore.stream.request import Request

# Reasons why a record is not judged. The report and its JSON show them.
UNREADABLE = "no event: a line that cannot be read, or a dead letter"
TICK = "a tick, which is no event"
PRIVACY = "consent, erasure or identity: a record about a user, which is no action"
REPEATED = "repeated: an event that was there before"
WARM_UP = "warm-up: before the time from which on is judged"
LATE = "late: it enters no session, so nothing follows it"
IMPRESSION = "an impression: shown by the shop, not done by the user"
NO_CONSENT = "no consent to training, or to personalisation"
MACHINE = "a bot or an agent, which is no shopper"
UNDECIDED = "a repeat in the sessions of some arm, which decided nothing"
OPEN = "its session is still open where the log ends"


class Prediction(NamedTuple):
    """Predictions of an arm after an event."""

    items: tuple[str, ...]
    """Recommended items, best first; items of the session may be repeated."""
    discoveries: tuple[str, ...]
    """Items recommended where no item of the session may be repeated, best first."""
    model_items: int
    """Number of these items that the arm's model, or its baseline, ranked; the rest are the fallback: popular items."""
    variant: str
    """Variant of the user in the arm's A/B test."""
    purchase: float | None
    """Probability of a purchase in the rest of the session; None where the arm stated no probability."""
    actions: dict[str, float] | None
    """Probability of each next action; None where the arm stated no probability."""


class EventContext(NamedTuple):
    """Facts about an event, known at the arrival of the event."""

    user: int
    """Hash of the user's id."""
    length: int
    """Number of events of the session, this event included."""
    item: str
    category: str
    ts: int
    """Event time, ms."""
    known_user: bool
    """Whether the user had an earlier session."""
    bought: frozenset[str]
    """Items bought earlier by the user."""


Relation = Literal["nothing follows", "the same item", "seen in the session", "new to the session"]
"""Relation of the next item to the session so far."""


class LabelledEvent(NamedTuple):
    """An event with its label and the predictions of all arms."""

    context: EventContext
    predictions: Sequence[Prediction]
    """Prediction of each arm, in the arms' order."""
    label: Label
    relation: Relation


class PendingEvent(NamedTuple):
    """An event of an open session, waiting for a label."""

    action: SessionAction
    context: EventContext | None
    """None where the event is not judged; the event still counts for the labels of other events."""
    predictions: list[Prediction]
    """Prediction of each arm, in the arms' order."""


class _OpenSession(NamedTuple):
    """An open session."""

    owner: tuple[str, str]
    """Partition and user id."""
    known_user: bool
    """Whether the user had an earlier session."""
    events: list[PendingEvent]
    """Events in order of arrival."""


class _SessionId(msgspec.Struct):
    """The id of a closed session, which is the decision id of its first event."""

    id: str


_decode_session_id = msgspec.json.Decoder(_SessionId).decode


class LabelJoin:
    """Takes decisions in the order of the log, and returns labelled events when their session has ended."""

    def __init__(self, states_probabilities: Sequence[bool], find_category: Callable[[str], str | None]) -> None:
        """Start without sessions.

        Args:
            states_probabilities: Whether each arm states probabilities.
            find_category: Returns an item's category in the catalogue, for events that state no category.
        """
        self.left_out: Counter[str] = Counter()
        """Number of records left unjudged, by reason."""
        self.item_counts: Counter[str] = Counter()
        """Number of events on each item, including unjudged events."""
        self._states_probabilities = states_probabilities
        self._find_category = find_category
        self._open: dict[str, _OpenSession] = {}  # by session id
        self._newest: dict[tuple[str, str], _OpenSession] = {}  # by owner
        self._users: set[int] = set()

    def add(self, outputs: Iterable[Output], decisions: Iterable[ArmDecisions]) -> list[LabelledEvent]:
        """Add the decisions of a batch, and return the labelled events of sessions ended by the batch.

        Args:
            outputs: Outputs of the pipeline for the batch, with the closed sessions.
            decisions: Decisions of the batch, in the order of the log.
        """
        for decision in decisions:
            self._add_decision(decision)
        labelled: list[LabelledEvent] = []
        for output in outputs:
            for message in output.closed_sessions:
                labelled += self._resolve(_decode_session_id(message.value or b"").id)
            for merge in output.merges:
                self._merge(merge)
        return labelled

    def finish(self) -> None:
        """Count the events of sessions still open at the end of the log."""
        pending = (event for session in self._open.values() for event in session.events)
        self.left_out[OPEN] += sum(event.context is not None for event in pending)
        self._open.clear()

    def _add_decision(self, decision: ArmDecisions) -> None:
        request, event = decision.request, decision.request.event
        if isinstance(event, Impression) or request.late:
            self.left_out[WARM_UP if not decision.is_judged else LATE if request.late else IMPRESSION] += 1
            return
        item = event.item_id if isinstance(event, ItemEvent) else ""
        if item and request.client < FIRST_MACHINE and not request.withheld & TRAINING:
            self.item_counts[item] += 1
        if request.withheld & PERSONALISATION:  # no session is kept
            self.left_out[NO_CONSENT if decision.is_judged else WARM_UP] += 1
            return
        user = xxhash.xxh3_64_intdigest(event.user_id.encode())
        session = self._enter_session(request, user)
        action = SessionAction(event.ts, ACTION_OF[type(event)], item)
        if request.client >= FIRST_MACHINE:
            self.left_out[MACHINE if decision.is_judged else WARM_UP] += 1
            session.events.append(PendingEvent(action, None, []))
            return
        if request.withheld & TRAINING:
            self.left_out[NO_CONSENT if decision.is_judged else WARM_UP] += 1
            session.events.append(PendingEvent(action, None, []))
            return
        if not decision.is_judged or not decision.recommendations:
            self.left_out[UNDECIDED if decision.is_judged else WARM_UP] += 1
            session.events.append(PendingEvent(action, None, []))
            return
        category = (event.category if isinstance(event, ItemEvent) else None) or self._find_category(item) or ""
        context = EventContext(
            user, request.session_length, item, category, event.ts, session.known_user, request.bought
        )
        predictions = [
            _read_prediction(repeating, discovering, with_probabilities)
            for repeating, discovering, with_probabilities in zip(
                decision.recommendations, decision.discoveries, self._states_probabilities, strict=True
            )
        ]
        session.events.append(PendingEvent(action, context, predictions))

    def _enter_session(self, request: Request, user: int) -> _OpenSession:
        """Return the session of an event; a session's first event opens the session."""
        owner = (request.decision_id.rpartition("-")[0], request.event.user_id)
        if request.session_length == 1:
            session = _OpenSession(owner, user in self._users, [])
            self._users.add(user)
            self._open[request.decision_id] = self._newest[owner] = session
        return self._newest[owner]

    def _merge(self, merge: SessionMerge) -> None:
        """Move the events of an anonymous id into the session of the user.

        In the log of a topic, the events of the anonymous id may be read later, or lie before the log: then they stay
        without a label.
        """
        source = self._open.pop(merge.source_id, None)
        if source is not None and self._newest.get(source.owner) is source:
            del self._newest[source.owner]
        target = self._open.get(merge.session_id)
        if target is None:
            owner = (merge.session_id.rpartition("-")[0], merge.user_id)
            user = xxhash.xxh3_64_intdigest(merge.user_id.encode())
            target = self._open[merge.session_id] = self._newest[owner] = _OpenSession(owner, user in self._users, [])
            self._users.add(user)
        if source is not None:
            target.events.extend(source.events)
            target.events.sort(key=lambda event: event.action.ts)

    def _resolve(self, session_id: str) -> Iterator[LabelledEvent]:
        """Remove an ended session, and yield the judged events with labels."""
        session = self._open.pop(session_id, None)
        if session is None:
            return  # of an anonymous id whose events lie before the log
        if self._newest.get(session.owner) is session:  # a later session of the id may have ended already
            del self._newest[session.owner]
        seen: set[str] = set()
        labels = label_session([event.action for event in session.events])
        for (action, context, predictions), label in zip(session.events, labels, strict=True):
            seen.add(action.item)
            if context:
                yield LabelledEvent(context, predictions, label, _relate(label.item, action.item, seen))


def _read_prediction(
    recommendation: Recommendation, discovering: Recommendation, with_probabilities: bool
) -> Prediction:
    """Return an arm's prediction.

    Args:
        recommendation: Recommendation with repeats of the session.
        discovering: Recommendation without repeats.
        with_probabilities: Whether the arm states probabilities.
    """
    items, discoveries = (
        tuple(choice.item_id for choice in decision.items) for decision in (recommendation, discovering)
    )
    model_items, variant = count_model_items(recommendation), recommendation.variant
    if not with_probabilities:
        return Prediction(items, discoveries, model_items, variant, None, None)
    return Prediction(items, discoveries, model_items, variant, recommendation.purchase, recommendation.actions)


def _relate(next_item: str, item: str, seen: set[str]) -> Relation:
    """Return the relation of the next item to the session.

    Args:
        next_item: The label's item, empty for none.
        item: Item of the event.
        seen: Items of the session so far.
    """
    if not next_item:
        return "nothing follows"
    if next_item == item:
        return "the same item"
    return "seen in the session" if next_item in seen else "new to the session"
