"""Gateway service: the requests of clients, without HTTP."""

import asyncio
import logging
from collections.abc import Sequence
from typing import get_args

import msgspec

from clickscore.schemas.erasure import Erased, decode_receipt
from clickscore.stream.decision_ids import AD_SUFFIX
from clickscore.stream.errors import RequestError
from clickscore.stream.gateway.answers import HealthAnswer, StoredEvent
from clickscore.stream.gateway.decision_memory import (
    DecisionKind,
    DecisionMemory,
    PublishedDecision,
    SharedMemory,
    decode_published_decision,
)
from clickscore.stream.gateway.event_bodies import IncomingEvent
from clickscore.stream.gateway.event_log import EventLog, Explain
from clickscore.stream.gateway.gateway_metrics import GatewayMetrics
from clickscore.stream.gateway.pending_decisions import PendingDecisions
from clickscore.stream.gateway.placements import select_placement
from clickscore.stream.settings import GatewaySettings
from clickscore.stream.trace_headers import Headers

_log = logging.getLogger(__name__)


class PublishedDecisions:
    """The published decisions: the memory, the memory that gateways share, and the waiting requests."""

    def __init__(self, settings: GatewaySettings, metrics: GatewayMetrics, shared: SharedMemory | None = None) -> None:
        """Start empty.

        Args:
            settings: Limits of the memory.
            metrics: Metrics to fill.
            shared: Memory that several gateways share, if any.
        """
        self._shared = shared
        self.memory = DecisionMemory(settings.gateway_users)
        self.ads = DecisionMemory(settings.gateway_users)
        self.pending = PendingDecisions()
        metrics.users.set_function(lambda: len(self.memory))
        metrics.pending.set_function(lambda: len(self.pending))

    def receive(self, value: bytes) -> None:
        """Take a published decision. An unreadable value is passed over: it answers nobody."""
        decision = self._remember("recommendation", value)
        if decision:
            self.pending.resolve(decision, value)

    def receive_ad(self, value: bytes) -> None:
        """Take a published decision on an ad. An unreadable value is passed over."""
        self._remember("ad", value)

    def receive_receipt(self, value: bytes) -> None:
        """Take an erasure receipt: the decision of the user is forgotten."""
        try:
            receipt = decode_receipt(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            _log.warning("An erasure receipt cannot be read: %s", exc)
            return
        if isinstance(receipt, Erased):
            for kind in get_args(DecisionKind):
                self._memory(kind).forget(receipt.user_id, receipt.record_id)
                if self._shared:
                    self._shared.put(kind, receipt.user_id, receipt.record_id, None)

    async def newest(self, kind: DecisionKind, user_id: str) -> bytes | None:
        """Return the newest decision of a user as published, from memory or else from the shared memory.

        Args:
            kind: Kind of the decision.
            user_id: The user.

        Raises:
            RequestError: The shared memory does not answer.
        """
        memory = self._memory(kind)
        if self._shared is None or user_id in memory:
            return memory.newest(user_id)
        return await self._shared.newest(kind, user_id)

    def by_id(self, decision_id: str) -> bytes | None:
        """Return a decision by id; None unless the decision is the newest of the user and in memory."""
        kind: DecisionKind = "ad" if decision_id.endswith(AD_SUFFIX) else "recommendation"
        return self._memory(kind).by_log_id(decision_id.removesuffix(AD_SUFFIX))

    def _memory(self, kind: DecisionKind) -> DecisionMemory:
        return self.ads if kind == "ad" else self.memory

    def _remember(self, kind: DecisionKind, value: bytes) -> PublishedDecision | None:
        """Remember a published decision, and return the ids; None for an unreadable decision.

        Args:
            kind: Kind of the decision.
            value: The decision as published.
        """
        try:
            decision = decode_published_decision(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            _log.warning("A published decision cannot be read: %s", exc)
            return None
        self._memory(kind).remember(decision, value)
        if self._shared:
            self._shared.put(kind, decision.user_id, decision.log_id, value)
        return decision


class GatewayService:
    """Stores events, and answers with published decisions of workers."""

    def __init__(
        self,
        event_log: EventLog,
        decisions: PublishedDecisions,
        explain: Explain,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
    ) -> None:
        """Connect the parts.

        Args:
            event_log: The log of events and decisions.
            decisions: The published decisions, which another task fills.
            explain: Explains a decision.
            settings: Limits of waits.
            metrics: Counts to fill.
        """
        self._event_log = event_log
        self._decisions = decisions
        self.explain = explain
        """Returns the explanation of a decision by its id, as JSON."""
        self._settings = settings
        self._metrics = metrics

    async def store(self, events: Sequence[IncomingEvent], headers: Headers = ()) -> list[StoredEvent]:
        """Store events, and return the stored events in order.

        Args:
            events: The events.
            headers: Headers of the records.

        Raises:
            RequestError: The log did not store the events in time.
        """
        log_ids = await self._event_log.store(events, headers)
        self._metrics.events.inc(len(events))
        return [
            StoredEvent(event_id=event.event.event_id, decision_id=log_id if event.gets_decision else None)
            for event, log_id in zip(events, log_ids, strict=True)
        ]

    async def store_and_decide(
        self, events: Sequence[IncomingEvent], headers: Headers = ()
    ) -> tuple[list[StoredEvent], bytes]:
        """Store events, and return them with the decision of a worker on the last event.

        Args:
            events: The events.
            headers: Headers of the records.

        Raises:
            RequestError: The last event gets no decision, the log did not store the events in time, or no worker has
                decided in time.
        """
        last = events[-1].event
        if not events[-1].gets_decision:
            raise RequestError(
                400, "decide=true needs a decision on the last event: `consent`, `identify` and `erase` get none"
            )
        with self._decisions.pending.expect(last.user_id, last.event_id) as decision:
            stored = await self.store(events, headers)
            # A worker drops an event that repeats an earlier event id, such as a client's second attempt.
            remembered = self._decisions.memory.by_event(last.user_id, last.event_id)
            if remembered is not None:
                self._metrics.decisions.labels("answered").inc()
                return stored, remembered
            try:
                async with asyncio.timeout(self._settings.gateway_decide_ms / 1000):
                    value = await decision
            except TimeoutError as exc:
                self._metrics.decisions.labels("timeout").inc()
                message = (
                    f"the events are stored, but no worker has published the decision {stored[-1].decision_id} within "
                    f"{self._settings.gateway_decide_ms} ms (gateway_decide_ms): ask for /v1/decisions/ID later"
                )
                raise RequestError(504, message) from exc
        self._metrics.decisions.labels("answered").inc()
        return stored, value

    async def newest(self, user_id: str) -> bytes:
        """Return the newest decision of a user, as published.

        Raises:
            RequestError: No decision of the user is remembered, or the shared memory does not answer.
        """
        value = await self._decisions.newest("recommendation", user_id)
        if value is None:
            message = "no recent decision of this user is known: send an event with decide=true to get a decision"
            raise RequestError(404, message)
        return value

    async def placement(self, user_id: str, name: str) -> bytes:
        """Return what a placement shows to a user: a shelf of the newest recommendation, or the newest ads.

        Args:
            user_id: The user.
            name: Name of a shelf or of an ad placement.

        Raises:
            RequestError: The newest decisions of the user have no such placement, or the shared memory does not answer.
        """
        recommendation = await self.newest(user_id)
        return select_placement(name, recommendation, await self._decisions.newest("ad", user_id))

    def health(self) -> HealthAnswer:
        """Return the state of the gateway, and set the gauges of the metrics to the same values."""
        log = self._event_log.health()
        self._metrics.lag.set(log.lag)
        return HealthAnswer(
            ready=log.is_ready,
            lag=log.lag,
            kafka_answered_ms=log.answered_ms,
            users=len(self._decisions.memory),
            pending=len(self._decisions.pending),
        )

    async def decision(self, decision_id: str) -> bytes:
        """Return a decision by its id, as published: from memory, or else from the log.

        Raises:
            RequestError: The decision is not known.
        """
        value = self._decisions.by_id(decision_id) or await self._event_log.find_decision(decision_id)
        if value is None:
            message = "no such decision: it is not published yet, or the log keeps it no more"
            raise RequestError(404, message)
        return value
