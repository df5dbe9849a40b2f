"""Pipeline: records of one partition in, decisions and changes of state out. The same live and in replay.

Pure: no clock, no Kafka, no dependence on where batches begin and end. Decoding, sessions and the policy run event by
event in offset order; scoring runs once over all of a batch, since no answer depends on its neighbours.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec
import xxhash

from schemas.decisions import encode_decision
from schemas.events import ACTION_OF, AnyEvent, Impression, ItemEvent, Tick, decode_record
from schemas.sessions import encode_session
from schemas.snapshots import UserState
from stream import sessions
from stream.ads import choose_ad
from stream.catalogue import Catalogue
from stream.policy import CONTROL, Policy, variant_of
from stream.request import Request, Scores
from stream.scoring import Scorer
from stream.settings import Settings
from stream.state import Change, PartitionState


class Record(Protocol):
    """What the pipeline reads of a Kafka record."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """When it was appended, ms; negative where nobody knows."""
        ...

    @property
    def key(self) -> bytes | None:
        """The user's id, as a rule."""
        ...

    @property
    def value(self) -> bytes | None:
        """The event's JSON, as a rule."""
        ...


class Message(NamedTuple):
    """A record to publish."""

    key: bytes | None
    value: bytes | None


class DeadLetter(NamedTuple):
    """A record that could not be used, with the reason in words."""

    record: Record
    error: str


class Output(NamedTuple):
    """What a batch of records comes to."""

    recommendations: list[Message]
    ads: list[Message]
    closed_sessions: list[Message]
    dead_letters: list[DeadLetter]
    changes: list[Change]
    outcomes: Counter[str]
    """Events by what became of them: decided, late, repeated, dead, tick, skipped."""


_EMPTY: frozenset[str] = frozenset()


class Pipeline:
    """The steps from records to decisions, over the state of each partition."""

    def __init__(self, settings: Settings, topic: str, catalogue: Catalogue, scorer: Scorer | None = None) -> None:
        """Begin with no partition; `topic` is the name that decision ids carry."""
        self.partitions: dict[int, PartitionState] = {}
        self.catalogue = catalogue
        self._settings = settings
        self._topic = topic
        self._scorer = scorer
        self._bundle = scorer.version if scorer else None
        self._policy = Policy(settings, catalogue, self._bundle, scorer.popular if scorer else ())

    def source(self, partition: int) -> str:
        """Return the name of a partition that decisions of its events begin with."""
        return f"{self._topic}-{partition}"

    def state(self, partition: int) -> PartitionState:
        """Return a partition's state, an empty one where it is new."""
        state = self.partitions.get(partition)
        if state is None:
            state = self.partitions[partition] = PartitionState(self.source(partition), self._settings)
        return state

    def process(self, partition: int, records: Sequence[Record]) -> Output:
        """Take the next records of a partition, in offset order. One decision for each event that is due one."""
        state = self.state(partition)
        output = Output([], [], [], [], [], Counter())
        requests: list[Request] = []
        for record in records:
            if record.offset <= state.offset:
                output.outcomes["skipped"] += 1  # finished before a restart or a rebalance
                continue
            decoded = self._decode(record)
            if isinstance(decoded, DeadLetter):
                output.dead_letters.append(decoded)
                output.outcomes["dead"] += 1
                continue
            for closed in state.advance(decoded.ts, record.offset):
                output.closed_sessions.append(Message(closed.user_id.encode(), encode_session(closed)))
            if isinstance(decoded, Tick):
                output.outcomes["tick"] += 1
                continue
            request = self._step(state, partition, decoded, record, output)
            if request is not None:
                requests.append(request)
        self._decide(requests, output)
        if records and records[-1].offset > state.offset:
            output.changes.extend(state.flush(records[-1].offset))
        return output

    def _decode(self, record: Record) -> AnyEvent | Tick | DeadLetter:
        value = record.value
        if value is None:
            return DeadLetter(record, "the value is null, where an event is expected")
        if len(value) > self._settings.max_event_bytes:
            return DeadLetter(
                record, f"{len(value)} bytes, more than max_event_bytes ({self._settings.max_event_bytes})"
            )
        try:
            event = decode_record(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            return DeadLetter(record, str(exc) or type(exc).__name__)
        if 0 <= record.timestamp < event.ts - self._settings.future_ms:
            ahead = event.ts - record.timestamp
            return DeadLetter(record, f"ts is {ahead} ms after the append time, more than future_ms")
        return event

    def _step(
        self, state: PartitionState, partition: int, event: AnyEvent, record: Record, output: Output
    ) -> Request | None:
        """Move the user's session on; return what is to be decided, none where nothing is."""
        user = state.user(event.user_id)
        if isinstance(event, Impression):
            # Shown is not done: it enters no session, but its page asks for the next decision.
            return self._request(state, user, event, record.offset, late=event.ts < state.watermark, output=output)
        fingerprint = xxhash.xxh3_64_digest(event.event_id.encode())
        if sessions.is_repeat(user, fingerprint):
            output.outcomes["repeated"] += 1
            return None
        gap_ms = self._settings.gap_ms
        if event.ts < state.watermark or sessions.is_of_ended_session(user, event, gap_ms):
            if self._settings.late_events == "dead-letter":
                behind = state.max_ts - event.ts
                output.dead_letters.append(DeadLetter(record, f"late: {behind} ms behind the newest event"))
                output.outcomes["dead"] += 1
                return None
            return self._request(state, user, event, record.offset, late=True, output=output)
        state.touch(event.user_id, user, record.offset)
        if sessions.starts_session(user, event, gap_ms):
            was_open = user.length > 0
            if was_open:
                closed = state.close(event.user_id, user)
                output.closed_sessions.append(Message(closed.user_id.encode(), encode_session(closed)))
            sessions.open_session(user, event, record.offset, partition)
            state.opened(event.user_id, user)
        item_id = event.item_id if isinstance(event, ItemEvent) else ""
        sessions.add(user, event, ACTION_OF[type(event)], item_id, fingerprint)
        state.count(item_id, sessions.forget_oldest(user, self._settings.max_events))
        if ACTION_OF[type(event)] == sessions.PURCHASE:
            state.bought(event.user_id, user, item_id)
        return self._request(state, user, event, record.offset, late=False, output=output)

    def _request(
        self, state: PartitionState, user: UserState, event: AnyEvent, offset: int, *, late: bool, output: Output
    ) -> Request:
        output.outcomes["late" if late else "decided"] += 1
        return Request(
            name=f"{state.source}-{offset}",
            event=event,
            session_id=user.session_id,
            session_length=user.length,
            items=user.items[:],
            actions=user.actions,
            bought=frozenset(user.bought) if user.bought else _EMPTY,
            variant=variant_of(event.user_id, self._settings.experiment, self._settings.control_share),
            late=late,
            popular=state.popular,
        )

    def _decide(self, requests: list[Request], output: Output) -> None:
        answers: Sequence[Scores | None] = self._scorer.score(requests) if self._scorer else [None] * len(requests)
        for request, answer in zip(requests, answers, strict=True):
            scores = answer if request.variant != CONTROL else None
            key = request.event.user_id.encode()
            output.recommendations.append(Message(key, encode_decision(self._policy.recommend(request, scores))))
            if self.catalogue.campaigns:
                ad = choose_ad(request, answer, self.catalogue, self._settings.reserve, self._bundle)
                output.ads.append(Message(key, encode_decision(ad)))
