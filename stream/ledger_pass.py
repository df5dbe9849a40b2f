"""Ledger pass: join the records of a batch to the ledger and the budgets of their partition, in offset order."""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import msgspec

from clickscore.schemas.clients import FIRST_MACHINE
from clickscore.schemas.decisions import comparison_variant
from clickscore.schemas.events import BudgetRecord, Identify, Impression
from clickscore.schemas.handover import Handover
from clickscore.schemas.leases import BudgetLease
from clickscore.schemas.open_decisions import decode_ledger, encode_ledger
from clickscore.schemas.outcomes import encode_outcome
from clickscore.schemas.purposes import ADS, PERSONALISATION
from clickscore.stream.budgets.allocator import make_budget
from clickscore.stream.due_decisions import DecidedPage
from clickscore.stream.pipeline_records import BudgetMessage, Message, Output
from clickscore.stream.policy.experiments import MODEL
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request
from clickscore.stream.state.charges import sum_amounts
from clickscore.stream.state.identity import empty_handover, encode_bounded
from clickscore.stream.state.ledger import Ledger, LedgerResults, OpeningDecision
from clickscore.stream.state.partition import PartitionState

_Label = TypeVar("_Label", str, tuple[str, str])


class Identity(NamedTuple):
    """An `identify` event, or a hand-over that has arrived."""

    record: Identify | Handover
    handover: Handover | None = None
    """What the state hands over at an `identify` event, without the open decisions; None where it has nothing."""
    withheld: int = 0
    """Bits of the purposes to which the user of a hand-over has not consented."""


class LedgerStep(msgspec.Struct, frozen=True, gc=False):
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
    identity: Identity | None = None
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


ALLOCATOR_PARTITION = 0
"""Partition whose state has the allocator of budgets."""


def pass_budgets(state: PartitionState, step: LedgerStep, output: Output) -> None:
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


def pass_identity(batch: LedgerBatch, identity: Identity, offset: int, max_bytes: int) -> None:
    """Hand the open decisions of an anonymous id over, or take over what has arrived.

    Args:
        batch: State and output.
        identity: The `identify` event or the hand-over.
        offset: Its source offset.
        max_bytes: Size limit of a hand-over, bytes.
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
        value = encode_bounded(handover, max_bytes)
        batch.output.handovers.append(Message(record.identified_as.encode(), value))


def enter_ledger(ledger: Ledger, request: Request, page: DecidedPage, offset: int) -> None:
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


def add_results(output: Output, results: LedgerResults) -> None:
    """Add the results of a ledger to the output of a batch."""
    output.feedback.update(results.feedback)
    output.reactions.update(results.reactions)
    _add_amounts(output.revenue, results.revenue)
    output.decision_outcomes += [
        Message(outcome.user_id.encode(), encode_outcome(outcome)) for outcome in results.outcomes
    ]
    output.charges += [Message(charge.campaign_id.encode(), encode_outcome(charge)) for charge in results.charges]
    _add_amounts(output.charged, sum_amounts(results.charges))


def _add_amounts(sums: dict[_Label, float], amounts: Mapping[_Label, float]) -> None:
    """Add amounts to sums by label; a `Counter` would do the same for whole numbers."""
    for label, amount in amounts.items():
        sums[label] = sums.get(label, 0.0) + amount


def _budget_message(partition: int, record: BudgetRecord) -> BudgetMessage:
    return BudgetMessage(partition, Message(None, msgspec.json.encode(record)))
