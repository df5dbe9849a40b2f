"""A plain event log for tests of the gateway: events in a list, and a worker that is a function."""

from collections.abc import Callable, Sequence

import msgspec

from clickscore.schemas.decisions import Ad, Choice, Recommendation, SoldSlot, encode_decision
from clickscore.schemas.events import AnyEvent
from clickscore.schemas.explanations import Explanation
from clickscore.stream.errors import RequestError
from clickscore.stream.gateway.event_bodies import IncomingEvent
from clickscore.stream.gateway.event_log import LogHealth
from clickscore.stream.trace_headers import Headers

SOURCE = "clickstream-events-0"


def decision(offset: int, user_id: str, event_id: str) -> bytes:
    """Return a decision as a worker publishes it."""
    return encode_decision(
        Recommendation(
            decision_id=f"{SOURCE}-{offset}",
            user_id=user_id,
            event_id=event_id,
            ts=1_767_605_400_000,
            bundle=None,
            policy="p",
            variant="popular",
            session_id="s",
            session_length=1,
            late=False,
            actions=None,
            purchase=None,
            items=(Choice(item_id="birch-kettle", score=0.0, propensity=1.0, reason="popular"),),
            filtered={},
        )
    )


def ad(offset: int, user_id: str, event_id: str, placements: Sequence[str], ts: int = 1_767_605_400_000) -> bytes:
    """Return a decision on an ad as a worker publishes it, with a sold slot in each placement."""
    slots = tuple(
        SoldSlot(
            placement=placement,
            slot=0,
            position=None,
            campaign_id="tea-week",
            item_id="oak-mug",
            bid=0.4,
            bid_per="click",
            probability=0.01,
            quality=1.0,
            exposure=1.0,
            price=0.3,
            runner_up=None,
        )
        for placement in placements
    )
    return encode_decision(
        Ad(
            decision_id=f"{SOURCE}-{offset}-ad",
            user_id=user_id,
            event_id=event_id,
            ts=ts,
            bundle=None,
            policy="p",
            variant="popular",
            session_id="s",
            campaign_id=None,
            item_id=None,
            bid=None,
            purchase=None,
            propensity=1.0,
            reason="",
            slots=slots,
        )
    )


class ListLog:
    """An event log of one partition in memory. While `is_deciding`, each stored event is decided on at once."""

    def __init__(self, publish: Callable[[bytes], None]) -> None:
        self.events: list[IncomingEvent] = []
        self.headers: list[Headers] = []
        self.decisions: dict[str, bytes] = {}
        self.is_deciding = True
        self.is_storing = True
        self.is_ready = True
        self._publish = publish

    async def store(self, events: Sequence[IncomingEvent], headers: Headers) -> list[str]:
        if not self.is_storing:
            raise RequestError(503, "the log is away", headers={"Retry-After": "1"})
        offsets = []
        for event in events:
            offsets.append(len(self.events))
            self.events.append(event)
            self.headers.append(tuple(headers))
            if self.is_deciding:
                self.decide(offsets[-1])
        return [f"{SOURCE}-{offset}" for offset in offsets]

    def decide(self, offset: int) -> None:
        event = self.events[offset].event
        value = self.decisions[f"{SOURCE}-{offset}"] = decision(offset, event.user_id, event.event_id)
        self._publish(value)

    async def find_decision(self, decision_id: str) -> bytes | None:
        return self.decisions.get(decision_id)

    async def explain(self, decision_id: str) -> bytes:
        value = self.decisions.get(decision_id)
        if value is None:
            raise RequestError(404, "the decision cannot be explained: it does not exist")
        event = self.events[int(decision_id.rpartition("-")[2])].event
        assert isinstance(event, AnyEvent)
        published = msgspec.Raw(value)
        return msgspec.json.encode(
            Explanation(
                decision_id=decision_id, verdict="equal", event=event, published=published, recomputed=published
            )
        )

    def health(self) -> LogHealth:
        return LogHealth(self.is_ready, 3, 20)
