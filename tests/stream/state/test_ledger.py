"""Ledger: open decisions are remembered within bounds, joined with their reactions, and restored."""

import pickle
from collections.abc import Sequence

import msgspec

from clickscore.schemas.decisions import Ad, Choice, ShownShelf, SoldSlot
from clickscore.schemas.events import Click, Impression
from clickscore.schemas.open_decisions import (
    CLICK,
    IMPRESSION,
    MAX_DECISIONS,
    MAX_REACTIONS,
    OpenDecision,
    item_hash,
    ledger_key,
)
from clickscore.schemas.snapshots import PARTITION_KEY, decode_user
from clickscore.stream.budgets.partition_budgets import PartitionBudgets
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.attribution import find_line
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.state.ledger import (
    MAX_CLOSURES,
    Ledger,
    OpeningDecision,
)
from clickscore.stream.state.partition import PartitionState
from clickscore.stream.state.remembered_decisions import CLICK_WINDOW_MS
from tests.events import MINUTE, START, view

LATENESS = SessionSettings().lateness_ms


def choices(*items: str) -> tuple[Choice, ...]:
    return tuple(Choice(item_id=item, score=0, propensity=1, reason="popular") for item in items)


def sponsored(campaign: str, item: str) -> Choice:
    return Choice(item_id=item, score=0, propensity=1, reason="sponsored", sponsored=True, campaign_id=campaign)


def sold(campaign: str, item: str, *, slot: int = 0, position: int | None = None) -> SoldSlot:
    return SoldSlot(
        placement="page",
        slot=slot,
        position=position,
        campaign_id=campaign,
        item_id=item,
        bid=1,
        bid_per="click",
        probability=0.1,
        quality=1,
        exposure=1,
        price=0.5,
        runner_up=None,
    )


def ads(*slots: SoldSlot) -> Ad:
    first = slots[0]
    return Ad(
        decision_id="events-0-0-ad",
        user_id="ann",
        event_id="e",
        ts=START,
        bundle=None,
        policy="p",
        variant="model",
        session_id="s",
        campaign_id=first.campaign_id,
        item_id=first.item_id,
        bid=1,
        purchase=None,
        propensity=1,
        reason="",
        slots=slots,
    )


def opening(
    user: str = "ann", minute: float = 0, items: Sequence[str] = ("cup", "mug"), ad: Ad | None = None
) -> OpeningDecision:
    return OpeningDecision(user, START + round(minute * MINUTE), "model", [ShownShelf("list", choices(*items))], ad)


def click(user: str, minute: float, decision: str, item: str = "cup", event_id: str = "") -> Click:
    ts = START + round(minute * MINUTE)
    return Click(
        event_id=event_id or f"{user}-{ts}-{item}",
        user_id=user,
        ts=ts,
        item_id=item,
        decision_id=decision,
    )


def opened(*openings: OpeningDecision) -> Ledger:
    ledger = Ledger("events-0", SessionSettings(), PartitionBudgets(0))
    for offset, each in enumerate(openings):
        ledger.open(each, offset, is_machine=False)
    return ledger


def reactions(ledger: Ledger, user: str = "ann") -> list[tuple[int, int]]:
    return [(each.kind, each.line) for decision in ledger.user(user).decisions for each in decision.reactions]


def test_machine_of_a_forgotten_decision_is_no_machine_in_the_same_batch_either():
    def contents(*, flushes: bool) -> dict[str, bytes]:
        ledger = Ledger("events-0", SessionSettings(), PartitionBudgets(0))
        ledger.open(opening(minute=0), 0, is_machine=True)
        ledger.advance(START + CLICK_WINDOW_MS + LATENESS + 2 * MINUTE, 1)
        if flushes:
            ledger.flush(1)
        ledger.open(opening(minute=60), 2, is_machine=False)
        ledger.flush(2)
        return ledger.contents()

    assert contents(flushes=False) == contents(flushes=True)


def test_click_joins_the_decision_that_it_names():
    ledger = opened(opening())
    ledger.pass_event(click("ann", 1, "events-0-0", "mug"), 1, is_machine=False)
    seen = Impression(event_id="i", user_id="ann", ts=START, item_id="cup", decision_id="events-0-0")
    ledger.pass_event(seen, 2, is_machine=False)
    assert reactions(ledger) == [(CLICK, 1), (IMPRESSION, 0)]
    assert ledger.take_results().feedback == {"joined": 2}


def test_event_without_a_decision_and_another_event_of_a_decision_join_nothing():
    ledger = opened(opening())
    ledger.pass_event(view("ann", 1, "cup"), 1, is_machine=False)
    assert not ledger.take_results().feedback


def test_what_names_no_open_decision_of_the_user_is_unknown():
    ledger = opened(opening())
    for event in (
        click("bob", 1, "events-0-0"),
        click("ann", 1, "events-0-7"),
        click("ann", 1, "events-1-0"),
        click("ann", 1, "events-0-x"),
        click("ann", 1, "events-0-00"),
        click("ann", 1, "events-00-0"),
        click("ann", 1, "events-0-0", "hat"),
        click("ann", -1, "events-0-0"),
        click("ann", 31, "events-0-0"),
    ):
        ledger.pass_event(event, 1, is_machine=False)
    assert ledger.take_results().feedback == {"unknown": 9}
    assert reactions(ledger) == []


def test_repeated_event_counts_once():
    ledger = opened(opening())
    for _ in range(2):
        ledger.pass_event(click("ann", 1, "events-0-0", event_id="e"), 1, is_machine=False)
    assert ledger.take_results().feedback == {"joined": 1, "repeated": 1}


def test_decision_remembers_a_bounded_number_of_reactions():
    ledger = opened(opening())
    for number in range(MAX_REACTIONS + 2):
        ledger.pass_event(click("ann", 1, "events-0-0", event_id=f"e{number}"), 1, is_machine=False)
    assert ledger.take_results().feedback == {"joined": MAX_REACTIONS, "overflow": 2}


def test_ad_is_named_by_its_campaign_or_by_an_item_that_is_in_the_slot_alone():
    page = ads(sold("tea", "cup", position=1), sold("oak", "tray", slot=1))
    shelves = [ShownShelf("list", choices("mug")), ShownShelf("ads", (sponsored("tea", "cup"),))]
    ledger = opened(OpeningDecision("ann", START, "model", shelves, page))
    (decision,) = ledger.user("ann").decisions
    assert find_line(decision, "cup", "tea") == 1
    assert find_line(decision, "tray", "oak") == 3
    assert find_line(decision, "tray", None) == 3
    assert find_line(decision, "tray", "tea") is None
    assert find_line(decision, "hat", None) is None


def test_bytes_of_two_neighbours_are_no_item():
    wanted = item_hash("cup")
    shifted = b"12" + wanted + b"34"
    decision = OpenDecision(0, 0, START, "model", shifted)
    assert find_line(decision, "cup", None) is None
    decision.items += wanted
    assert find_line(decision, "cup", None) == 2


def test_hashes_of_an_earlier_version_are_read():
    items = item_hash("cup", 8) + item_hash("mug", 8)
    decision = OpenDecision(0, 0, START, "model", items, [("list", 1), ("new_in", 1)])
    assert [find_line(decision, item, None) for item in ("cup", "mug", "hat")] == [0, 1, None]


def test_records_of_a_ledger_are_the_same_in_any_batch():
    page = ads(sold("tea", "pot"))
    steps = [
        opening(minute=0, ad=page),
        opening(minute=1),
        click("ann", 1.5, "events-0-1"),
        OpeningDecision("ann", START + 2 * MINUTE, "model", [ShownShelf("list", choices("cup"))], page, withheld=4),
        opening(minute=3),
        *(opening(minute=4 + number / 100) for number in range(MAX_DECISIONS)),
        click("ann", 5, "events-0-8"),
    ]
    contents: list[dict[str, bytes]] = []
    for batch in (1, 2, 3, len(steps)):
        ledger = opened()
        for offset, step in enumerate(steps):
            if isinstance(step, OpeningDecision):
                ledger.open(step, offset, is_machine=False)
            else:
                ledger.pass_event(step, offset, is_machine=False)
            if (offset + 1) % batch == 0:
                ledger.flush(offset)
        ledger.flush(len(steps))
        contents.append(ledger.contents())
        assert [outcome.decision_id for outcome in ledger.take_results().outcomes] == [
            f"events-0-{offset}" for offset in (0, 3, 4, 5)
        ], "those without a reaction go first"
    assert contents == contents[:1] * 4


def test_decision_without_a_reaction_takes_little_room():
    (change,) = opened(opening(items=[f"item-{number}" for number in range(10)])).flush(0)
    assert len(change.value or b"") < 100


def test_user_has_a_bounded_number_of_open_decisions():
    ledger = opened(*(opening(minute=number / 10) for number in range(MAX_DECISIONS + 1)))
    assert [decision.offset for decision in ledger.user("ann").decisions] == list(range(1, MAX_DECISIONS + 1))


def closing_time(minute: float = 0) -> int:
    """Return the newest event time at which a decision closes."""
    return START + round(minute * MINUTE) + CLICK_WINDOW_MS + LATENESS + MINUTE


def test_decision_closes_when_the_watermark_has_passed_its_window():
    ledger = opened(opening(), opening(minute=10))
    ledger.advance(closing_time() - MINUTE, 2)
    assert len(ledger.user("ann").decisions) == 2
    ledger.advance(closing_time(), 3)
    assert [decision.offset for decision in ledger.user("ann").decisions] == [1]
    ledger.advance(closing_time(10), 4)
    assert ledger.flush(4)[-1] == (ledger_key("ann"), None, 4)
    assert len(ledger) == 0


def test_decision_on_an_earlier_event_closes_earlier():
    ledger = opened(opening(minute=10), opening(minute=0))
    ledger.advance(closing_time(0), 2)
    assert [decision.offset for decision in ledger.user("ann").decisions] == [0]
    ledger.advance(closing_time(10), 3)
    assert ledger.user("ann").decisions == []


def test_one_record_closes_a_bounded_number():
    ledger = opened(*(opening(f"user-{number:03}") for number in range(MAX_CLOSURES + 5)))
    ledger.flush(99)
    ledger.advance(closing_time(), 100)
    ledger.flush(100)
    assert len(ledger) == 5
    ledger.advance(closing_time(), 101)
    ledger.flush(101)
    assert len(ledger) == 0


def test_forgotten_user_leaves_a_tombstone_and_no_timer():
    ledger = opened(opening(), opening("bob"))
    ledger.forget("ann", 2)
    ledger.forget("eve", 2)
    assert (ledger_key("ann"), None, 2) in ledger.flush(2)
    assert b"ann" not in pickle.dumps(ledger)
    assert b"bob" in pickle.dumps(ledger)


def test_user_who_comes_back_within_the_batch_has_a_timer():
    ledger = opened(opening())
    ledger.forget("ann", 1)
    ledger.open(opening(minute=1), 2, is_machine=False)
    ledger.flush(2)
    ledger.advance(closing_time(1), 3)
    assert ledger.user("ann").decisions == []


def test_ledger_is_restored_from_its_records():
    state = PartitionState("events-0", SessionSettings())
    state.advance(START, 0)
    state.ledger.open(opening(ad=ads(sold("tea", "pot"))), 0, is_machine=False)
    state.ledger.pass_event(click("ann", 1, "events-0-0"), 1, is_machine=False)
    changes = [*state.flush_ledger(1), *state.flush(1)]
    assert changes[-1].key == PARTITION_KEY
    heir = restore(changes, "events-0", SessionSettings())
    assert heir.contents() == state.contents()
    assert heir.ledger.user("ann") == state.ledger.user("ann")
    heir.ledger.advance(closing_time(), 2)
    assert [decision.revisions for decision in heir.ledger.user("ann").decisions] == [
        1
    ]  # an order may follow the click
    heir.ledger.advance(closing_time(24 * 60), 3)
    assert heir.ledger.user("ann").decisions == []


def test_record_of_the_ledger_is_an_empty_user_for_an_earlier_release():
    (change,) = opened(opening()).flush(0)
    user = decode_user(change.value or b"")
    assert (user.offset, user.length, user.bought, user.client) == (0, 0, [], 0)


def test_overlaid_record_is_written_again():
    state = PartitionState("events-0", SessionSettings())
    state.ledger.open(opening(), 5, is_machine=False)
    (written,) = state.flush_ledger(5)
    key = written.key.decode()
    assert state.is_overlaid(key, 4, is_tombstone=False)
    assert not state.is_overlaid(key, 5, is_tombstone=False)
    assert state.is_overlaid(ledger_key("bob"), 4, is_tombstone=False)
    assert not state.is_overlaid(ledger_key("bob"), 4, is_tombstone=True)
    state.rewrite([key, ledger_key("bob")])
    assert state.needs_flush
    state.flush(6)
    assert state.flush_ledger(6) == [written, ChangelogRecord(ledger_key("bob").encode(), None, 6)]
    assert not state.needs_flush


def test_expected_probability_of_a_click_is_at_most_1_whatever_the_rounding():
    state = PartitionState("events-0", SessionSettings())
    slots = [sold("round", "pot"), sold("zero", "mug", slot=1), sold("tea", "cup", slot=2)]
    ad = msgspec.structs.replace(ads(*slots), click_factors={"round": 0.000001, "zero": 0.0, "tea": 2.0})
    state.ledger.open(OpeningDecision("ann", START, "model", [], ad), 0, is_machine=False)
    (decision,) = state.ledger.user("ann").decisions
    assert [slot.expected for slot in decision.slots] == [1.0, 0.1, 0.05]
