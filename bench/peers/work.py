"""Work: process an event, the same code for every peer, as plain and as fast as a few lines of Python allow.

A session is a dict of JSON values, because a peer's state store may write the session.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from bench.logs import START_MS, WARM, WARM_SESSION, warm_sessions
from clickscore.schemas.decisions import Choice, Recommendation, encode_decision, round_score
from clickscore.schemas.events import ACTION_OF, Cart, View, decode_record
from clickscore.schemas.manifest import NEXT_ACTIONS
from clickscore.stream.policy.policy_file import DEFAULT_POLICY
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.settings import Settings

OUTPUTS = ["rows", "scores", "action_probabilities", "purchase"]
EXPERIMENT_ARM = "model"

Session = dict[str, Any]


class DecisionRequest(NamedTuple):
    """An event to decide on, with its user's session."""

    name: str
    event: Any
    session: Session


class Work:
    """The bundle, and the initial sessions of users."""

    def __init__(self, settings: Settings) -> None:
        bundle = load_bundle(
            Path(settings.scoring.bundle), settings.scoring.score_threads, settings.scoring.min_overlap
        )
        self.sessions: dict[str, Session] = {}
        self._settings = settings
        self._version = bundle.manifest.version
        self._graph = bundle.session
        self._items = ["", *bundle.items]
        self._row_of = {item: row for row, item in enumerate(bundle.items, start=1)}
        self._warm = warm_sessions()

    def decide(self, partition: int, offset: int, value: bytes) -> tuple[bytes, bytes]:
        """Return key and body of the decision on one event.

        Args:
            partition: Partition of the event.
            offset: Offset of the event.
            value: The event as JSON.
        """
        return self.decide_all([(partition, offset, value)])[0]

    def decide_all(self, records: Sequence[tuple[int, int, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return keys and bodies of the decisions on some events, with one call of the graph."""
        requests: list[DecisionRequest] = []
        for partition, offset, value in records:
            event = decode_record(value)
            session = self.enter(event, self.sessions.get(event.user_id), f"{partition}-{offset}")
            self.sessions[event.user_id] = session
            requests.append(self.ask(partition, offset, event, session))
        return self.answer(requests)

    def enter(self, event: Any, session: Session | None, name: str) -> Session:
        """Return the session with the event: the newest 20 events, or a new session after a gap.

        Args:
            event: The event.
            session: Session before the event, if any.
            name: Id for a new session.
        """
        if session is None:
            session = self._first(event.user_id)
        if session is None or event.ts - session["last_ts"] > self._settings.sessions.gap_ms:
            session = {"id": name, "last_ts": 0, "length": 0, "rows": [], "actions": []}
        return {
            "id": session["id"],
            "last_ts": event.ts,
            "length": session["length"] + 1,
            "rows": [*session["rows"], self._row_of[event.item_id]][-WARM:],
            "actions": [*session["actions"], ACTION_OF[type(event)]][-WARM:],
        }

    def ask(self, partition: int, offset: int, event: Any, session: Session) -> DecisionRequest:
        """Return the request of an event.

        Args:
            partition: Partition of the event.
            offset: Offset of the event.
            event: The event.
            session: Session with the event.
        """
        return DecisionRequest(
            f"{self._settings.kafka.topic_prefix}clickstream-events-{partition}-{offset}", event, session
        )

    def answer(self, requests: Sequence[DecisionRequest]) -> list[tuple[bytes, bytes]]:
        """Return keys and bodies of the decisions."""
        lengths = [len(question.session["rows"]) for question in requests]
        feed = {
            "items": _padded([question.session["rows"] for question in requests]),
            "actions": _padded([question.session["actions"] for question in requests]),
            "lengths": np.array(lengths, dtype=np.int64),
        }
        rows, scores, actions, purchase = cast("list[np.ndarray]", self._graph.run(OUTPUTS, feed))
        return [
            (question.event.user_id.encode(), self._body(question, *answer))
            for question, answer in zip(
                requests,
                zip(
                    rows.tolist(),
                    scores.astype(np.float64).tolist(),
                    actions.astype(np.float64).tolist(),
                    purchase.astype(np.float64).tolist(),
                    strict=True,
                ),
                strict=True,
            )
        ]

    def _body(
        self, request: DecisionRequest, rows: list[int], scores: list[float], actions: list[float], purchase: float
    ) -> bytes:
        event, session, items = request.event, request.session, self._items
        return encode_decision(
            Recommendation(
                decision_id=request.name,
                user_id=event.user_id,
                event_id=event.event_id,
                ts=event.ts,
                bundle=self._version,
                policy=DEFAULT_POLICY.label,
                variant=EXPERIMENT_ARM,
                session_id=session["id"],
                session_length=session["length"],
                late=False,
                actions=dict(zip(NEXT_ACTIONS, map(round_score, actions), strict=True)),
                purchase=round_score(purchase),
                items=tuple(
                    Choice(item_id=items[row], score=round_score(score), propensity=1.0, reason="model")
                    for row, score in self._shown(session, rows, scores)
                ),
                filtered={},
            )
        )

    def _shown(self, session: Session, rows: list[int], scores: list[float]) -> list[tuple[int, float]]:
        """Return the items to show by the policy `default`: not on screen, not in the cart, and few of the session."""
        reminders = DEFAULT_POLICY.limit.reminders
        events = zip(session["rows"], session["actions"], strict=True)
        hidden = {session["rows"][-1], *(row for row, action in events if action == ACTION_OF[Cart])}
        shown: list[tuple[int, float]] = []
        for row, score in zip(rows, scores, strict=True):
            if row in hidden:
                continue
            if row in session["rows"]:
                if not reminders:
                    continue
                reminders -= 1
            shown.append((row, score))
            if len(shown) == self._settings.policy.k:
                break
        return shown

    def _first(self, user_id: str) -> Session | None:
        items = self._warm.get(user_id)
        if items is None:
            return None
        return {
            "id": WARM_SESSION,
            "last_ts": START_MS - 1000,
            "length": WARM,
            "rows": [self._row_of[item] for item in items],
            "actions": [ACTION_OF[View]] * WARM,
        }


def _padded(sessions: list[list[int]]) -> np.ndarray:
    """Return sessions left-aligned and padded with 0: int64 (len(sessions), 20)."""
    return np.array([[*session, *[0] * (WARM - len(session))] for session in sessions], dtype=np.int64)
