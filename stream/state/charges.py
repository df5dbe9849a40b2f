"""Charges: bill the sold slots of open decisions, and remember the decisions that are not paid in full."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.leases import MONEY_DECIMALS, unit_price
from clickscore.schemas.open_decisions import (
    CLICK,
    IMPRESSION,
    PURCHASE,
    Billing,
    OpenDecision,
    UserLedger,
)
from clickscore.schemas.outcomes import AdCharge, ChargeReason
from clickscore.stream.budgets.partition_budgets import AdOutcome, PartitionBudgets
from clickscore.stream.state.attribution import PageLine, attribute_orders, judge_clicks
from clickscore.stream.state.billing import Bill, make_bill
from clickscore.stream.state.remembered_decisions import id_of


class Charges:
    """Charges for the open decisions of a partition, paid from its budgets."""

    def __init__(self, topic: str, budgets: PartitionBudgets) -> None:
        """Start without debts.

        Args:
            topic: Topic of the events, with its prefix.
            budgets: Budgets of the partition, which pay charges and learn how often ads are clicked.
        """
        self._topic = topic
        self._budgets = budgets
        self._debtors: dict[str, str] = {}  # user of each open decision that was not paid in full

    def find_debtor(self, decision_id: str) -> str | None:
        """Return the user of an open decision that was not paid in full; None for any other decision."""
        return self._debtors.get(decision_id)

    def bill(self, user_id: str, ledger: UserLedger, ts: int) -> list[AdCharge]:
        """Return a charge for each slot whose costs have changed. A credit pays the paid amount back.

        Args:
            user_id: The user.
            ledger: Ledger of the user; receives what is billed.
            ts: Event time of the event behind the change, ms.
        """
        if not any(decision.slots for decision in ledger.decisions):
            return []
        charges: list[AdCharge] = []
        orders, invalid = attribute_orders(ledger), judge_clicks(ledger)
        for index, decision in enumerate(ledger.decisions):
            for number, slot in enumerate(decision.slots):
                purchases = [order for order in orders.get(PageLine(index, slot.line), ()) if order.kind == PURCHASE]
                bill = make_bill(decision, slot, purchases, invalid, is_machine=ledger.is_machine)
                billing = decision.billing[number] if decision.billing else Billing()
                if (bill.events, bill.net) != (billing.events, billing.net):
                    charges.append(self._charge(user_id, decision, number, bill, ts))
        return charges

    def _charge(self, user_id: str, decision: OpenDecision, number: int, bill: Bill, ts: int) -> AdCharge:
        """Return the charge for the difference between a bill and what was billed before.

        Args:
            user_id: The user.
            decision: The decision; receives what is billed.
            number: Number of the slot in the decision.
            bill: What the slot costs.
            ts: Event time of the event behind the change, ms.
        """
        slot, decision_id = decision.slots[number], self._id(decision)
        decision.billing = decision.billing or [Billing()] * len(decision.slots)
        billing = decision.billing[number]
        is_credit = bill.net < billing.net
        if is_credit and slot.has_budget:
            self._budgets.cancel(slot.campaign_id, decision_id, number)
        charge = AdCharge(
            charge_id=f"{decision_id}/{number}/{billing.records}",
            campaign_id=slot.campaign_id,
            decision_id=decision_id,
            slot=number,
            placement=slot.placement,
            bid_per=slot.bid_per,
            ts=ts,
            gross=round((bill.events - billing.events) * unit_price(slot.price, slot.bid_per), MONEY_DECIMALS),
            net=round(0 - billing.paid if is_credit else bill.net - billing.net, MONEY_DECIMALS),
            reason=bill.reason,
        )
        charge = self._budgets.charge(charge) if slot.has_budget else charge
        paid = round(billing.paid + charge.net, MONEY_DECIMALS)
        if paid < bill.net:
            self._debtors[decision_id] = user_id
        decision.billing[number] = Billing(billing.records + 1, bill.events, bill.net, paid)
        return charge

    def pay(self, charge: AdCharge, decision: OpenDecision) -> None:
        """Note what a new lease has paid for a slot of an open decision.

        Args:
            charge: The charge.
            decision: The decision.
        """
        billing = decision.billing[charge.slot]
        paid = round(billing.paid + charge.net, MONEY_DECIMALS)
        decision.billing[charge.slot] = msgspec.structs.replace(billing, paid=paid)

    def load(self, user_id: str, decisions: Iterable[OpenDecision]) -> None:
        """Note which of a user's restored decisions are not paid in full.

        Args:
            user_id: The user.
            decisions: Open decisions of the user.
        """
        for decision in decisions:
            if any(billing.paid < billing.net for billing in decision.billing):
                self._debtors[self._id(decision)] = user_id

    def forget(self, decisions: Iterable[OpenDecision]) -> None:
        """Forget the debts of decisions. What was charged stays charged."""
        for decision in decisions:
            self._debtors.pop(self._id(decision), None)

    def cancel(self, decisions: Iterable[OpenDecision]) -> None:
        """Cancel what is not paid yet of decisions that another partition bills from then on."""
        for decision in decisions:
            for number, (slot, billing) in enumerate(zip(decision.slots, decision.billing, strict=False)):
                if billing.paid < billing.net:
                    self._budgets.cancel(slot.campaign_id, self._id(decision), number)

    def learn(self, ledger: UserLedger, decision: OpenDecision, offset: int) -> None:
        """Let the click rates learn from the ads of a decision whose outcome is written for the first time.

        Args:
            ledger: Ledger of the user.
            decision: The decision.
            offset: Source offset of the record behind the change.
        """
        if ledger.is_machine:
            return
        invalid: Mapping[bytes, ChargeReason] | None = None
        for slot in decision.slots:
            reactions = [reaction for reaction in decision.reactions if reaction.line == slot.line]
            if slot.expected and any(reaction.kind == IMPRESSION for reaction in reactions):
                invalid = judge_clicks(ledger) if invalid is None else invalid
                is_clicked = any(r.kind == CLICK and r.fingerprint not in invalid for r in reactions)
                outcome = AdOutcome(slot.campaign_id, decision.ts // DAY_MS, slot.expected, is_clicked)
                self._budgets.learn(outcome, offset)

    def _id(self, decision: OpenDecision) -> str:
        return id_of(decision, self._topic)


def sum_amounts(charges: Sequence[AdCharge]) -> dict[str, float]:
    """Return the sums of charges: `gross`, `net` without credits, and `credit`; empty without charges."""
    if not charges:
        return {}
    return {
        "gross": sum([charge.gross for charge in charges]),
        "net": sum([charge.net for charge in charges if charge.net > 0]),
        "credit": -sum([charge.net for charge in charges if charge.net < 0]),
    }
