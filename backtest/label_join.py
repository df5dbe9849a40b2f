"""Book: what every arm showed in the sessions that are open, kept until the session's end tells what was right."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec
import xxhash

from clickscore.backtest.labels import Label, SessionAction, label_session
from clickscore.backtest.shared_pipelines import ArmDecisions
from clickscore.schemas.decisions import Recommendation
from clickscore.schemas.events import ACTION_OF, Impression, ItemEvent
from clickscore.stream.pipeline import Output
from clickscore.stream.request import Request

# Why a record is not judged.
UNREADABLE = "no event: a line that cannot be read, or a dead letter"
TICK = "a tick, which is no event"
REPEATED = "repeated: an event that was there before"
WARM_UP = "warm-up: before the time from which on is judged"
LATE = "late: it enters no session, so nothing follows it"
IMPRESSION = "an impression: shown by the shop, not done by the user"
UNDECIDED = "a repeat in the sessions of some arm, which decided nothing"
OPEN = "its session is still open where the log ends"


class Prediction(NamedTuple):
    """What an arm said of an event."""

    items: tuple[str, ...]
    """Best first."""
    purchase: float | None
    """Probability of a purchase in what is left of the session; none where nothing was said of it."""
    actions: dict[str, float] | None
    """Probability of each next action, likewise."""


class EventContext(NamedTuple):
    """What was known of an event when it arrived."""

    user: int
    """A hash of the user's id."""
    length: int
    """Events of the session, this one included."""
    item: str
    category: str
    ts: int
    known_user: bool
    """Whether the user had a session before this one."""
    bought: frozenset[str]


Relation = Literal["nothing follows", "the same item", "seen in the session", "new to the session"]
"""How the next item stands to the session."""


class LabelledEvent(NamedTuple):
    """An event whose answer is known."""

    context: EventContext
    shown: Sequence[Prediction]
    """Of each arm."""
    answer: Label
    relation: Relation


class PendingEvent(NamedTuple):
    """An event of an open session, with the predictions of each arm."""

    act: SessionAction
    context: EventContext | None
    """None where it is not to be judged."""
    shown: list[Prediction]


class _Session(NamedTuple):
    """A session that has not ended."""

    owner: tuple[str, str]
    """Partition and user."""
    known_user: bool
    entries: list[PendingEvent]
    """In the order in which they arrived."""


class _Id(msgspec.Struct):
    """The name of a closed session."""

    id: str


_decode_id = msgspec.json.Decoder(_Id).decode


class LabelJoin:
    """Takes decisions as they are made, and gives each out with its answer once its session has ended."""

    def __init__(self, states_probabilities: Sequence[bool], category_of: Callable[[str], str | None]) -> None:
        """Begin empty.

        Args:
            states_probabilities: Whether each arm states probabilities.
            category_of: The catalogue's word on an item, where an event has none.
        """
        self.left_out: Counter[str] = Counter()
        """Events that are not judged, by the reason."""
        self.item_counts: Counter[str] = Counter()
        """Events on each item, those included that are not judged."""
        self._states_probabilities = states_probabilities
        self._category_of = category_of
        self._open: dict[str, _Session] = {}  # by the name of the session's first event
        self._newest_of: dict[tuple[str, str], _Session] = {}  # by owner
        self._users: set[int] = set()

    def take(self, outputs: Iterable[Output], decided: Iterable[ArmDecisions]) -> list[LabelledEvent]:
        """Note a batch's decisions; return what is known of those whose session it ended."""
        for one in decided:
            self._note(one)
        judged: list[LabelledEvent] = []
        for output in outputs:
            for message in output.closed_sessions:
                judged += self._resolve(_decode_id(message.value or b"").id)
        return judged

    def finish(self) -> None:
        """Count what is still open where the log ends."""
        entries = (entry for session in self._open.values() for entry in session.entries)
        self.left_out[OPEN] += sum(entry.context is not None for entry in entries)
        self._open.clear()

    def _note(self, one: ArmDecisions) -> None:
        request, event = one.request, one.request.event
        if isinstance(event, Impression) or request.late:
            self.left_out[WARM_UP if not one.due else LATE if request.late else IMPRESSION] += 1
            return
        item = event.item_id if isinstance(event, ItemEvent) else ""
        if item:
            self.item_counts[item] += 1
        user = xxhash.xxh3_64_intdigest(event.user_id.encode())
        session = self._session(request, user)
        act = SessionAction(event.ts, ACTION_OF[type(event)], item)
        if not one.due or not one.recommendations:
            self.left_out[UNDECIDED if one.due else WARM_UP] += 1
            session.entries.append(PendingEvent(act, None, []))
            return
        category = (event.category if isinstance(event, ItemEvent) else None) or self._category_of(item) or ""
        context = EventContext(
            user, request.session_length, item, category, event.ts, session.known_user, request.bought
        )
        shown = [
            _shown(said, states_probabilities)
            for said, states_probabilities in zip(one.recommendations, self._states_probabilities, strict=True)
        ]
        session.entries.append(PendingEvent(act, context, shown))

    def _session(self, request: Request, user: int) -> _Session:
        """Return the session that an event has entered; a first event begins one."""
        owner = (request.decision_id.rpartition("-")[0], request.event.user_id)
        if request.session_length == 1:
            session = _Session(owner, user in self._users, [])
            self._users.add(user)
            self._open[request.decision_id] = self._newest_of[owner] = session
        return self._newest_of[owner]

    def _resolve(self, name: str) -> Iterator[LabelledEvent]:
        """Take a session that has ended out of the book."""
        session = self._open.pop(name)
        if self._newest_of[session.owner] is session:
            del self._newest_of[session.owner]
        seen: set[str] = set()
        found = label_session([entry.act for entry in session.entries])
        for (act, context, shown), answer in zip(session.entries, found, strict=True):
            seen.add(act.item)
            if context:
                yield LabelledEvent(context, shown, answer, _relation(answer.item, act.item, seen))


def _shown(said: Recommendation, states_probabilities: bool) -> Prediction:
    items = tuple(choice.item_id for choice in said.items)
    return Prediction(items, said.purchase, said.actions) if states_probabilities else Prediction(items, None, None)


def _relation(answer: str, now: str, seen: set[str]) -> Relation:
    if not answer:
        return "nothing follows"
    if answer == now:
        return "the same item"
    return "seen in the session" if answer in seen else "new to the session"
