"""Quiet decisions: closing decisions unread leads to the same records as reading each of them."""

from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickscore.schemas.decisions import ShownShelf
from clickscore.schemas.events import Cart, Click, View
from clickscore.schemas.open_decisions import MAX_DECISIONS, OpenDecision, QuietDecision, Reaction, StoredLedger
from clickscore.schemas.snapshots import encode
from clickscore.stream.budgets.partition_budgets import PartitionBudgets
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.ledger import Ledger, LedgerChange, LedgerResults, OpeningDecision
from clickscore.stream.state.quiet_decisions import split_quiet
from clickscore.stream.state.remembered_decisions import CLICK_WINDOW_MS
from tests.events import MINUTE, START
from tests.stream.state.test_ledger import ads, choices, closing_time, opening, sold


class ReadingLedger(Ledger):
    """A ledger that reads every decision that it closes."""

    def _close_quiet(self, user_id: str, offset: int) -> int | None:
        del user_id, offset
        return None


class Step(NamedTuple):
    """An event with the decision on it, and whether a batch ends behind it."""

    user: str
    kind: str
    minute: int
    withheld: int
    is_machine: bool
    ends_batch: bool


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(("ann", "bob")),
        st.sampled_from(("view", "view", "view", "ad", "click", "cart")),
        st.integers(0, 12),
        st.sampled_from((0, 0, 0, 4)),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=30,
)


def run(ledger: Ledger, steps: list[Step]) -> tuple[list[list[LedgerChange]], list[LedgerResults]]:
    changes: list[list[LedgerChange]] = []
    results: list[LedgerResults] = []
    ts = START
    for offset, step in enumerate(steps):
        ts += step.minute * MINUTE
        ledger.advance(ts, offset)
        name = f"events-0-{max(0, offset - 2)}"
        if step.kind == "click":
            event = Click(event_id=f"e{offset}", user_id=step.user, ts=ts, item_id="cup", decision_id=name)
        elif step.kind == "cart":
            event = Cart(event_id=f"e{offset}", user_id=step.user, ts=ts, item_id="cup")
        else:
            event = View(event_id=f"e{offset}", user_id=step.user, ts=ts, item_id="cup")
        ledger.pass_event(event, offset, is_machine=step.is_machine)
        page = ads(sold("tea", "pot")) if step.kind == "ad" else None
        shelves = [ShownShelf("list", choices("cup", "mug"))]
        opening = OpeningDecision(step.user, ts, "model", shelves, page, step.withheld)
        ledger.open(opening, offset, is_machine=step.is_machine)
        if step.ends_batch:
            changes.append(sorted(ledger.flush(offset)))
            results.append(ledger.take_results())
    ledger.advance(ts + 2 * CLICK_WINDOW_MS, len(steps))
    changes.append(sorted(ledger.flush(len(steps))))
    results.append(ledger.take_results())
    return changes, results


def ledger_of(kind: type[Ledger]) -> Ledger:
    return kind("events-0", SessionSettings(), PartitionBudgets(0))


@settings(max_examples=200)
@given(STEPS)
def test_records_and_results_are_those_of_a_ledger_that_reads_every_decision(steps: list[Step]):
    assert run(ledger_of(Ledger), steps) == run(ledger_of(ReadingLedger), steps)


def stored(*decisions: QuietDecision, orders: bytes = b"\x90") -> StoredLedger:
    return StoredLedger([msgspec.Raw(encode(decision)) for decision in decisions], msgspec.Raw(orders))


def quiet(offset: int, ts: int) -> QuietDecision:
    return QuietDecision(0, offset, ts, "model", b"1234", [("list", 1)])


def test_decisions_are_split_where_their_windows_end():
    decisions = split_quiet(stored(quiet(1, 500), quiet(2, 300), quiet(3, 400)), 400 + CLICK_WINDOW_MS)
    assert decisions is not None
    assert [head.offset for head in decisions.closed] == [2]
    assert [msgspec.msgpack.decode(raw)[1] for raw in decisions.open] == [1, 3]
    assert decisions.next_closing == 400 + CLICK_WINDOW_MS


def test_nothing_remains_of_decisions_that_are_all_over():
    decisions = split_quiet(stored(quiet(1, 500)), 501 + CLICK_WINDOW_MS)
    assert decisions is not None
    assert (decisions.open, decisions.next_closing) == ([], None)


REACTED = OpenDecision(0, 1, 500, "model", b"1234", [("list", 1)], reactions=[Reaction(0, 0, 501, b"f")])


@pytest.mark.parametrize("ledger", [stored(quiet(0, 500), REACTED), stored(quiet(0, 500), orders=b"\x91\x00")])
def test_decisions_with_a_reaction_or_an_order_must_be_read(ledger: StoredLedger):
    assert split_quiet(ledger, 0) is None


def test_timer_of_a_decision_that_went_for_a_newer_one_closes_none_of_the_others():
    ledger = ledger_of(Ledger)
    for number in range(MAX_DECISIONS + 1):
        ledger.open(opening(minute=10 if number else 0), number, is_machine=False)
    ledger.flush(MAX_DECISIONS)
    ledger.take_results()
    ledger.advance(closing_time(0), 98)
    assert (ledger.take_results().outcomes, ledger.flush(98)) == ([], [])
    ledger.advance(closing_time(10), 99)
    assert len(ledger.take_results().outcomes) == MAX_DECISIONS
