"""Console state: the facts of the pages, from the records of the topics. All parts are bounded."""

import secrets
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from clickscore.schemas.catalogue import Campaign, Item, decode_campaign, decode_item
from clickscore.schemas.decisions import Ad, Recommendation, decode_decision, page_items
from clickscore.schemas.erasure import Erased, decode_receipt
from clickscore.schemas.events import Event, ItemEvent, UserRecord, decode_record
from clickscore.schemas.leases import BudgetLease, SpendReport, time_fault
from clickscore.schemas.outcomes import decode_charge, decode_outcome
from clickscore.schemas.topics import (
    AD_CHARGES,
    ADS,
    CAMPAIGNS,
    CATALOGUE,
    DEAD_LETTERS,
    DECISION_OUTCOMES,
    ERASURE_RECEIPTS,
    EVENTS,
    RECOMMENDATIONS,
    ROLLOUTS,
)
from clickscore.stream.console.budget_tally import BudgetTally
from clickscore.stream.console.dead_letter_tally import DeadLetterTally
from clickscore.stream.console.decision_traces import DecisionTraces
from clickscore.stream.console.item_tally import ItemTally
from clickscore.stream.console.moments import Moment, Moments
from clickscore.stream.console.outcome_tally import MAX_CAMPAIGNS, OutcomeTally
from clickscore.stream.console.rates import Rates
from clickscore.stream.console.settled_outcomes import SettledOutcomes
from clickscore.stream.console.worker_tally import WorkerTally
from clickscore.stream.decision_ids import AD_SUFFIX
from clickscore.stream.kafka.rollout_log import RolloutTable
from clickscore.stream.settings import SessionSettings

MOMENT_BYTES = 48 * 1024 * 1024
"""Most bytes of remembered events and decisions: some 15,000 moments, which is a minute at 250 events/s."""
MAX_VALUE_BYTES = 256 * 1024
"""Largest decoded record, bytes. Larger records are counted alone."""
MAX_TITLES = 100_000
"""Items of the catalogue whose title is known: some 40 MB. Later items keep their id as title."""
FEED_MOMENTS = 200
"""Completed moments that wait for the next frame; older moments are not shown."""
FRAME_MOMENTS = 2
"""Moments of a frame. With two frames a second, a person cannot read more."""
USER_MOMENTS = 60
"""Newest moments of a user that an answer has."""


class LogRecord(NamedTuple):
    """A record of a topic."""

    topic: str
    """Name of the topic without the prefix."""
    log_id: str
    """`TOPIC-PARTITION-OFFSET`, with the full name of the topic."""
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]
    appended_at: int
    """Append time, ms."""


class LogStatus(msgspec.Struct):
    """State of the reading."""

    is_reading: bool = False
    problem: str = ""
    """Why topics cannot be read, in words."""
    absent_topics: list[str] = []
    skipped: int = 0
    """Number of records that were passed over because the console was too far behind."""
    behind: int = 0
    """Number of records that the console has not read yet."""
    lag: dict[int, int] = {}
    """Number of events of each partition that no worker has decided on."""
    members: list[int] | None = None
    """Partitions with a worker of the group; absent while the group changes."""
    since_ms: int = 0
    """Append time of the oldest record that was counted, ms; 0 before the first."""


class ConsoleState:
    """The state of a console. `receive` takes records; the other methods answer pages."""

    def __init__(self) -> None:
        self.future_ms = SessionSettings().future_ms
        """How far an event time of a report may lie after its append time, ms, as for the workers."""
        self.generation = secrets.token_hex(4)
        """Name of this state: the cursors of another state mean other moments."""
        self.status = LogStatus()
        self.moments = Moments(MOMENT_BYTES)
        self.rates = Rates()
        self.outcomes = OutcomeTally()
        self.settled = SettledOutcomes()
        self.budgets = BudgetTally()
        self.items = ItemTally()
        self.dead_letters = DeadLetterTally()
        self.workers = WorkerTally()
        self.rollouts = RolloutTable()
        self.decided: dict[int, int] = {}
        """Offset of the newest decided event, by partition."""
        self._traces = DecisionTraces()
        self.campaigns: dict[str, Campaign] = {}
        """Campaigns by id, at most `MAX_CAMPAIGNS`."""
        self._catalogue: dict[str, Item] = {}
        self._feed: deque[Moment] = deque(maxlen=FEED_MOMENTS)
        self._receivers = {
            EVENTS.name: self._receive_event,
            RECOMMENDATIONS.name: self._receive_decision,
            ADS.name: self._receive_ad,
            DEAD_LETTERS.name: self._receive_dead_letter,
            ERASURE_RECEIPTS.name: self._receive_receipt,
            DECISION_OUTCOMES.name: self._receive_outcome,
            AD_CHARGES.name: self._receive_charge,
            CATALOGUE.name: self._receive_item,
            CAMPAIGNS.name: self._receive_campaign,
            ROLLOUTS.name: self._receive_rollout,
        }

    @property
    def topics(self) -> tuple[str, ...]:
        """Names of the topics to read, without the prefix."""
        return tuple(self._receivers)

    @property
    def catalogue(self) -> Mapping[str, Item]:
        """Items by id, at most `MAX_TITLES`."""
        return self._catalogue

    def receive(self, record: LogRecord) -> None:
        """Take a record. An unreadable record is counted, and changes nothing else."""
        if len(record.value or b"") > MAX_VALUE_BYTES:
            self.rates.count("large records", record.appended_at / 1000)
            return
        try:
            self._receivers[record.topic](record)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.rates.count("unreadable records", record.appended_at / 1000)

    def frame(self, cursor: int, now_s: float) -> dict[str, Any]:
        """Return what changed since a frame: the newest completed moments, and the rates.

        Args:
            cursor: Cursor of the former frame of this state; 0 for the first.
            now_s: Wall-clock time, s.
        """
        newest = [moment for moment in self._feed if moment.number > cursor and moment.decision and moment.event]
        shown = newest[-FRAME_MOMENTS:]
        p50, p99 = self.rates.percentiles(0.5, 0.99)
        end = newest[-1].number if newest else cursor
        return {
            "cursor": end,
            "passed_over": max(0, end - cursor - len(shown)) if cursor else 0,
            "moments": [moment.encode() for moment in shown],
            "items": self.describe(shown),
            "rates": {
                name: round(self.rates.per_second(name, now_s), 1) for name in ("events", "decisions", "dead letters")
            },
            "totals": dict(self.rates.totals),
            "latency_ms": {"p50": p50, "p99": p99},
            "lag": sum(self.status.lag.values()),
            "status": self.status,
        }

    def story(self, user_id: str) -> dict[str, Any]:
        """Return the newest moments of a user, the newest first."""
        moments = [moment for moment, _ in zip(self.moments.newest(user_id), range(USER_MOMENTS), strict=False)]
        return {
            "user_id": user_id,
            "moments": [moment.encode() for moment in moments],
            "items": self.describe(moments),
        }

    def describe(self, moments: Iterable[Moment]) -> dict[str, dict[str, Any]]:
        """Return title, price and category of the items of moments, by id. Unknown items are left out."""
        item_ids: set[str] = set()
        for moment in moments:
            if moment.event is not None:
                event = decode_record(moment.event)
                if isinstance(event, ItemEvent):
                    item_ids.add(event.item_id)
            if moment.decision is not None:
                decision = decode_decision(moment.decision)
                assert isinstance(decision, Recommendation)
                for choice in page_items(decision):
                    item_ids.add(choice.item_id)
                    item_ids.update(because.item_id for because in choice.because)
            if moment.ad is not None:
                ad = decode_decision(moment.ad)
                assert isinstance(ad, Ad)
                item_ids.update(slot.item_id for slot in ad.slots)
        return self.describe_items(item_ids)

    def describe_items(self, item_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return title, price and category of items by id. Unknown items are left out."""
        return {
            item_id: {"title": item.title, "price": item.price, "category": item.category}
            for item_id in item_ids
            if (item := self._catalogue.get(item_id))
        }

    def _receive_event(self, record: LogRecord) -> None:
        event = decode_record(record.value or b"")
        if isinstance(event, (SpendReport, BudgetLease)) and time_fault(event, record.appended_at, self.future_ms):
            return  # a dead letter of the workers
        if isinstance(event, SpendReport):
            self.budgets.add_report(event)
        elif isinstance(event, BudgetLease):
            self.budgets.add_lease(record.partition, event)
        if not isinstance(event, UserRecord):
            return  # ticks and epochs are records of the workers
        now_s = record.appended_at / 1000
        self.rates.count("events", now_s)
        self.status.since_ms = self.status.since_ms or record.appended_at
        if not isinstance(event, Event):
            return
        trace = self._traces.find(event.decision_id) if event.decision_id else None
        self._traces.add_event(record.log_id, event)
        self.items.add_event(event, trace)
        if trace:
            self.outcomes.add_event(event, trace)
        moment = self.moments.add_event(record.log_id, event.user_id, record.value or b"", record.appended_at)
        self._complete(moment)

    def _receive_decision(self, record: LogRecord) -> None:
        decision = decode_decision(record.value or b"")
        if not isinstance(decision, Recommendation):
            return
        self.rates.count("decisions", record.appended_at / 1000)
        offset = decision.decision_id.rpartition("-")[2]
        if offset.isdecimal():
            self.decided[record.partition] = max(self.decided.get(record.partition, -1), int(offset))
        self.workers.add(record.headers.get("scored", b""), record.partition, record.appended_at)
        self.workers.add_version(decision.bundle, decision.policy, decision.variant)
        trace = self._traces.add_decision(decision)
        if trace.is_impression:  # the shop shows nothing for an event that says that something was shown
            return
        self.outcomes.add_decision(decision, trace.variant)
        self.items.add_decision(decision)
        moment = self.moments.add_decision(
            decision.decision_id, decision.user_id, record.value or b"", record.appended_at
        )
        self._complete(moment)

    def _receive_ad(self, record: LogRecord) -> None:
        ad = decode_decision(record.value or b"")
        if not isinstance(ad, Ad):
            return
        if self._traces.add_ad(ad).is_impression:
            return
        self.outcomes.add_ad(ad)
        self.moments.add_ad(ad.decision_id.removesuffix(AD_SUFFIX), ad.user_id, record.value or b"")

    def _receive_dead_letter(self, record: LogRecord) -> None:
        self.rates.count("dead letters", record.appended_at / 1000)
        self.dead_letters.add(record.headers, record.value, record.appended_at)

    def _receive_receipt(self, record: LogRecord) -> None:
        receipt = decode_receipt(record.value or b"")
        if isinstance(receipt, Erased):
            self.moments.forget(receipt.user_id)
            self.outcomes.forget(receipt.user_id)
            self.settled.forget(receipt.user_id)
            self._feed = deque((moment for moment in self._feed if moment.user_id != receipt.user_id), FEED_MOMENTS)

    def _receive_outcome(self, record: LogRecord) -> None:
        self.settled.add(decode_outcome(record.value or b""))

    def _receive_charge(self, record: LogRecord) -> None:
        self.outcomes.add_charge(decode_charge(record.value or b""), record.appended_at / 1000)

    def _receive_campaign(self, record: LogRecord) -> None:
        campaign_id = (record.key or b"").decode()
        if not record.value:
            self.campaigns.pop(campaign_id, None)
        elif campaign_id in self.campaigns or len(self.campaigns) < MAX_CAMPAIGNS:
            self.campaigns[campaign_id] = decode_campaign(record.value)

    def _receive_item(self, record: LogRecord) -> None:
        item_id = (record.key or b"").decode()
        if not record.value:
            self._catalogue.pop(item_id, None)
            return
        item = decode_item(record.value)
        if item.item_id in self._catalogue or len(self._catalogue) < MAX_TITLES:
            self._catalogue[item.item_id] = item

    def _receive_rollout(self, record: LogRecord) -> None:
        self.rollouts.add(record.key, record.value)

    def _complete(self, moment: Moment) -> None:
        """Show a moment once event and decision are read."""
        if moment.number and (not self._feed or moment.number > self._feed[-1].number):
            self._feed.append(moment)
            self.rates.measure(moment.decided_at - moment.stored_at, moment.decided_at / 1000)
