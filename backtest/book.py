"""Book: what every arm showed in the sessions that are open, kept until the session's end tells what was right."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec
import xxhash

from clickscore.backtest.answers import Act, Answer, answers
from clickscore.backtest.groups import Decided
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


class Shown(NamedTuple):
    """What an arm said of an event."""

    items: tuple[str, ...]
    """Best first."""
    purchase: float | None
    """Probability of a purchase in what is left of the session; none where nothing was said of it."""
    actions: dict[str, float] | None
    """Probability of each next action, likewise."""


class Context(NamedTuple):
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


class Judged(NamedTuple):
    """An event whose answer is known."""

    context: Context
    shown: Sequence[Shown]
    """Of each arm."""
    answer: Answer
    relation: Relation


class _Entry(NamedTuple):
    act: Act
    context: Context | None
    """None where it is not to be judged."""
    shown: list[Shown]


class _Session(NamedTuple):
    """A session that has not ended."""

    owner: tuple[str, str]
    """Partition and user."""
    known_user: bool
    entries: list[_Entry]
    """In the order in which they arrived."""


class _Id(msgspec.Struct):
    """The name of a closed session."""

    id: str


_decode_id = msgspec.json.Decoder(_Id).decode


class Book:
    """Takes decisions as they are made, and gives each out with its answer once its session has ended."""

    def __init__(self, speaks: Sequence[bool], category_of: Callable[[str], str | None]) -> None:
        """Begin empty.

        Args:
            speaks: Whether each arm states probabilities.
            category_of: The catalogue's word on an item, where an event has none.
        """
        self.left_out: Counter[str] = Counter()
        """Events that are not judged, by the reason."""
        self.item_counts: Counter[str] = Counter()
        """Events on each item, those included that are not judged."""
        self._speaks = speaks
        self._category_of = category_of
        self._open: dict[str, _Session] = {}  # by the name of the session's first event
        self._newest_of: dict[tuple[str, str], _Session] = {}  # by owner
        self._users: set[int] = set()

    def take(self, outputs: Iterable[Output], decided: Iterable[Decided]) -> list[Judged]:
        """Note a batch's decisions; return what is known of those whose session it ended."""
        for one in decided:
            self._note(one)
        judged: list[Judged] = []
        for output in outputs:
            for message in output.closed_sessions:
                judged += self._settle(_decode_id(message.value or b"").id)
        return judged

    def finish(self) -> None:
        """Count what is still open where the log ends."""
        entries = (entry for session in self._open.values() for entry in session.entries)
        self.left_out[OPEN] += sum(entry.context is not None for entry in entries)
        self._open.clear()

    def _note(self, one: Decided) -> None:
        request, event = one.request, one.request.event
        if isinstance(event, Impression) or request.late:
            self.left_out[WARM_UP if not one.due else LATE if request.late else IMPRESSION] += 1
            return
        item = event.item_id if isinstance(event, ItemEvent) else ""
        if item:
            self.item_counts[item] += 1
        user = xxhash.xxh3_64_intdigest(event.user_id.encode())
        session = self._session(request, user)
        act = Act(event.ts, ACTION_OF[type(event)], item)
        if not one.due or not one.recommendations:
            self.left_out[UNDECIDED if one.due else WARM_UP] += 1
            session.entries.append(_Entry(act, None, []))
            return
        category = (event.category if isinstance(event, ItemEvent) else None) or self._category_of(item) or ""
        context = Context(user, request.session_length, item, category, event.ts, session.known_user, request.bought)
        shown = [_shown(said, speaks) for said, speaks in zip(one.recommendations, self._speaks, strict=True)]
        session.entries.append(_Entry(act, context, shown))

    def _session(self, request: Request, user: int) -> _Session:
        """Return the session that an event has entered; a first event begins one."""
        owner = (request.decision_id.rpartition("-")[0], request.event.user_id)
        if request.session_length == 1:
            session = _Session(owner, user in self._users, [])
            self._users.add(user)
            self._open[request.decision_id] = self._newest_of[owner] = session
        return self._newest_of[owner]

    def _settle(self, name: str) -> Iterator[Judged]:
        """Take a session that has ended out of the book."""
        session = self._open.pop(name)
        if self._newest_of[session.owner] is session:
            del self._newest_of[session.owner]
        seen: set[str] = set()
        found = answers([entry.act for entry in session.entries])
        for (act, context, shown), answer in zip(session.entries, found, strict=True):
            seen.add(act.item)
            if context:
                yield Judged(context, shown, answer, _relation(answer.item, act.item, seen))


def _shown(said: Recommendation, speaks: bool) -> Shown:
    items = tuple(choice.item_id for choice in said.items)
    return Shown(items, said.purchase, said.actions) if speaks else Shown(items, None, None)


def _relation(answer: str, now: str, seen: set[str]) -> Relation:
    if not answer:
        return "nothing follows"
    if answer == now:
        return "the same item"
    return "seen in the session" if answer in seen else "new to the session"
