"""Pipeline: records of one partition in, decisions and changes of state out. The same live and in replay.

Pure: no clock, no Kafka, no dependence on where batches begin and end. Decoding, sessions and the policy run event by
event in offset order; scoring runs once over all of a batch, since no answer depends on its neighbours.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from types import MappingProxyType
from typing import NamedTuple, Protocol

import msgspec
import xxhash

from clickscore.schemas.decisions import encode_decision
from clickscore.schemas.events import AnyEvent, Impression, Tick, decode_record
from clickscore.schemas.sessions import ClosedSession, encode_session
from clickscore.stream.policy.ads import choose_ad
from clickscore.stream.policy.experiments import CONTROL, assign_variant
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Request, Scores
from clickscore.stream.scoring.scorer import PendingScores, Scorer
from clickscore.stream.settings import PolicySettings, SessionSettings
from clickscore.stream.state import sessions
from clickscore.stream.state.partition import (
    MAX_CLOSURES_PER_EVENT,
    MAX_CLOSURES_PER_TICK,
    ChangelogRecord,
    PartitionState,
)


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


class Message(msgspec.Struct, frozen=True, gc=False):
    """A record to publish."""

    key: bytes | None
    value: bytes | None


class DeadLetter(NamedTuple):
    """A record that could not be used, with the reason in words."""

    record: Record
    error: str


@dataclass(slots=True)
class Output:
    """What a batch of records comes to."""

    recommendations: list[Message] = field(default_factory=list[Message])
    ads: list[Message] = field(default_factory=list[Message])
    closed_sessions: list[Message] = field(default_factory=list[Message])
    dead_letters: list[DeadLetter] = field(default_factory=list[DeadLetter])
    changes: list[ChangelogRecord] = field(default_factory=list[ChangelogRecord])
    outcomes: Counter[str] = field(default_factory=Counter[str])
    """Events by what became of them: decided, late, repeated, dead, tick, skipped."""
    unscored: int = 0
    """Decisions in which the model had nothing to say."""


class PendingBatch(NamedTuple):
    """Batches whose events have moved the states on, and whose decisions wait for the model."""

    outputs: list[Output]
    requests: list[tuple[Request, Output]]
    """In order, each with the output that its decisions belong to."""
    asked: PendingScores | None
    """None where there is no model."""


_EMPTY: frozenset[str] = frozenset()


class Pipeline:
    """The steps from records to decisions, over the state of each partition."""

    def __init__(
        self,
        sessions: SessionSettings,
        policy: PolicySettings,
        topic: str,
        catalogue: Catalogue,
        scorer: Scorer | None = None,
    ) -> None:
        """Begin with no partition.

        Args:
            sessions: Gap, lateness and bounds of the sessions.
            policy: Size of a recommendation, the A/B test and the ads' reserve.
            topic: Topic of the events; every decision id begins with its name.
            catalogue: Items and campaigns.
            scorer: The model; by default items are recommended by popularity.
        """
        self._partitions: dict[int, PartitionState] = {}
        self.partitions: Mapping[int, PartitionState] = MappingProxyType(self._partitions)
        """State of each partition, to read; `load` and `drop` change which partitions there are."""
        self.catalogue = catalogue
        self._session_settings = sessions
        self._policy_settings = policy
        self._topic = topic
        self._scorer = scorer
        self._bundle = scorer.version if scorer else None
        self._policy = Policy(policy, catalogue, self._bundle, scorer.popular if scorer else ())

    @property
    def has_model(self) -> bool:
        """Whether a model is asked, and so whether there is anything to wait for between `begin` and `finish`."""
        return self._scorer is not None

    def source(self, partition: int) -> str:
        """Return the name of a partition that decisions of its events begin with."""
        return f"{self._topic}-{partition}"

    def state(self, partition: int) -> PartitionState:
        """Return a partition's state, an empty one where it is new."""
        state = self._partitions.get(partition)
        if state is None:
            state = self._partitions[partition] = PartitionState(self.source(partition), self._session_settings)
        return state

    def load(self, states: Mapping[int, PartitionState]) -> None:
        """Take over the state of partitions, such as restored ones, in place of what is known of them."""
        self._partitions.update(states)

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget the state of partitions."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    def process(self, partition: int, records: Sequence[Record]) -> Output:
        """Take the next records of a partition, in offset order. One decision for each event that is due one."""
        return self.process_all([(partition, records)])[0]

    def process_all(self, batches: Sequence[tuple[int, Sequence[Record]]]) -> list[Output]:
        """Take batches of several partitions, scored together; return what each comes to, as `process` would."""
        return self.finish(self.begin(batches))

    def begin(self, batches: Sequence[tuple[int, Sequence[Record]]]) -> PendingBatch:
        """Move the states on and have the model asked; the next batches may begin before these are finished."""
        outputs, requests = self._advance(batches)
        asked = self._scorer.submit([request for request, _ in requests]) if self._scorer else None
        return PendingBatch(outputs, requests, asked)

    def finish(self, begun: PendingBatch) -> list[Output]:
        """Wait for the model's answers, decide, and return what each batch comes to."""
        outputs, requests, asked = begun
        decided: list[tuple[Message, Message | None] | None] = [None] * len(requests)
        for at, answer in asked.results() if asked else enumerate([None] * len(requests)):
            request, output = requests[at]
            output.unscored += answer is None
            decided[at] = self._decide(request, answer)
        for (_, output), messages in zip(requests, decided, strict=True):
            if messages:
                recommendation, ad = messages
                output.recommendations.append(recommendation)
                if ad:
                    output.ads.append(ad)
        return outputs

    def advance_all(self, batches: Sequence[tuple[int, Sequence[Record]]]) -> list[Output]:
        """Move sessions on as `process_all` does and decide nothing: for those who want only sessions, or the state."""
        return self._advance(batches)[0]

    def collect_requests(self, batches: Sequence[tuple[int, Sequence[Record]]]) -> tuple[list[Output], list[Request]]:
        """Move sessions on likewise; return also what is to be decided, in order, for those who decide themselves."""
        outputs, asked = self._advance(batches)
        return outputs, [request for request, _ in asked]

    def _advance(
        self, batches: Sequence[tuple[int, Sequence[Record]]]
    ) -> tuple[list[Output], list[tuple[Request, Output]]]:
        """Move the states on; return what each batch comes to so far, and what is to be decided for it."""
        outputs = [Output() for _ in batches]
        asked: list[tuple[Request, Output]] = []
        for (partition, records), output in zip(batches, outputs, strict=True):
            state = self.state(partition)
            requests = self._read(state, records, output)
            asked.extend(zip(requests, repeat(output)))
            if records and records[-1].offset > state.offset:
                output.changes.extend(state.flush(records[-1].offset))
        return outputs, asked

    def _read(self, state: PartitionState, records: Sequence[Record], output: Output) -> list[Request]:
        """Move a partition's state on; return what is to be decided."""
        requests: list[Request] = []
        for record in records:
            if record.offset <= state.offset:
                output.outcomes["skipped"] += 1  # finished before a restart or a rebalance
                continue
            event = self._decode(record)
            if isinstance(event, DeadLetter):
                output.dead_letters.append(event)
                output.outcomes["dead"] += 1
                continue
            is_tick = isinstance(event, Tick)
            closed = state.advance(
                event.ts, record.offset, MAX_CLOSURES_PER_TICK if is_tick else MAX_CLOSURES_PER_EVENT
            )
            if closed:
                output.closed_sessions.extend(map(closed_message, closed))
            if is_tick:
                output.outcomes["tick"] += 1
                continue
            request = self._step(state, event, record, output)
            if request is not None:
                requests.append(request)
        return requests

    def _decode(self, record: Record) -> AnyEvent | Tick | DeadLetter:
        value = record.value
        if value is None:
            return DeadLetter(record, "the value is null, where an event is expected")
        if len(value) > self._session_settings.max_event_bytes:
            return DeadLetter(
                record, f"{len(value)} bytes, more than max_event_bytes ({self._session_settings.max_event_bytes})"
            )
        try:
            event = decode_record(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            return DeadLetter(record, str(exc) or type(exc).__name__)
        if 0 <= record.timestamp < event.ts - self._session_settings.future_ms:
            ahead = event.ts - record.timestamp
            return DeadLetter(record, f"ts is {ahead} ms after the append time, more than future_ms")
        return event

    def _step(self, state: PartitionState, event: AnyEvent, record: Record, output: Output) -> Request | None:
        """Move the user's session on; return what is to be decided, none where nothing is."""
        user, late = state.user(event.user_id), event.ts < state.watermark
        # Shown is not done: an impression enters no session, but its page asks for the next decision.
        if not isinstance(event, Impression):
            fingerprint = xxhash.xxh3_64_digest(event.event_id.encode())
            if sessions.is_duplicate(user, fingerprint):
                output.outcomes["repeated"] += 1
                return None
            late = late or sessions.belongs_to_closed_session(user, event, self._session_settings.gap_ms)
            if not late:
                closed = state.add_event(user, event, fingerprint, record.offset)
                if closed:
                    output.closed_sessions.append(closed_message(closed))
        if late and self._session_settings.late_events == "dead-letter":
            output.dead_letters.append(
                DeadLetter(record, f"late: {state.max_ts - event.ts} ms behind the newest event")
            )
            output.outcomes["dead"] += 1
            return None
        output.outcomes["late" if late else "decided"] += 1
        return Request(
            decision_id=f"{state.source}-{record.offset}",
            event=event,
            session_id=user.session_id,
            session_length=user.length,
            items=user.items[:],
            actions=user.actions,
            bought=frozenset(user.bought) if user.bought else _EMPTY,
            variant=assign_variant(
                event.user_id, self._policy_settings.experiment, self._policy_settings.control_share
            ),
            late=late,
            popular=state.popular,
            ages=user.ages[:],
        )

    def _decide(self, request: Request, answer: Scores | None) -> tuple[Message, Message | None]:
        """Return a request's decisions: what to recommend, and the ad where there are campaigns."""
        scores = answer if request.variant != CONTROL else None
        key = request.event.user_id.encode()
        recommendation = Message(key, self._policy.encoded(request, scores))
        if not self.catalogue.campaigns:
            return recommendation, None
        ad = choose_ad(request, answer, self.catalogue, self._policy_settings.reserve, self._bundle)
        return recommendation, Message(key, encode_decision(ad))


def closed_message(session: ClosedSession) -> Message:
    """Return a closed session as a record to publish."""
    return Message(session.user_id.encode(), encode_session(session))
