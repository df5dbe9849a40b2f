"""Pipeline: turn the records of partitions into decisions and state changes, the same live and in a replay.

The pipeline is pure: no clock, no Kafka, and no effect of the limits of batches. Decoding, deduplication, sessions and
the policy work event by event in offset order. Scoring works in micro-batches over all events of a batch, because
scores are batch-invariant.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import xxhash

from clickscore.schemas.clients import FIRST_MACHINE
from clickscore.schemas.decisions import encode_decision
from clickscore.schemas.erasure import Erased, encode_receipt
from clickscore.schemas.events import (
    AnyEvent,
    BudgetRecord,
    Consent,
    Epoch,
    Erase,
    Identify,
    Impression,
    PrivacyRecord,
    Tick,
)
from clickscore.schemas.handover import Handover
from clickscore.schemas.leases import BudgetLease, SpendReport
from clickscore.schemas.purposes import ADS, PERSONALISATION
from clickscore.stream.budgets.partition_budgets import PartitionBudgets
from clickscore.stream.deciders import DeciderTable, EpochDeciders
from clickscore.stream.due_decisions import DecidedPage, DecisionWatch, DueDecision, PendingGroup, submit_requests
from clickscore.stream.ledger_pass import (
    Identity,
    LedgerBatch,
    LedgerStep,
    add_results,
    enter_ledger,
    pass_budgets,
    pass_identity,
)
from clickscore.stream.pipeline_records import (
    DeadLetter,
    Message,
    Output,
    Record,
    SessionMerge,
    WatermarkJump,
    closed_message,
)
from clickscore.stream.policy.experiments import forget_variants, unit_hash
from clickscore.stream.policy.policy_file import DEFAULT_POLICY, PolicyFile
from clickscore.stream.policy.shelf_sources import MAX_COMPANIONS, companion_anchors
from clickscore.stream.record_decoding import read_event
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.catalogue_history import AnyCatalogue, CatalogueHistory, CatalogueView, offsets_of
from clickscore.stream.reference.epoch_schedule import EpochSchedule
from clickscore.stream.request import Request, Scores
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import PolicySettings, SessionSettings
from clickscore.stream.state import ad_counts, clients, consent, sessions
from clickscore.stream.state.partition import (
    MAX_CLOSURES_PER_EVENT,
    MAX_CLOSURES_PER_TICK,
    PartitionState,
)


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
        return PendingBatch(outputs, due, submit_requests(due), ledgers)

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
        """Decide on a request, or keep its scores where the decision depends on earlier ones, as the ads do.

        Args:
            index: Index of the decision.
            due: The request, with catalogue and decider.
            scores: The model's output; absent where no model scores the request.
            results: Receive the page, or the scores.
        """
        pages, deferred = results
        if due.catalogue.has_campaigns:
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
            deferred: Scores of the decisions that are made here, since they depend on earlier ones.
        """
        state, steps, output, end = batch
        ledger = state.ledger
        for step in steps:
            offset, index, user_id = step.offset, step.decision, step.forgotten_user
            if step.max_ts >= ledger.due_at:
                ledger.advance(step.max_ts, offset)
            if self.applies_budgets:
                pass_budgets(state, step, output)
            if user_id is not None:
                (ledger.forget_ads if step.ads_alone else ledger.forget)(user_id, offset)
                continue
            if step.identity is not None:
                pass_identity(batch, step.identity, offset, self._session_settings.max_event_bytes)
                continue
            if index is not None and index in deferred:
                pages[index] = self._decide_with_ads(decisions[index], deferred[index], state.budgets)
            if index is not None and index in pages:
                request, page = decisions[index].request, pages[index]
                output.recommendations.append(page.recommendation)
                if page.ad_message:
                    output.ads.append(page.ad_message)
                enter_ledger(ledger, request, page, offset)
        add_results(output, ledger.take_results())
        output.changes[-1:-1] = state.flush_ledger(end)  # the partition's own record stays the last

    def _decide_with_ads(self, due: DueDecision, scores: Scores | None, budgets: PartitionBudgets) -> DecidedPage:
        """Decide on a request by budgets and click rates as of its event, and note what its page may cost.

        A page costs nothing for a machine or without consent to ads. No page waits for the decision on an impression.

        Args:
            due: The request, with catalogue and decider.
            scores: The model's output; absent where no model scores the request.
            budgets: Budgets of the partition.
        """
        request = msgspec.structs.replace(
            due.request,
            find_multiplier=budgets.multiplier if self.applies_budgets else None,
            find_click_factor=budgets.find_click_factor(),
        )
        page = self._decide(msgspec.structs.replace(due, request=request), scores)
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
            event = read_event(record, self._session_settings)
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
        if state.handovers.is_applied(handover):
            output.outcomes["repeated"] += 1
            return
        is_erased = state.handovers.is_erased(handover)
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
        request, output, decider, offset = due.request, due.output, due.decider, due.offset
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
        recommendation, ad = decider.decide(request, scores, due.catalogue)
        for reason, count in recommendation.origins.items():
            output.items[variant, reason] += count
        if recommendation.filtered:
            output.removed.update(recommendation.filtered)
        if recommendation.moved:
            output.moved.update(recommendation.moved)
        ad_message = Message(key, encode_decision(ad), offset) if ad is not None else None
        message = Message(key, recommendation.value, offset)
        page = DecidedPage(message, ad_message, recommendation.shelves, ad, recommendation.origins)
        if self.watch is not None:
            self.watch(due, scores, page)
        return page


def _with_companions(request: Request, catalogue: AnyCatalogue, state: PartitionState) -> Request:
    """Return a request with the items that users bought together with those in the cart and on screen.

    Args:
        request: The event, with the user's session.
        catalogue: State of the items.
        state: State of the partition as of the event.
    """
    companions = state.companions(companion_anchors(request, catalogue), MAX_COMPANIONS)
    return msgspec.structs.replace(request, companions=companions)


def _watermark_jump(event: AnyEvent, record: Record, newest_ts: int) -> WatermarkJump:
    ahead_ms = event.ts - record.timestamp if record.timestamp >= 0 else None
    return WatermarkJump(record.offset, event.event_id, event.user_id, event.ts - newest_ts, ahead_ms)
