"""Outcomes and charges: any interleaving, any repeat and any restart leads to what a plain oracle says."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickscore.schemas.decisions import PLAIN_LIST, BidUnit, ShownShelf, comparison_variant
from clickscore.schemas.durations import DAY_MS, MINUTE_MS
from clickscore.schemas.events import AnyEvent, Cart, Click, Impression, Purchase
from clickscore.schemas.open_decisions import (
    CLICK,
    IMPRESSION,
    MAX_DECISIONS,
    MAX_ORDERS,
    MAX_REACTIONS,
    MAX_WINDOW_MS,
    PURCHASE,
    Billing,
    OpenDecision,
    OpenSlot,
    OrderLine,
    Reaction,
    UserLedger,
    decode_ledger,
    encode_ledger,
)
from clickscore.schemas.outcomes import AdCharge, DecisionOutcome, LineOutcome
from clickscore.schemas.purposes import ADS
from clickscore.stream.budgets.partition_budgets import PartitionBudgets
from clickscore.stream.ledger_pass import add_results
from clickscore.stream.pipeline_records import Output
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.attribution import judge_clicks
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.state.charges import sum_amounts
from clickscore.stream.state.ledger import (
    Ledger,
    OpeningDecision,
)
from clickscore.stream.state.partition import PartitionState
from clickscore.stream.state.remembered_decisions import CLICK_WINDOW_MS, remove_decisions
from tests.events import START, view
from tests.stream.state.test_ledger import ads, choices, sold, sponsored

SECOND = 1_000
EVENTS: dict[str, Any] = {"impression": Impression, "click": Click, "cart": Cart, "purchase": Purchase}


class Page(NamedTuple):
    """A page with two items and an ad beside them."""

    second: int
    items: tuple[str, str]
    ad_item: str
    bid_per: BidUnit
    view_s: int
    purchase_s: int

    @property
    def ts(self) -> int:
        return START + self.second * SECOND


class Step(NamedTuple):
    """An event of the user."""

    kind: str
    ms: int
    item: str
    page: int | None
    is_ad: bool
    number: int

    @property
    def ts(self) -> int:
        return START + self.ms


def ledger_of(pages: Sequence[Page]) -> PartitionState:
    state = PartitionState("events-0", SessionSettings())
    for offset, page in enumerate(pages):
        slot = msgspec.structs.replace(
            sold("tea", page.ad_item),
            bid_per=page.bid_per,
            price=2.0,
            view_window_ms=page.view_s * SECOND,
            purchase_window_ms=page.purchase_s * SECOND,
        )
        opening = OpeningDecision("ann", page.ts, "model", [ShownShelf("list", choices(*page.items))], ads(slot))
        state.ledger.open(opening, offset, is_machine=False)
    return state


def event_of(step: Step) -> AnyEvent:
    values: dict[str, Any] = {
        "event_id": f"e-{step.number}",
        "user_id": "ann",
        "ts": step.ts,
        "item_id": step.item,
        "decision_id": None if step.page is None else f"events-0-{step.page}",
        "campaign_id": "tea" if step.is_ad else None,
    }
    if step.kind == "purchase":
        values |= {"price": 3.5, "quantity": 2}
    return EVENTS[step.kind](**values)


# The oracle

Stated = tuple[int, int, int, int, int, int, float]
"""Line, impressions, clicks, valid clicks, carts, purchases and revenue."""


def line_of(page: Page, item: str, *, is_ad: bool) -> int | None:
    if not is_ad and item in page.items:
        return page.items.index(item)
    return 2 if item == page.ad_item else None


def expected(
    pages: Sequence[Page], steps: Sequence[Step], *, is_machine: bool
) -> tuple[dict[int, list[Stated]], float]:
    """Return the lines of each page and the sum of charges, from the set of events alone."""
    once = {step.number: step for step in steps}.values()
    touches: dict[tuple[int, int], list[Step]] = defaultdict(list)
    for step in once:
        if step.kind in ("impression", "click") and step.page is not None and step.page < len(pages):
            page = pages[step.page]
            line = line_of(page, step.item, is_ad=step.is_ad)
            if line is not None and page.ts <= step.ts <= page.ts + CLICK_WINDOW_MS:
                touches[step.page, line].append(step)
    brought: dict[tuple[int, int], list[Step]] = defaultdict(list)
    for step in once:
        if step.kind in ("cart", "purchase") and any(line_of(p, step.item, is_ad=False) is not None for p in pages):
            place = bringer(pages, touches, step)
            if place is not None:
                brought[place].append(step)
    valid = valid_clicks(touches) if not is_machine else set[int]()
    lines: dict[int, list[Stated]] = {number: [] for number in range(len(pages))}
    net = 0.0
    for place in sorted({*touches, *brought}):
        seen = [step for step in touches[place] if step.kind == "impression"]
        clicks = [step for step in touches[place] if step.kind == "click"]
        bought = [step for step in brought[place] if step.kind == "purchase"]
        if place[1] == 2 and not is_machine:
            net += charge(pages[place[0]], seen, [c for c in clicks if c.number in valid], bought)
        lines[place[0]].append((place[1], len(seen), len(clicks), len({c.number for c in clicks} & valid),
                                len(brought[place]) - len(bought), len(bought), 7.0 * len(bought)))  # fmt: skip
    return lines, round(net, 9)


def bringer(pages: Sequence[Page], touches: dict[tuple[int, int], list[Step]], order: Step) -> tuple[int, int] | None:
    def window(place: tuple[int, int], kind: str) -> int:
        if place[1] < 2:
            return DAY_MS if kind == "click" else -1
        page = pages[place[0]]
        return SECOND * (page.purchase_s if kind == "click" else page.view_s or -1)

    if order.page is not None and order.page < len(pages):
        line = line_of(pages[order.page], order.item, is_ad=order.is_ad)
        if line is not None:
            place = order.page, line
            times = [step.ts for step in touches.get(place, ()) if step.ts <= order.ts]
            since = max(times, default=pages[order.page].ts)
            if since <= order.ts <= since + window(place, "click"):
                return place
    for kind in ("click", "impression"):
        found = [
            (step.ts, pages[place[0]].ts, place)
            for place, steps in touches.items()
            for step in steps
            if step.kind == kind and step.item == order.item and 0 <= order.ts - step.ts <= window(place, kind)
        ]
        if found:
            return max(found)[-1]
    return None


def valid_clicks(touches: dict[tuple[int, int], list[Step]]) -> set[int]:
    """Return the numbers of the clicks that a person may have made."""
    everything = [(step, place) for place, steps in touches.items() for step in steps]
    clicks = [(step, place) for step, place in everything if step.kind == "click"]
    valid: set[int] = set()
    for click, place in clicks:
        earlier = [s for s, where in everything if s.kind == "impression" and where == place and s.ts <= click.ts]
        others = [s for s, _ in clicks if s.item == click.item and s.number != click.number]
        is_repeat = any(0 < click.ts - other.ts < 10 * SECOND for other in others)
        if earlier and click.ts - min(s.ts for s in earlier) >= 200 and not is_repeat:
            valid.add(click.number)
    return valid


def charge(page: Page, seen: list[Step], clicks: list[Step], bought: list[Step]) -> float:
    if page.bid_per == "thousand_impressions":
        return 0.002 if seen else 0.0
    return 2.0 if (clicks if page.bid_per == "click" else bought) else 0.0


# The laws


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Page], list[Step]]:
    item = st.sampled_from(("cup", "mug", "pot"))
    page = st.builds(
        Page,
        st.integers(0, 100),
        st.sampled_from((("cup", "mug"), ("mug", "pot"))),
        item,
        st.sampled_from(("click", "thousand_impressions", "order")),
        st.sampled_from((0, 30)),
        st.sampled_from((20, 600)),
    )
    pages = draw(st.lists(page, min_size=1, max_size=4))
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from(tuple(EVENTS)),
                st.integers(0, 150_000),
                item,
                st.one_of(st.none(), st.integers(0, 4)),
                st.booleans(),
            ),
            max_size=14,
            unique_by=lambda values: values[1],  # equal times are a draw, for which any order is right
        )
    )
    return pages, [Step(*values, number) for number, values in enumerate(drawn)]


def lines_of(outcome: DecisionOutcome) -> list[Stated]:
    return [
        (
            2 if line.position is None else line.position,
            line.impressions,
            line.clicks,
            line.valid_clicks,
            line.carts,
            line.purchases,
            line.revenue,
        )
        for line in outcome.lines
    ]


@settings(max_examples=300)
@given(cases(), st.randoms(use_true_random=False), st.booleans(), st.integers(0, 20))
def test_any_order_any_repeat_and_any_restart_lead_to_what_the_oracle_says(
    case: tuple[list[Page], list[Step]], random: Any, is_machine: bool, restart: int
):
    pages, steps = case
    state = ledger_of(pages)
    arrivals = [*steps, *random.sample(steps, len(steps) // 2)]
    random.shuffle(arrivals)
    changes: list[ChangelogRecord] = []
    charges: list[AdCharge] = []
    for number, step in enumerate(arrivals):
        state.ledger.pass_event(event_of(step), 10 + number, is_machine=False)
        if number == restart:
            charges += state.ledger.take_results().charges
            changes = state.flush_ledger(10 + number)
            state = restore(changes, "events-0", SessionSettings())
    if is_machine:
        state.ledger.pass_event(view("ann", 3), 90, is_machine=True)
    state.ledger.advance(START + 200 * SECOND + CLICK_WINDOW_MS + 6 * MINUTE_MS, 99)
    results = state.ledger.take_results()
    charges += results.charges
    lines, net = expected(pages, steps, is_machine=is_machine)
    assert {int(o.decision_id.rpartition("-")[2]): lines_of(o) for o in results.outcomes} == lines
    assert {outcome.revision for outcome in results.outcomes} == {0}
    assert round(sum(each.net for each in charges), 9) == net
    stated = [line for outcome in results.outcomes for line in outcome.lines]
    assert round(sum(line.net for line in stated), 9) == net
    assert round(sum(each.gross for each in charges), 9) == round(sum(line.gross for line in stated), 9)
    assert len({each.charge_id for each in charges}) == len(charges)


@st.composite
def remembered(draw: st.DrawFn) -> tuple[UserLedger, list[tuple[int, Reaction]]]:
    """Return a ledger of three decisions, and late impressions with the decision of each."""
    ledger = UserLedger([OpenDecision(0, offset, START, "model", b"") for offset in range(3)])
    drawn = st.tuples(st.integers(0, 2), st.sampled_from("aab"), st.integers(0, 15).map(lambda second: second * SECOND))
    late: list[tuple[int, Reaction]] = []
    for kind in (IMPRESSION, CLICK):
        for index, item, ms in draw(st.lists(drawn, min_size=2, max_size=6, unique_by=lambda values: values[2])):
            fingerprint = bytes([kind, index, *item.encode(), *ms.to_bytes(5)])
            reaction = Reaction(kind, "ab".index(item), START + ms, fingerprint, item)
            if kind == IMPRESSION and draw(st.booleans()):
                late.append((index, reaction))
            else:
                ledger.decisions[index].reactions.append(reaction)
    return ledger, late


@settings(max_examples=150)
@given(remembered(), st.integers(0, 2), st.booleans())
def test_verdict_on_a_click_is_the_same_where_other_decisions_are_forgotten_before_an_impression_comes(
    case: tuple[UserLedger, list[tuple[int, Reaction]]], forgotten: int, is_machine: bool
):
    whole, late = case
    whole.is_machine = is_machine
    ledger = decode_ledger(encode_ledger(whole))
    remove_decisions(ledger, [ledger.decisions[forgotten]])
    remaining = {decision.offset: decision for decision in ledger.decisions}
    for index, reaction in late:
        whole.decisions[index].reactions.append(reaction)
        if index in remaining:
            remaining[index].reactions.append(reaction)
    kept = {reaction.fingerprint for decision in ledger.decisions for reaction in decision.reactions}
    verdicts = {fingerprint: reason for fingerprint, reason in judge_clicks(whole).items() if fingerprint in kept}
    assert judge_clicks(ledger) == verdicts


# Single cases


CLOSED = START + CLICK_WINDOW_MS + 6 * MINUTE_MS
"""Event time at which the decisions of the first minute have closed."""


def page(bid_per: BidUnit = "click", second: int = 0, view_s: int = 0, purchase_s: int = 7_200) -> Page:
    return Page(second, ("cup", "mug"), "pot", bid_per, view_s, purchase_s)


def passed(
    state: PartitionState, *steps: Step, is_machine: bool = False
) -> tuple[list[DecisionOutcome], list[AdCharge]]:
    for step in steps:
        state.ledger.pass_event(event_of(step), 50 + step.number, is_machine=is_machine)
    results = state.ledger.take_results()
    return results.outcomes, results.charges


def closed(state: PartitionState, ts: int = CLOSED) -> list[DecisionOutcome]:
    state.ledger.advance(ts, 99)
    return state.ledger.take_results().outcomes


def seen(number: int = 0, ms: int = 1_000, item: str = "cup", page: int = 0, *, is_ad: bool = False) -> Step:
    return Step("impression", ms, item, page, is_ad, number)


def clicked(number: int = 1, ms: int = 5_000, item: str = "cup", page: int = 0, *, is_ad: bool = False) -> Step:
    return Step("click", ms, item, page, is_ad, number)


def bought(number: int = 2, ms: int = 60_000, item: str = "cup", page: int | None = None) -> Step:
    return Step("purchase", ms, item, page, is_ad=False, number=number)


def test_every_decision_gets_one_record_also_without_a_reaction():
    assert closed(ledger_of([page()])) == [
        DecisionOutcome(decision_id="events-0-0", user_id="ann", ts=START, variant="model")
    ]


def test_order_after_the_click_window_is_a_correction():
    state = ledger_of([page()])
    passed(state, seen(), clicked())
    assert [outcome.revision for outcome in closed(state)] == [0]
    ((correction,), _) = passed(state, bought(ms=3_600_000))
    (line,) = correction.lines
    assert (correction.revision, line.purchases, line.revenue) == (1, 1, 7.0)
    assert passed(state, bought(ms=3_600_000)) == ([], [])  # a repeat
    assert passed(state, bought(3, ms=DAY_MS + 6_000)) == ([], [])  # a day after the click


def test_decision_is_forgotten_when_its_last_window_is_over():
    state = ledger_of([page()])
    passed(state, seen(), clicked())
    assert len(closed(state)) == 1
    assert closed(state, CLOSED + DAY_MS) == []
    assert state.ledger.user("ann").decisions == []


def test_machine_that_is_found_later_gets_the_money_back_and_corrects_the_outcome():
    state = ledger_of([page()])
    _, (charge,) = passed(state, seen(0, item="pot", is_ad=True), clicked(1, item="pot", is_ad=True))
    assert (charge.net, charge.gross, charge.reason, charge.campaign_id) == (2.0, 2.0, "charged", "tea")
    closed(state)
    state.ledger.pass_event(view("ann", 40), 60, is_machine=True)
    results = state.ledger.take_results()
    (credit,), (correction,) = results.charges, results.outcomes
    assert (credit.net, credit.gross, credit.reason) == (-2.0, 0.0, "machine")
    assert [(line.clicks, line.valid_clicks, line.gross, line.net) for line in correction.lines] == [(1, 0, 2.0, 0.0)]
    state.ledger.pass_event(view("ann", 41), 61, is_machine=True)
    assert state.ledger.take_results().charges == []


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((clicked(item="pot", is_ad=True),), "no impression"),
        ((seen(ms=4_900, item="pot", is_ad=True), clicked(item="pot", is_ad=True)), "too fast"),
        (
            (
                seen(item="pot", is_ad=True),
                clicked(item="pot", is_ad=True),
                clicked(2, ms=9_000, item="pot", is_ad=True),
            ),
            "repeated",
        ),
        (
            (
                seen(item="pot", is_ad=True),
                clicked(item="pot", is_ad=True),
                clicked(2, ms=90_000, item="pot", is_ad=True),
            ),
            "repeated",
        ),
    ],
)
def test_invalid_click_is_counted_gross_and_not_charged(steps: tuple[Step, ...], reason: str):
    state = ledger_of([page()])
    passed(state, *steps[:-1])
    _, (charge,) = passed(state, steps[-1])
    assert (charge.gross, charge.net, charge.reason) == (2.0, 0.0, reason)


def test_click_before_its_impression_arrives_is_charged_with_the_impression():
    state = ledger_of([page()])
    assert [c.net for c in passed(state, clicked(item="pot", is_ad=True))[1]] == [0.0]
    assert [(c.gross, c.net) for c in passed(state, seen(item="pot", is_ad=True))[1]] == [(0.0, 2.0)]


def test_click_of_a_machine_is_not_charged():
    state = ledger_of([page()])
    _, charges = passed(state, seen(item="pot", is_ad=True), clicked(item="pot", is_ad=True), is_machine=True)
    assert [(c.gross, c.net, c.reason) for c in charges] == [(2.0, 0.0, "machine")]


def test_order_that_moves_to_a_later_click_is_given_back():
    state = ledger_of([page("order"), page("order", second=10)])
    passed(state, clicked(1, 5_000, "pot", is_ad=True), bought(2, item="pot"))
    _, charges = passed(state, clicked(3, 20_000, "pot", page=1, is_ad=True))
    assert [(c.decision_id, c.net, c.reason) for c in charges] == [
        ("events-0-0", -2.0, "order moved"),
        ("events-0-1", 2.0, "charged"),
    ]


def test_order_counts_for_an_impression_only_within_the_view_window_of_the_campaign():
    for view_s, purchases in ((0, 0), (30, 0), (60, 1)):
        state = ledger_of([page(view_s=view_s)])
        passed(state, seen(item="pot", is_ad=True), bought(item="pot"))
        assert sum(line.purchases for outcome in closed(state) for line in outcome.lines) == purchases


def test_repeat_stays_a_repeat_when_the_first_click_is_forgotten():
    state = ledger_of([page(purchase_s=1), page(purchase_s=100_000)])
    passed(state, *(seen(n, item="pot", page=n, is_ad=True) for n in range(2)))
    passed(state, clicked(2, 5_000, "pot", 0, is_ad=True), clicked(3, 9_000, "pot", 1, is_ad=True))
    closed(state)
    assert [decision.offset for decision in state.ledger.user("ann").decisions] == [1]
    assert passed(state, seen(9, 70_000, "pot", 1, is_ad=True))[1] == []


def test_forgotten_user_has_no_outcome():
    state = ledger_of([page()])
    passed(state, seen(), clicked())
    state.ledger.forget("ann", 60)
    assert closed(state) == []


def test_ads_of_a_user_without_consent_to_ads_are_not_joined():
    ledger = Ledger("events-0", SessionSettings(), PartitionBudgets(0))
    shelves = [ShownShelf("list", (*choices("cup"), sponsored("tea", "pot")))]
    opening = OpeningDecision("ann", START, "model", shelves, ads(sold("tea", "pot", position=1)), ADS)
    ledger.open(opening, 0, is_machine=False)
    for step in (seen(), clicked(1, item="pot", is_ad=True), clicked(2, item="pot")):
        ledger.pass_event(event_of(step), 1, is_machine=False)
    ledger.advance(CLOSED, 9)
    results = ledger.take_results()
    assert results.feedback == {"joined": 1, "unknown": 2}
    assert results.charges == []
    assert [(o.withheld, [line.item_id for line in o.lines]) for o in results.outcomes] == [(("ads",), ["cup"])]


def test_decision_without_a_reaction_closes_early_where_there_are_too_many():
    state = ledger_of([page(second=number) for number in range(MAX_DECISIONS)])
    passed(state, seen(0), clicked(1))
    opening = OpeningDecision("ann", START + 50 * SECOND, "model", [ShownShelf("list", choices("cup"))], None)
    state.ledger.open(opening, 77, is_machine=False)
    assert [outcome.decision_id for outcome in state.ledger.take_results().outcomes] == ["events-0-1"]
    assert state.ledger.user("ann").decisions[0].offset == 0


def test_remembered_orders_are_bounded():
    state = ledger_of([page()])
    for number in range(MAX_ORDERS + 1):
        state.ledger.pass_event(event_of(bought(number, page=0)), 60, is_machine=False)
    assert state.ledger.take_results().feedback == {"joined": MAX_ORDERS, "overflow": 1}


def test_orders_from_before_the_oldest_open_decision_are_forgotten_with_the_older_ones():
    state = ledger_of([page(), page(second=1_000)])
    for number in range(MAX_ORDERS):
        state.ledger.pass_event(event_of(bought(number, ms=60_000)), 60, is_machine=False)
    passed(state, bought(MAX_ORDERS, ms=1_010_000))
    assert len(state.ledger.user("ann").orders) == MAX_ORDERS, "the last one has no room"
    state.ledger.advance(START + 1_900 * SECOND + SessionSettings().lateness_ms, 98)
    assert [decision.offset for decision in state.ledger.user("ann").decisions] == [1]
    passed(state, bought(MAX_ORDERS + 1, ms=1_020_000))
    assert [order.ts for order in state.ledger.user("ann").orders] == [START + 1_020_000]


def test_orders_are_bounded_after_a_hand_over_too():
    state, heir = ledger_of([page()]), ledger_of([page()])
    for number in range(MAX_ORDERS):
        heir.ledger.pass_event(event_of(bought(number)), 60, is_machine=False)
    passed(state, bought(MAX_ORDERS + 1))
    heir.ledger.receive("ann", handed(state), 99, ts=START, withheld=0)
    assert len(heir.ledger.user("ann").orders) == MAX_ORDERS


def test_ads_are_forgotten_without_consent_to_ads():
    state = ledger_of([page()])
    passed(state, seen(item="pot", is_ad=True))
    state.ledger.forget_ads("ann", 60)
    assert passed(state, clicked(item="pot", is_ad=True))[1] == []
    assert [len(decision.slots) for decision in state.ledger.user("ann").decisions] == [0]
    state.ledger.forget_ads("bob", 61)
    assert state.ledger.user("bob").decisions == []


def test_order_of_what_no_decision_shows_is_not_remembered():
    state = ledger_of([page()])
    assert passed(state, bought(item="hat", page=0)) == ([], [])
    assert state.ledger.user("ann").orders == []


def test_reactions_and_revenue_are_counted_by_variant_and_placement():
    state = ledger_of([page()])
    for step in (seen(), clicked(), bought(), seen(5, item="pot", is_ad=True)):
        state.ledger.pass_event(event_of(step), 60, is_machine=False)
    results = state.ledger.take_results()
    assert results.reactions == {
        ("impression", "model", "list"): 1,
        ("click", "model", "list"): 1,
        ("purchase", "model", "list"): 1,
        ("impression", "model", "page"): 1,
    }
    assert results.revenue == {("model", "list"): 7.0}


def test_end_of_a_log_closes_every_decision():
    state = ledger_of([page(), page(second=5)])
    state.ledger.close_all()
    assert [o.decision_id for o in state.ledger.take_results().outcomes] == ["events-0-0", "events-0-1"]
    state.ledger.close_all()
    assert state.ledger.take_results().outcomes == []


def test_outcome_names_items_lists_and_campaigns():
    state = ledger_of([page()])
    passed(state, seen(), seen(1, item="pot", is_ad=True), bought(2, item="mug", page=0))
    (outcome,) = closed(state)
    assert outcome.lines == (
        LineOutcome(item_id="cup", placement="list", position=0, impressions=1),
        LineOutcome(item_id="mug", placement="list", position=1, purchases=1, revenue=7.0),
        LineOutcome(item_id="pot", placement="page", campaign_id="tea", impressions=1),
    )


# Hand-overs


def handed(state: PartitionState) -> UserLedger:
    ledger = state.ledger.hand_over("ann", 70)
    assert ledger is not None
    return decode_ledger(encode_ledger(ledger))


def receiver() -> PartitionState:
    return PartitionState("events-1", SessionSettings())


def test_order_after_a_login_counts_for_the_decision_of_the_anonymous_id():
    state, heir = ledger_of([page()]), receiver()
    passed(state, seen(), clicked())
    heir.ledger.receive("user", handed(state), 5, ts=START, withheld=0)
    assert state.ledger.user("ann").decisions == []
    assert closed(state) == []
    buys = msgspec.structs.replace(event_of(bought()), user_id="user")
    heir.ledger.pass_event(buys, 6, is_machine=False)
    (outcome,) = closed(heir)
    assert (outcome.decision_id, outcome.user_id, outcome.lines[0].purchases) == ("events-0-0", "user", 1)


def test_nothing_is_handed_over_without_open_decisions():
    assert receiver().ledger.hand_over("ann", 1) is None


def test_handed_decisions_join_those_of_the_user_within_the_bound():
    state = ledger_of([page(second=number) for number in range(20)])
    heir = ledger_of([page(second=number) for number in range(20)])
    passed(heir, bought(7))
    passed(state, bought(7), bought(8))
    arrived = handed(state)
    for decision in arrived.decisions:
        decision.partition = 2
    heir.ledger.receive("ann", arrived, 99, ts=START, withheld=0)
    ledger = heir.ledger.user("ann")
    assert (len(ledger.decisions), len(ledger.orders)) == (MAX_DECISIONS, 2)
    assert len(heir.ledger.take_results().outcomes) == 8


def test_paid_click_is_handed_over_as_it_was_paid():
    state, heir = ledger_of([page()]), receiver()
    _, (charge,) = passed(state, seen(0, item="pot", is_ad=True), clicked(1, item="pot", is_ad=True))
    heir.ledger.receive("user", handed(state), 5, ts=START, withheld=0)
    (decision,) = heir.ledger.user("user").decisions
    assert [(billing.net, billing.paid) for billing in decision.billing] == [(charge.net, charge.net)]
    assert charge.net == 2.0


def test_user_without_consent_to_ads_takes_no_ad_over():
    state, heir = ledger_of([page()]), receiver()
    passed(state, seen(item="pot", is_ad=True))
    heir.ledger.receive("user", handed(state), 5, ts=START, withheld=ADS)
    assert [decision.slots for decision in heir.ledger.user("user").decisions] == [[]]


EVENT = b"12345678"
"""Fingerprint of an event."""


def decision_at(price: float, net: float = 0.0, **slot_fields: Any) -> OpenDecision:
    """Return an open decision with a sold slot.

    Args:
        price: Price of a click.
        net: What the slot has cost.
        slot_fields: Further fields of the slot.
    """
    slot = msgspec.structs.replace(SLOT, price=price, **slot_fields)
    return OpenDecision(0, 0, START, "model", b"", slots=[slot], billing=[Billing(1, 1, net)])


SLOT = OpenSlot(0, "beside", "tea", "pot", "click", 1.0)
ORDER = OrderLine(PURCHASE, "pot", START, 1.0, EVENT, campaign_id="tea")


@pytest.mark.parametrize("variant", ["model", "popular", "challenger"])
@pytest.mark.parametrize("has_model_items", [True, False])
@pytest.mark.parametrize("is_machine", [True, False])
def test_sound_ledger_of_a_hand_over_is_read(variant: str, has_model_items: bool, is_machine: bool):
    counted = comparison_variant(variant, has_model_items=has_model_items, is_machine=is_machine)
    reactions = [Reaction(CLICK, 0, START, EVENT, "pot")]
    changes = {"variant": counted, "shelves": [(PLAIN_LIST, 0)], "reactions": reactions}
    ledger = UserLedger([msgspec.structs.replace(decision_at(1.0, 1.0), **changes)], [ORDER])
    assert decode_ledger(encode_ledger(ledger)) == ledger


@pytest.mark.parametrize(
    "value",
    [
        b"garbage",
        encode_ledger(UserLedger([OpenDecision(0, 0, START, "model", b"cut")])),
        encode_ledger(UserLedger([OpenDecision(0, 0, START, "model", b"", billing=[Billing()])])),
        encode_ledger(UserLedger([OpenDecision(0, 0, START, "model", b"", reactions=[Reaction(9, 0, START, EVENT)])])),
        encode_ledger(UserLedger([decision_at(math.nan)])),
        encode_ledger(UserLedger([decision_at(-1.0)])),
        encode_ledger(UserLedger([decision_at(1e300)])),
        encode_ledger(UserLedger([decision_at(1.0, math.nan)])),
        encode_ledger(UserLedger([decision_at(1.0)] * (MAX_DECISIONS + 1))),
        *(
            encode_ledger(UserLedger([decision_at(1.0, expected=expected)]))
            for expected in (math.nan, math.inf, -1e9, 1.001, 1e-300)
        ),
        encode_ledger(UserLedger([decision_at(1.0, view_window_ms=MAX_WINDOW_MS + 1)])),
        encode_ledger(UserLedger([decision_at(1.0, purchase_window_ms=-1)])),
        *(
            encode_ledger(UserLedger([msgspec.structs.replace(decision_at(1.0), **changes)]))
            for changes in (
                {"partition": -1},
                {"offset": 2**53 + 1},
                {"ts": 1_000},
                {"ts": 10**15},
                {"reactions": [Reaction(CLICK, 0, 10**15, EVENT)]},
                {"reactions": [Reaction(CLICK, 0, START, b"1234567")]},
                {"reactions": [Reaction(CLICK, 0, START, EVENT, "x" * 257)]},
                {"variant": "x" * 1000},
                {"variant": "Model"},
                {"shelves": [("free text", 1)]},
                {"shelves": [("list\n", 1)]},
                *(
                    {"slots": [msgspec.structs.replace(SLOT, **names)], "billing": []}
                    for names in (
                        {"placement": "x" * 65},
                        {"campaign_id": ""},
                        {"campaign_id": "x" * 257},
                        {"item_id": ""},
                        {"item_id": "x" * 257},
                    )
                ),
                {"revisions": 2**64 - 1},
                {"shelves": [("list", -1)]},
                {"billing": [Billing(2**64 - 1)]},
                {"billing": [Billing(1, 2**64 - 1)]},
                {"billing": [Billing(1, 1, 1.0, math.inf)]},
            )
        ),
        *(
            encode_ledger(UserLedger(orders=[msgspec.structs.replace(ORDER, **changes)]))
            for changes in (
                {"kind": CLICK},
                {"item_id": ""},
                {"item_id": "x" * 257},
                {"campaign_id": "x" * 257},
                {"fingerprint": EVENT * 2},
                {"ts": 10**15},
                {"revenue": 1e300},
                {"revenue": math.inf},
            )
        ),
        encode_ledger(UserLedger(orders=[ORDER] * (MAX_ORDERS + 1))),
        encode_ledger(
            UserLedger(
                [
                    OpenDecision(
                        0, 0, START, "model", b"", reactions=[Reaction(CLICK, 0, START, EVENT)] * (MAX_REACTIONS + 1)
                    )
                ]
            )
        ),
    ],
)
def test_damaged_ledger_of_a_hand_over_is_refused(value: bytes):
    with pytest.raises(ValueError, match="open decision"):
        decode_ledger(value)


@pytest.mark.parametrize("expected", [0.0, 1e-6, 1.0])
def test_handed_probability_of_a_click_is_read(expected: float):
    (decision,) = decode_ledger(encode_ledger(UserLedger([decision_at(1.0, expected=expected)]))).decisions
    assert decision.slots[0].expected == expected


def test_newest_time_of_a_ledger_is_that_of_its_newest_decision_reaction_or_order():
    reactions = [Reaction(CLICK, 0, START + 5, b"")]
    decisions = [OpenDecision(0, 0, START + 3, "model", b"", reactions=reactions)]
    assert UserLedger().newest_ts == 0
    assert UserLedger(decisions).newest_ts == START + 5
    assert UserLedger(decisions, [OrderLine(PURCHASE, "pot", START + 7, 1.0, b"")]).newest_ts == START + 7


def test_order_that_names_a_page_without_the_item_counts_for_the_last_click():
    state = ledger_of([page(), Page(10, ("mug", "hat"), "pot", "click", 0, 60)])
    passed(state, clicked(1, 20_000, "hat", page=1), bought(2, item="hat", page=0))
    assert [sum(line.purchases for line in outcome.lines) for outcome in closed(state)] == [0, 1]


def test_repeat_is_not_charged_where_its_impression_comes_after_the_first_click_is_forgotten():
    state = ledger_of([page(), *(page(second=number) for number in range(1, MAX_DECISIONS))])
    last = MAX_DECISIONS - 1
    passed(state, seen(0, 40_000, "pot", is_ad=True), clicked(1, 41_000, "pot", is_ad=True))
    passed(state, *(seen(100 + number, 40_000, page=number) for number in range(1, MAX_DECISIONS)))
    _, charges = passed(state, clicked(2, 42_000, "pot", page=last, is_ad=True))
    assert [charge.net for charge in charges] == [0.0]
    opening = OpeningDecision("ann", START + 43 * SECOND, "model", [ShownShelf("list", choices("cup"))], None)
    state.ledger.open(opening, 77, is_machine=False)
    assert state.ledger.user("ann").decisions[0].offset == 1
    _, charges = passed(state, seen(3, 41_500, "pot", page=last, is_ad=True))
    assert sum(charge.net for charge in charges) == 0


def test_oldest_decision_goes_where_all_have_reactions():
    state = ledger_of([page(second=number) for number in range(MAX_DECISIONS)])
    passed(state, *(clicked(number, 40_000 + number, page=number) for number in range(MAX_DECISIONS)))
    assert len(closed(state)) == MAX_DECISIONS
    opening = OpeningDecision("ann", CLOSED, "model", [ShownShelf("list", choices("cup"))], None)
    state.ledger.open(opening, 77, is_machine=False)
    assert state.ledger.take_results().outcomes == []
    assert state.ledger.user("ann").decisions[0].offset == 1


def test_amounts_are_summed_gross_net_and_credit():
    state = ledger_of([page()])
    _, charges = passed(state, seen(0, item="pot", is_ad=True), clicked(1, item="pot", is_ad=True))
    _, given_back = passed(state, clicked(2, 9_000, "pot", is_ad=True), is_machine=True)
    assert sum_amounts([*charges, *given_back]) == {"gross": 4.0, "net": 2.0, "credit": 2.0}
    assert sum_amounts([]) == {}


def test_results_are_added_to_those_that_the_output_of_a_batch_has():
    output, halves = Output(), [Output(), Output()]
    for half in halves:
        state = ledger_of([page()])
        for step in (seen(0, item="pot", is_ad=True), clicked(1, item="pot", is_ad=True), bought(2, item="pot")):
            state.ledger.pass_event(event_of(step), 9, is_machine=False)
        results = state.ledger.take_results()
        add_results(output, results)
        add_results(half, results)
    assert output.revenue == {label: 2 * amount for label, amount in halves[0].revenue.items()}
    assert output.charged == {label: 2 * amount for label, amount in halves[0].charged.items()}
    assert (sum(halves[0].revenue.values()), halves[0].charged["net"]) == (7.0, 2.0)
