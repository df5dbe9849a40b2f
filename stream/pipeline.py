"""Pipeline: turn the records of partitions into decisions and state changes, the same live and in a replay.

The pipeline is pure: no clock, no Kafka, and no effect of the limits of batches. Decoding, deduplication, sessions and
the policy work event by event in offset order. Scoring works in micro-batches over all events of a batch, because
scores are batch-invariant.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

import msgspec
import xxhash

from clickscore.schemas.clients import FIRST_MACHINE
from clickscore.schemas.decisions import Ad, ShownShelf, comparison_variant, encode_decision
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.erasure import Erased, encode_receipt
from clickscore.schemas.events import (
    AnyEvent,
    AnyRecord,
    BudgetRecord,
    Consent,
    Epoch,
    Erase,
    Identify,
    Impression,
    PrivacyRecord,
    Tick,
    decode_record,
)
from clickscore.schemas.handover import Handover
from clickscore.schemas.leases import BudgetLease, SpendReport
from clickscore.schemas.open_decisions import LEDGER_PREFIX, decode_ledger, encode_ledger
from clickscore.schemas.outcomes import encode_outcome
from clickscore.schemas.purposes import ADS, PERSONALISATION
from clickscore.schemas.sessions import ClosedSession, encode_session
from clickscore.stream.budgets.allocator import make_budget
from clickscore.stream.budgets.partition_budgets import PartitionBudgets
from clickscore.stream.cut_bytes import full_size
from clickscore.stream.deciders import Decider, DeciderTable, EpochDeciders
from clickscore.stream.policy.experiments import MODEL, forget_variants, unit_hash
from clickscore.stream.policy.policy_file import DEFAULT_POLICY, PolicyFile
from clickscore.stream.policy.shelf_sources import MAX_COMPANIONS, companion_anchors
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.catalogue_history import AnyCatalogue, CatalogueHistory, CatalogueView, offsets_of
from clickscore.stream.reference.epoch_schedule import EpochSchedule
from clickscore.stream.request import Request, Scores
from clickscore.stream.scoring.scorer import PendingScores, Scorer
from clickscore.stream.settings import PolicySettings, SessionSettings
from clickscore.stream.state import ad_counts, clients, consent, sessions
from clickscore.stream.state.identity import empty_handover, encode_bounded
from clickscore.stream.state.ledger import Ledger, LedgerResults, OpeningDecision, sum_amounts
from clickscore.stream.state.partition import (
    MAX_CLOSURES_PER_EVENT,
    MAX_CLOSURES_PER_TICK,
    ChangelogRecord,
    PartitionState,
)


class Record(Protocol):
    """The part of a Kafka record read by the pipeline."""

    @property
    def offset(self) -> int:
        """Offset in the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Append time, ms; negative where unknown."""
        ...

    @property
    def key(self) -> bytes | None:
        """Key of the record; the user id in well-formed records."""
        ...

    @property
    def value(self) -> bytes | None:
        """Value of the record; the event as JSON in well-formed records."""
        ...


MAX_KEY_BYTES = 1024
"""Largest key that is kept, bytes: a user id has at most 256 characters of at most 4 bytes."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """A record to publish."""

    key: bytes | None
    value: bytes | None
    event_offset: int | None = None
    """Offset of the event that a decision answers; None for other records."""


class DeadLetter(NamedTuple):
    """A rejected record, with the reason in words."""

    record: Record
    error: str


class WatermarkJump(NamedTuple):
    """An event that moved the newest event time of a partition by more than the gap of sessions."""

    offset: int
    event_id: str
    user_id: str
    moved_ms: int
    """Event time less the newest event time before, ms."""
    ahead_ms: int | None
    """Event time less append time, ms; None without an append time."""


class SessionMerge(NamedTuple):
    """A session of an anonymous id that became part of a user's open session."""

    source_id: str
    """Id under which the session would have been published, `TOPIC-PARTITION-OFFSET` of its first event."""
    session_id: str
    """Id of the user's session, in the same form."""
    user_id: str


class BudgetMessage(NamedTuple):
    """A report or a lease for a partition of `clickstream-events`."""

    partition: int
    message: Message


@dataclass(slots=True)
class Output:
    """All records to publish for a batch of a partition, and counts."""

    recommendations: list[Message] = field(default_factory=list[Message])
    ads: list[Message] = field(default_factory=list[Message])
    closed_sessions: list[Message] = field(default_factory=list[Message])
    receipts: list[Message] = field(default_factory=list[Message])
    handovers: list[Message] = field(default_factory=list[Message])
    """Records for `clickstream-events`, keyed by the identified user; a replay of the topic reads them from there."""
    dead_letters: list[DeadLetter] = field(default_factory=list[DeadLetter])
    changes: list[ChangelogRecord] = field(default_factory=list[ChangelogRecord])
    outcomes: Counter[str] = field(default_factory=Counter[str])
    """Number of records by outcome: decided, late, repeated, dead, tick, epoch, consent, erase, identify,
    handover, budget, skipped."""
    unscored: int = 0
    """Number of decisions on events that the model could not score: it knows no item of the session."""
    items: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """Number of recommended items by variant of the A/B test and by reason: `model`, or `popular` for the fallback."""
    removed: Counter[str] = field(default_factory=Counter[str])
    """Number of candidates removed by each rule of the policy."""
    moved: Counter[str] = field(default_factory=Counter[str])
    """Number of shown places to which each re-ranker of the policy brought another item."""
    merges: list[SessionMerge] = field(default_factory=list[SessionMerge])
    jumps: list[WatermarkJump] = field(default_factory=list[WatermarkJump])
    failed: int = 0
    """Number of decisions that fell back to popularity because the challenger's graph failed."""
    shadowed: list[tuple[Request, Scores]] = field(default_factory=list[tuple[Request, Scores]])
    """Requests that the challenger is to score without deciding, with the champion's scores."""
    feedback: Counter[str] = field(default_factory=Counter[str])
    """Number of events that name a decision, by what became of them; see `LedgerResults.feedback`."""
    reactions: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    """Number of joined events by kind, variant and placement."""
    revenue: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    """Revenue of attributed orders by variant and placement."""
    decision_outcomes: list[Message] = field(default_factory=list[Message])
    charges: list[Message] = field(default_factory=list[Message])
    """Charges and credits of ads, keyed by the campaign."""
    budget_records: list[BudgetMessage] = field(default_factory=list["BudgetMessage"])
    """Reports and leases for `clickstream-events`; a replay of the topic reads them from there."""
    charged: dict[str, float] = field(default_factory=dict[str, float])
    """Amounts of these charges: `gross`, `net`, and `credit` for what is given back."""


class DueDecision(NamedTuple):
    """A request that waits for its decision."""

    request: Request
    catalogue: AnyCatalogue
    """Catalogue in the epoch of the request."""
    output: Output
    """Output for the decisions on the request."""
    decider: Decider
    """Bundle and policy of the request's variant, in the epoch of the request."""
    offset: int
    """Offset of the event."""


class PendingGroup(NamedTuple):
    """Requests for one scorer."""

    indices: Sequence[int]
    """Index of each request among the due decisions."""
    scores: PendingScores | None
    """Scores of the requests; absent without a model."""

    def results(self) -> Iterator[tuple[int, Scores | None]]:
        """Yield (index, scores) of each request, in order of completion."""
        if self.scores is None:
            yield from ((index, None) for index in self.indices)
        else:
            yield from ((self.indices[position], scores) for position, scores in self.scores.results())


class Identity(NamedTuple):
    """An `identify` event, or a hand-over that has arrived."""

    record: Identify | Handover
    handover: Handover | None = None
    """What the state hands over at an `identify` event, without the open decisions; None where it has nothing."""
    withheld: int = 0
    """Bits of the purposes to which the user of a hand-over has not consented."""


class LedgerStep(NamedTuple):
    """A record on its way through the ledger."""

    offset: int
    max_ts: int
    """Largest event time of the partition after the record, ms."""
    decision: int | None = None
    """Index of the decision on the record among the due decisions, if any."""
    forgotten_user: str | None = None
    """User to be forgotten at the record, if any."""
    ads_alone: bool = False
    """Whether only the ads of this user are to be forgotten."""
    identity: "Identity | None" = None
    """What an `identify` event or a hand-over changes, if the record is one."""
    budget_record: BudgetRecord | None = None
    """The record, where it is a report or a lease."""
    catalogue: AnyCatalogue | None = None
    """Campaigns in the epoch of a report."""


class LedgerBatch(NamedTuple):
    """The records of a batch for the ledger of their partition, in offset order."""

    state: PartitionState
    """The state at the time of `begin`: the partition may be dropped or restored meanwhile."""
    steps: list[LedgerStep]
    output: Output
    end: int
    """Source offset of the last record."""


class DecidedPage(NamedTuple):
    """A decision with its records to publish."""

    recommendation: Message
    ad_message: Message | None
    shelves: Sequence[ShownShelf]
    ad: Ad | None
    origins: Mapping[str, int]
    """Number of items by reason."""


class PendingBatch(NamedTuple):
    """Batches between `begin` and `finish`: the states are updated, the decisions wait for scores."""

    outputs: list[Output]
    due: list[DueDecision]
    """Decisions in order."""
    groups: list[PendingGroup]
    """The same decisions by scorer."""
    ledgers: list[LedgerBatch]
    """The same records for the ledgers."""

    @property
    def hands_over(self) -> bool:
        """Whether `finish` may write hand-overs."""
        return any(step.identity is not None for batch in self.ledgers for step in batch.steps)


_EMPTY: frozenset[str] = frozenset()
_NO_PURCHASES: dict[str, int] = {}
_NO_BUNDLES: Mapping[str, Scorer] = MappingProxyType({})
_NO_POLICIES: Mapping[str, PolicyFile] = MappingProxyType({})


DecisionWatch = Callable[[DueDecision, Scores | None, DecidedPage], None]
"""Sees a request with catalogue and decider, the model's scores, and the decision."""


class Pipeline:
    """Processes batches of records, and owns the state of each partition."""

    def __init__(
        self,
        sessions: SessionSettings,
        policy: PolicySettings,
        topic: str,
        catalogue: Catalogue,
        scorer: Scorer | None = None,
        *,
        bundles: Mapping[str, Scorer] = _NO_BUNDLES,
        policies: Mapping[str, PolicyFile] = _NO_POLICIES,
        policy_file: PolicyFile = DEFAULT_POLICY,
    ) -> None:
        """Start without partitions.

        Args:
            sessions: Gap, lateness and bounds of the sessions.
            policy: The A/B test, and values for what the policy file leaves out.
            topic: Topic of the events; every decision id begins with the topic's name.
            catalogue: Items and campaigns; a partition without an epoch follows the newest.
            scorer: The model; without a scorer, decisions fall back to popularity.
            bundles: Loaded bundles by content hash, for epochs that name a rollout. The table may change at any time,
                but must have the bundles of the present epochs.
            policies: Loaded policies by label, in the same way.
            policy_file: Rules of what is shown.
        """
        self._partitions: dict[int, PartitionState] = {}
        self.partitions: Mapping[int, PartitionState] = MappingProxyType(self._partitions)
        """State of each partition, for reading; `load` and `drop` add and remove partitions."""
        self.history = CatalogueHistory(catalogue)
        """Catalogue and campaigns as of each partition's epoch."""
        self._views: dict[int, CatalogueView] = {}
        self._schedule: EpochSchedule | None = None
        self._session_settings = sessions
        self._policy_settings = policy
        self._topic = topic
        self._table = DeciderTable(policy_file, policy, scorer, bundles=bundles, policies=policies)
        self._deciders: dict[int, EpochDeciders] = {}
        self.applies_budgets = True
        """Whether budgets count: a log of a file has no leases, so none of its campaigns could spend anything."""
        self.shadow_share = 0.0
        """Share of the events that are sampled for the challenger; no decision depends on it."""
        self.watch: DecisionWatch | None = None
        """Sees every decision; no decision depends on it."""

    @property
    def catalogue(self) -> Catalogue:
        """Newest catalogue that any partition uses."""
        return self.history.newest

    @property
    def bundle(self) -> str | None:
        """Version of the bundle of the settings; None without a model."""
        return self._table.own.champion.bundle

    @property
    def policy(self) -> str:
        """Version and content hash of the policy of the settings."""
        return self._table.own.champion.policy.label

    @property
    def has_model(self) -> bool:
        """Whether a model scores requests, so that `finish` waits for scores."""
        return self._table.has_model

    def find_all_deciders(self) -> list[EpochDeciders]:
        """Return the deciders of every partition, from any thread."""
        deciders = self._deciders.copy()
        return [deciders.get(p) or self._table.deciders(state.epoch) for p, state in tuple(self._partitions.items())]

    def describe_catalogue(self) -> str | None:
        """Return in words how many items of the catalogue the champion knows; None without a bundle."""
        epochs = [state.epoch for state in self._partitions.values()] or [None]
        scorer = self._table.deciders(epochs[0]).champion.scorer
        if scorer is None:
            return None
        items = self.catalogue.item_ids
        if not items:
            return f"bundle {scorer.version}: the catalogue has no items"
        known = scorer.count_known(items)
        return f"bundle {scorer.version}: {known} of {len(items)} catalogue items are known to the bundle"

    def source(self, partition: int) -> str:
        """Return `TOPIC-PARTITION`, the beginning of the partition's decision ids."""
        return f"{self._topic}-{partition}"

    def state(self, partition: int) -> PartitionState:
        """Return the state of a partition; a new partition starts with an empty state."""
        state = self._partitions.get(partition)
        if state is None:
            state = self._partitions[partition] = PartitionState(self.source(partition), self._session_settings)
        return state

    def load(self, states: Mapping[int, PartitionState]) -> None:
        """Set the state of partitions, such as restored states, in the epoch of each."""
        self._partitions.update(states)
        for partition, state in states.items():
            self._set_view(partition, state.epoch)

    def begin_epoch(self, partition: int, epoch: Epoch) -> None:
        """Set the epoch of a partition: the later records are decided in this epoch."""
        self.state(partition).epoch = epoch
        self._set_view(partition, epoch)

    def follow_schedule(self, schedule: EpochSchedule | None) -> None:
        """Begin epochs by event time: for a replay of files, whose events have no epochs among them."""
        self._schedule = schedule

    def replace_history(self, history: CatalogueHistory) -> None:
        """Use another history of the catalogue, which knows the epoch of every partition."""
        self.history = history
        for partition, state in self._partitions.items():
            self._set_view(partition, state.epoch)

    def _set_view(self, partition: int, epoch: Epoch | None) -> None:
        if epoch is None:
            self._views.pop(partition, None)
        else:
            self._views[partition] = self.history.view(offsets_of(epoch))
        self._deciders.pop(partition, None)
        if self._schedule is not None:
            self._partitions[partition].next_epoch_ts = self._schedule.next_ts(epoch)

    def _find_deciders(self, partition: int, epoch: Epoch | None) -> EpochDeciders:
        """Return the deciders of a partition's epoch; bundles that were missing are looked up again.

        Args:
            partition: Number of the partition.
            epoch: Epoch of the partition.
        """
        deciders = self._deciders.get(partition)
        if deciders is None or not deciders.is_complete:
            deciders = self._deciders[partition] = self._table.deciders(epoch)
        return deciders

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget the state of partitions."""
        for partition in partitions:
            self._partitions.pop(partition, None)
            self._views.pop(partition, None)
            self._deciders.pop(partition, None)

    def process(self, partition: int, records: Sequence[Record]) -> Output:
        """Process the next records of a partition, in offset order."""
        return self.process_all([(partition, records)])[0]

    def process_all(self, batches: Sequence[tuple[int, Sequence[Record]]]) -> list[Output]:
        """Process batches of several partitions, scored together; return the output of each batch."""
        return self.finish(self.begin(batches))

    def begin(self, batches: Sequence[tuple[int, Sequence[Record]]]) -> PendingBatch:
        """Update the states and start scoring. The next batches may begin before `finish` is called for these."""
        outputs, due, ledgers = self._advance(batches)
        return PendingBatch(outputs, due, _submit(due), ledgers)

    def finish(self, pending: PendingBatch) -> list[Output]:
        """Wait for the scores, decide, update the ledgers, and return the output of each batch.

        Batches must be finished in the order of their beginnings.
        """
        outputs, due, groups, ledgers = pending
        pages: dict[int, DecidedPage] = {}  # scores come in an order of their own
        deferred: dict[int, Scores | None] = {}
        for group in groups:
            try:
                for index, scores in group.results():
                    self._decide_or_defer(index, due[index], scores, (pages, deferred))
            except Exception:  # ONNX Runtime's exceptions share no base class that it exports
                if not due[group.indices[0]].decider.is_challenger:
                    raise
                remaining = [index for index in group.indices if index not in pages and index not in deferred]
                self._decide_alone(due, remaining, (pages, deferred))
        for batch in ledgers:
            self._pass_ledger(batch, due, pages, deferred)
        return outputs

    def _decide_or_defer(
        self,
        index: int,
        due: DueDecision,
        scores: Scores | None,
        results: tuple[dict[int, DecidedPage], dict[int, Scores | None]],
    ) -> None:
        """Decide on a request, or keep its scores where the decision depends on the spend of earlier ones.

        Args:
            index: Index of the decision.
            due: The request, with catalogue and decider.
            scores: The model's output; absent where no model scores the request.
            results: Receive the page, or the scores.
        """
        pages, deferred = results
        if self.applies_budgets and due.catalogue.has_budgets:
            deferred[index] = scores
        else:
            pages[index] = self._decide(due, scores)

    def _pass_ledger(
        self,
        batch: LedgerBatch,
        decisions: list[DueDecision],
        pages: dict[int, DecidedPage],
        deferred: Mapping[int, Scores | None],
    ) -> None:
        """Pass the records of a batch through the ledger in offset order, and add the output of each.

        Args:
            batch: The records.
            decisions: All due decisions.
            pages: The decided pages by index; empty where nothing is decided.
            deferred: Scores of the decisions that are made here, since they depend on the spend of earlier ones.
        """
        state, steps, output, end = batch
        ledger = state.ledger
        for step in steps:
            offset, max_ts, index, user_id, ads_alone = step[:5]
            ledger.advance(max_ts, offset)
            if self.applies_budgets:
                _pass_budgets(state, step, output)
            if user_id is not None:
                (ledger.forget_ads if ads_alone else ledger.forget)(user_id, offset)
                continue
            if step.identity is not None:
                self._pass_identity(batch, step.identity, offset)
                continue
            if index is not None and index in deferred:
                pages[index] = self._decide_within_budgets(decisions[index], deferred[index], state.budgets)
            if index is not None and index in pages:
                request, page = decisions[index].request, pages[index]
                output.recommendations.append(page.recommendation)
                if page.ad_message:
                    output.ads.append(page.ad_message)
                _enter_ledger(ledger, request, page, offset)
        _add_results(output, ledger.take_results())
        output.changes[-1:-1] = state.flush_ledger(end)  # the partition's own record stays the last

    def _pass_identity(self, batch: LedgerBatch, identity: Identity, offset: int) -> None:
        """Hand the open decisions of an anonymous id over, or take over what has arrived.

        Args:
            batch: State and output.
            identity: The `identify` event or the hand-over.
            offset: Its source offset.
        """
        record, handover, withheld = identity
        ledger = batch.state.ledger
        if isinstance(record, Handover):
            if record.ledger is not msgspec.UNSET:
                handed = decode_ledger(record.ledger)
                ledger.receive(record.user_id, handed, offset, ts=record.ts, withheld=withheld)
            return
        handed = ledger.hand_over(record.user_id, offset)
        if handed is not None:
            handover = handover or empty_handover(record, partition=batch.state.partition, offset=offset)
            handover = msgspec.structs.replace(handover, ledger=encode_ledger(handed))
        if handover is not None:
            value = encode_bounded(handover, self._session_settings.max_event_bytes)
            batch.output.handovers.append(Message(record.identified_as.encode(), value))

    def _decide_within_budgets(self, due: DueDecision, scores: Scores | None, budgets: PartitionBudgets) -> DecidedPage:
        """Decide on a request, and note what its page may cost.

        A page costs nothing for a machine or without consent to ads. No page waits for the decision on an impression.

        Args:
            due: The request, with catalogue and decider.
            scores: The model's output; absent where no model scores the request.
            budgets: Budgets of the partition.
        """
        request = msgspec.structs.replace(due.request, find_multiplier=budgets.multiplier)
        page = self._decide(due._replace(request=request), scores)
        is_charged = request.client < FIRST_MACHINE and not request.withheld & (ADS | PERSONALISATION)
        if is_charged and page.ad is not None and page.ad.budgets and not isinstance(request.event, Impression):
            budgets.note_page(list(page.ad.budgets), page.ad.slots)
        return page

    def _decide_alone(
        self,
        due: Sequence[DueDecision],
        indices: Iterable[int],
        results: tuple[dict[int, DecidedPage], dict[int, Scores | None]],
    ) -> None:
        """Decide on the challenger's requests one by one; a request that its graph cannot score gets popular items.

        So a failure depends on the request alone, like every decision.

        Args:
            due: All due decisions.
            indices: Decisions to make.
            results: Receive the pages, or the scores of decisions that wait.
        """
        for index in indices:
            decision = due[index]
            assert decision.decider.scorer
            try:
                ((_, scores),) = decision.decider.scorer.submit([decision.request]).results()
            except Exception:  # noqa: BLE001 (as above)
                scores = None
                decision.output.failed += 1
            self._decide_or_defer(index, decision, scores, results)

    def advance_all(self, batches: Sequence[tuple[int, Sequence[Record]]]) -> list[Output]:
        """Update the states without decisions, for callers with a need for sessions or states only.

        No decision enters the ledger.
        """
        return self.collect_requests(batches)[0]

    def collect_requests(
        self, batches: Sequence[tuple[int, Sequence[Record]]]
    ) -> tuple[list[Output], list[Request], list[AnyCatalogue]]:
        """Update the states; return outputs, requests and the catalogue of each request, in order.

        For callers with policies of their own: a request has what any policy may read. No decision enters the ledger.
        """
        outputs, due, ledgers = self._advance(batches, for_any_policy=True)
        for batch in ledgers:
            self._pass_ledger(batch, due, {}, {})
        return outputs, [decision.request for decision in due], [decision.catalogue for decision in due]

    def _advance(
        self, batches: Sequence[tuple[int, Sequence[Record]]], *, for_any_policy: bool = False
    ) -> tuple[list[Output], list[DueDecision], list[LedgerBatch]]:
        """Update the states; return outputs without decisions, the due decisions in order, and what ledgers need.

        Args:
            batches: Next records of each partition.
            for_any_policy: Whether a request has what any policy may read, or what its own policy reads.
        """
        outputs = [Output() for _ in batches]
        due: list[DueDecision] = []
        ledgers: list[LedgerBatch] = []
        for (partition, records), output in zip(batches, outputs, strict=True):
            state = self.state(partition)
            end = records[-1].offset if records else state.offset
            batch = LedgerBatch(state, [], output, end)
            self._read(partition, batch, records, due, for_any_policy=for_any_policy)
            if end > state.offset:
                state.appended_at = records[-1].timestamp
            if end > state.offset or state.needs_flush:
                output.changes.extend(state.flush(end))
                ledgers.append(batch)
        return outputs, due, ledgers

    def _read(
        self,
        partition: int,
        batch: LedgerBatch,
        records: Sequence[Record],
        due: list[DueDecision],
        *,
        for_any_policy: bool,
    ) -> None:
        """Update a partition's state with records, and add the decisions that are due.

        Args:
            partition: Number of the partition.
            batch: State and output; receives the records for the ledger.
            records: Records in offset order.
            due: Receives the requests.
            for_any_policy: Whether a request has what any policy may read, or what its own policy reads.
        """
        state, steps, output, _ = batch
        catalogue = self._views.get(partition, self.history.newest)
        deciders = self._find_deciders(partition, state.epoch)
        for record in records:
            if record.offset <= state.offset:
                output.outcomes["skipped"] += 1  # processed before a restart or a rebalance
                continue
            event = self._decode(record)
            if isinstance(event, DeadLetter):
                output.dead_letters.append(event)
                output.outcomes["dead"] += 1
                continue
            if isinstance(event, Epoch):
                catalogue = self._apply_epoch(partition, state, event, output)
                deciders = self._find_deciders(partition, state.epoch)
                continue
            if isinstance(event, (BudgetLease, SpendReport, Handover, Consent, Erase, Identify)):
                # the log's order counts: the watermark stays
                self._apply_record(batch, event, record, catalogue)
                continue
            self._pass_time(state, event, record, output)
            if state.max_ts >= state.next_epoch_ts and self._schedule is not None:
                self.begin_epoch(partition, self._schedule.epoch(state.max_ts, state.epoch))
                catalogue = self._views[partition]
                deciders = self._find_deciders(partition, state.epoch)
            if isinstance(event, Tick):
                output.outcomes["tick"] += 1
                steps.append(LedgerStep(record.offset, state.max_ts))
                continue
            request = self._step(state, event, record, output, deciders)
            steps.append(LedgerStep(record.offset, state.max_ts, None if request is None else len(due)))
            if request is not None:
                decider = deciders.find(request.variant)
                needs_companions = for_any_policy or decider.policy.reads_companions(event)
                complete = _with_companions(request, catalogue, state) if needs_companions else request
                due.append(DueDecision(complete, catalogue, output, decider, record.offset))

    def _apply_epoch(self, partition: int, state: PartitionState, epoch: Epoch, output: Output) -> AnyCatalogue:
        """Begin an epoch, unless its number is not larger than that of the present epoch; return the catalogue.

        With a schedule the epochs of the log do not count: their offsets belong to other records.

        Args:
            partition: Number of the partition.
            state: State of the partition.
            epoch: The record.
            output: Output of the batch.
        """
        output.outcomes["epoch"] += 1
        if self._schedule is None and (state.epoch is None or epoch.number > state.epoch.number):
            self.begin_epoch(partition, epoch)
        return self._views[partition]

    def _pass_time(self, state: PartitionState, event: AnyEvent | Tick, record: Record, output: Output) -> None:
        """Move the watermark to a record's time, and close the sessions that this ends.

        Args:
            state: State of the partition.
            event: The event or the tick.
            record: The record of the event.
            output: Output of the batch.
        """
        limit = MAX_CLOSURES_PER_TICK if isinstance(event, Tick) else MAX_CLOSURES_PER_EVENT
        if (
            event.ts - state.max_ts > self._session_settings.gap_ms
            and state.max_ts >= 0
            and not isinstance(event, Tick)
        ):
            output.jumps.append(_watermark_jump(event, record, state.max_ts))
        closed = state.advance(event.ts, record.offset, limit)
        if closed:
            output.closed_sessions.extend(map(closed_message, closed))

    def _apply_record(
        self,
        batch: LedgerBatch,
        event: BudgetRecord | Handover | PrivacyRecord,
        record: Record,
        catalogue: AnyCatalogue,
    ) -> None:
        """Apply a record that is no action of a user.

        Args:
            batch: State and output; receives what the ledger needs.
            event: The event.
            record: The record of the event.
            catalogue: Campaigns in the epoch of the record.
        """
        state, steps, output, _ = batch
        if isinstance(event, Handover):
            self._receive(batch, event, record)
        elif isinstance(event, (BudgetLease, SpendReport)):
            output.outcomes["budget"] += 1
            steps.append(LedgerStep(record.offset, state.max_ts, budget_record=event, catalogue=catalogue))
        else:
            self._apply_privacy(batch, event, record)

    def _apply_privacy(self, batch: LedgerBatch, event: PrivacyRecord, record: Record) -> None:
        """Erase or identify a user, or apply what a user says about consent, unless the record repeats a statement.

        Args:
            batch: State and output; receives the user for the ledger to forget.
            event: The record of the user.
            record: The record of the log.
        """
        state, steps, output, _ = batch
        if isinstance(event, Identify):
            self._identify(batch, event, record)
            return
        if isinstance(event, Erase):
            self._erase(state, event, record, output)
        else:
            fingerprint = xxhash.xxh3_64_digest(event.event_id.encode())
            if consent.is_repeat(state.user(event.user_id).consent, fingerprint):
                output.outcomes["repeated"] += 1
                return
            closed = state.apply_consent(event, fingerprint, record.offset)
            if closed:
                output.closed_sessions.append(closed_message(closed))
            output.outcomes["consent"] += 1
            withheld = state.withheld(state.user(event.user_id))
            if not withheld & PERSONALISATION:
                if withheld & ADS:
                    steps.append(LedgerStep(record.offset, state.max_ts, forgotten_user=event.user_id, ads_alone=True))
                return
        steps.append(LedgerStep(record.offset, state.max_ts, forgotten_user=event.user_id))

    def _erase(self, state: PartitionState, event: Erase, record: Record, output: Output) -> None:
        """Forget a user, and write a receipt."""
        state.erase(event, record.offset)
        forget_variants()  # the cache holds user ids
        record_id = f"{state.source}-{record.offset}"
        receipt = Erased(event_id=event.event_id, user_id=event.user_id, record_id=record_id, ts=event.ts)
        output.receipts.append(Message(event.user_id.encode(), encode_receipt(receipt)))
        output.outcomes["erase"] += 1

    def _identify(self, batch: LedgerBatch, event: Identify, record: Record) -> None:
        """Take what an anonymous id did out of the state. The ledger adds open decisions, and writes the hand-over."""
        state, steps, output, _ = batch
        is_withheld = bool(state.withheld(state.user(event.user_id)) & PERSONALISATION)
        handover, closed = state.identify(event, record.offset)
        if closed:
            output.closed_sessions.append(closed_message(closed))
        if is_withheld:
            steps.append(LedgerStep(record.offset, state.max_ts, forgotten_user=event.user_id))
        steps.append(LedgerStep(record.offset, state.max_ts, identity=Identity(event, handover)))
        output.outcomes["identify"] += 1

    def _receive(self, batch: LedgerBatch, handover: Handover, record: Record) -> None:
        """Merge what an anonymous id did into the state of the user, unless the record is a repeat after a crash."""
        state, steps, output, _ = batch
        if state.is_applied(handover):
            output.outcomes["repeated"] += 1
            return
        is_erased = state.is_erased(handover)
        closed, session_id = state.receive(handover, record.offset)
        output.closed_sessions.extend(map(closed_message, closed))
        if session_id is not None and handover.session is not None:
            source_id = f"{self.source(handover.partition)}-{handover.session.opened_by}"
            output.merges.append(SessionMerge(source_id, session_id, handover.user_id))
        withheld = state.withheld(state.user(handover.user_id))
        if withheld & PERSONALISATION:
            steps.append(LedgerStep(record.offset, state.max_ts, forgotten_user=handover.user_id))
        elif not is_erased:
            steps.append(LedgerStep(record.offset, state.max_ts, identity=Identity(handover, withheld=withheld)))
        output.outcomes["handover"] += 1

    def _decode(self, record: Record) -> AnyRecord | DeadLetter:
        """Return the event of a record, or a dead letter for a record without a usable event."""
        value = record.value
        if value is None:
            return DeadLetter(record, "the value is null, where an event is expected")
        if len(value) > self._session_settings.max_event_bytes:
            return DeadLetter(
                record,
                f"{full_size(value)} bytes, more than max_event_bytes ({self._session_settings.max_event_bytes})",
            )
        try:
            event = decode_record(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return DeadLetter(record, str(exc))
        if isinstance(event, Epoch):
            return event
        if isinstance(event, (BudgetLease, SpendReport)):
            fault = _budget_fault(event, record.timestamp, self._session_settings.future_ms)
        elif not isinstance(event, Tick) and event.user_id.startswith(LEDGER_PREFIX):
            fault = "user_id begins with the character U+0000, which keys of the state begin with"
        else:
            fault = self._time_fault(event, record.timestamp) if record.timestamp >= 0 else None
        return DeadLetter(record, fault) if fault else event

    def _time_fault(self, event: AnyEvent | PrivacyRecord | Handover | Tick, appended_at: int) -> str | None:
        """Return in words why an event time and an append time (ms) do not fit; None where both fit."""
        settings = self._session_settings
        ahead_ms = (event.newest_ts if isinstance(event, Handover) else event.ts) - appended_at
        if ahead_ms > settings.future_ms:
            return f"ts is {ahead_ms} ms after the append time, more than future_ms"
        # A hand-over is as old as its worker is behind, and the events in it were accepted before.
        if settings.past_ms and -ahead_ms > settings.past_ms and not isinstance(event, Handover):
            return f"ts is {-ahead_ms} ms before the append time, more than past_ms"
        return None

    def _step(
        self, state: PartitionState, event: AnyEvent, record: Record, output: Output, deciders: EpochDeciders
    ) -> Request | None:
        """Update the session of the event's user; return the request, absent for a repeated or rejected event.

        Args:
            state: State of the partition.
            event: The event.
            record: The record of the event.
            output: Output of the batch.
            deciders: Know the variant of the user.
        """
        user, late = state.user(event.user_id), event.ts < state.watermark
        withheld, declared = state.withheld(user), clients.declared_code(event)
        if withheld & PERSONALISATION:
            closed = state.drop_history(event.user_id, user, record.offset)  # history from before a change of settings
            if closed:
                output.closed_sessions.append(closed_message(closed))
            user = state.only_event(event, record.offset)
        elif isinstance(event, Impression):  # no action of the user: it enters no session
            if not (late or withheld & ADS):
                user = state.count_ad(user, event, record.offset)
            if not late:
                state.count_seen(user, event, record.offset)
        else:
            fingerprint = xxhash.xxh3_64_digest(event.event_id.encode())
            if sessions.is_duplicate(user, fingerprint):
                output.outcomes["repeated"] += 1
                return None
            late = late or sessions.belongs_to_closed_session(user, event, self._session_settings.gap_ms)
            if not late:
                state.set_client(event.user_id, user, declared, record.offset)  # first: a machine adds to no count
                closed = state.add_event(user, event, fingerprint, record.offset)
                state.set_client(event.user_id, user, declared, record.offset)  # a session that closed has taken it
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
            purchases=sessions.purchases(user) if user.bought else _NO_PURCHASES,
            variant=deciders.variant(event.user_id, self._policy_settings),
            late=late,
            popular=state.popular,
            ages=user.ages[:],
            withheld=withheld,
            client=declared or user.client,
            ad_impressions=ad_counts.impressions_on_day(user.ads, event.ts),
            session_ads=ad_counts.in_session(user.ads, user.opened_by),
            seen=user.seen or b"",
        )

    def _decide(self, due: DueDecision, scores: Scores | None) -> DecidedPage:
        """Return a request's recommendation, and with campaigns also the ad; count the items.

        Args:
            due: The request, with catalogue and decider.
            scores: The model's output; absent where no model scores the request.
        """
        request, catalogue, output, decider, offset = due
        output.unscored += scores is None or not scores.rows
        if (
            self.shadow_share
            and scores is not None
            and scores.rows
            and not decider.is_challenger
            and unit_hash("shadow", request.decision_id) < self.shadow_share
        ):
            output.shadowed.append((request, scores))
        key, variant = request.event.user_id.encode(), request.variant
        (value, origins, filtered, moved, shelves), ad = decider.decide(request, scores, catalogue)
        for reason, count in origins.items():
            output.items[variant, reason] += count
        output.removed.update(filtered)
        output.moved.update(moved)
        ad_message = Message(key, encode_decision(ad), offset) if ad is not None else None
        page = DecidedPage(Message(key, value, offset), ad_message, shelves, ad, origins)
        if self.watch is not None:
            self.watch(due, scores, page)
        return page


ALLOCATOR_PARTITION = 0
"""Partition whose state has the allocator of budgets."""


def _budget_fault(record: BudgetRecord, appended_at: int, future_ms: int) -> str | None:
    """Return in words why the times of a record of the budgets do not fit together; None where they fit.

    A day in the future would close the books of every true report.

    Args:
        record: The record.
        appended_at: Append time, ms; below 0 where it is not known.
        future_ms: How far an event time may lie after the append time, ms.
    """
    if record.day != record.ts // DAY_MS:
        return f"day is {record.day}, but ts is in the day {record.ts // DAY_MS}"
    ahead_ms = record.ts - appended_at
    if appended_at >= 0 and ahead_ms > future_ms:
        return f"ts is {ahead_ms} ms after the append time, more than future_ms"
    return None


def _budget_message(partition: int, record: BudgetRecord) -> BudgetMessage:
    return BudgetMessage(partition, Message(None, msgspec.json.encode(record)))


def _pass_budgets(state: PartitionState, step: LedgerStep, output: Output) -> None:
    """Move the budgets on to a record: report what is due, apply a lease, and give a report to the allocator.

    Args:
        state: State of the partition.
        step: The record.
        output: Output of the batch.
    """
    budgets, record, catalogue = state.budgets, step.budget_record, step.catalogue
    for report in budgets.advance(step.max_ts, step.offset):
        output.budget_records.append(_budget_message(ALLOCATOR_PARTITION, report))
    if isinstance(record, BudgetLease):
        state.ledger.add_charges(budgets.apply(record), step.offset)
    elif record is not None and catalogue is not None:
        lease = budgets.receive(record, lambda campaign_id: make_budget(catalogue.campaign(campaign_id)))
        if lease is not None:
            output.budget_records.append(_budget_message(record.partition, lease))


def _enter_ledger(ledger: Ledger, request: Request, page: DecidedPage, offset: int) -> None:
    """Join an event to the open decisions of its user, and add the decision on it.

    Args:
        ledger: Ledger of the partition.
        request: The event, with the user's session.
        page: The decision.
        offset: Source offset of the event.
    """
    user_id = request.event.user_id
    if request.withheld & PERSONALISATION:
        ledger.forget(user_id, offset)
        return
    if request.withheld & ADS:  # also where a statement on consent has ended by its time
        ledger.forget_ads(user_id, offset)
    is_machine = request.client >= FIRST_MACHINE
    ledger.pass_event(request.event, offset, is_machine=is_machine)
    if not isinstance(request.event, Impression):  # no page waits for the decision on an impression
        ledger.open(_opening(request, page), offset, is_machine=is_machine)


def _opening(request: Request, page: DecidedPage) -> OpeningDecision:
    """Return a decision for the ledger."""
    variant = comparison_variant(
        request.variant, has_model_items=MODEL in page.origins, is_machine=request.client >= FIRST_MACHINE
    )
    return OpeningDecision(request.event.user_id, request.event.ts, variant, page.shelves, page.ad, request.withheld)


def _add_results(output: Output, results: LedgerResults) -> None:
    """Add the results of a ledger to the output of a batch."""
    output.feedback.update(results.feedback)
    output.reactions.update(results.reactions)
    output.revenue.update(results.revenue)
    output.decision_outcomes += [
        Message(outcome.user_id.encode(), encode_outcome(outcome)) for outcome in results.outcomes
    ]
    output.charges += [Message(charge.campaign_id.encode(), encode_outcome(charge)) for charge in results.charges]
    output.charged.update(sum_amounts(results.charges))


def _with_companions(request: Request, catalogue: AnyCatalogue, state: PartitionState) -> Request:
    """Return a request with the items that users bought together with those in the cart and on screen.

    Args:
        request: The event, with the user's session.
        catalogue: State of the items.
        state: State of the partition as of the event.
    """
    companions = state.companions(companion_anchors(request, catalogue), MAX_COMPANIONS)
    return msgspec.structs.replace(request, companions=companions)


def _submit(due: Sequence[DueDecision]) -> list[PendingGroup]:
    """Start scoring the requests, those of each scorer together."""
    groups: dict[Scorer | None, list[int]] = {}
    for index, decision in enumerate(due):
        groups.setdefault(decision.decider.scorer, []).append(index)
    return [
        PendingGroup(indices, scorer.submit([due[index].request for index in indices]) if scorer else None)
        for scorer, indices in groups.items()
    ]


def _watermark_jump(event: AnyEvent, record: Record, newest_ts: int) -> WatermarkJump:
    ahead_ms = event.ts - record.timestamp if record.timestamp >= 0 else None
    return WatermarkJump(record.offset, event.event_id, event.user_id, event.ts - newest_ts, ahead_ms)


def closed_message(session: ClosedSession) -> Message:
    """Return a closed session as a record to publish."""
    return Message(session.user_id.encode(), encode_session(session))
