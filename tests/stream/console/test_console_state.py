"""What a console knows, from the records that it has read."""

import msgspec

from clickscore.schemas.decisions import Ad, Choice, Shelf, decode_decision
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.erasure import Erased
from clickscore.schemas.events import encode_event
from clickscore.schemas.leases import CampaignSpend, SpendReport
from clickscore.schemas.topics import ERASURE_RECEIPTS, EVENTS
from clickscore.stream.console import console_state
from clickscore.stream.console.console_state import ConsoleState
from tests.stream.console.records import (
    START_MS,
    ad,
    charge,
    dead_letter,
    decision,
    event,
    item,
    lease,
    log_id,
    record,
    spend_report,
)


def state_of(*records: console_state.LogRecord) -> ConsoleState:
    state = ConsoleState()
    for each in records:
        state.receive(each)
    return state


def test_frame_has_completed_moments_since_the_cursor_with_titles() -> None:
    state = state_of(item("cup", "Blue cup"), item("pot", "Tea pot"), event(1), decision(1), ad(1), event(2))
    frame = state.frame(0, START_MS / 1000)
    assert [moment["id"] for moment in frame["moments"]] == [log_id(1)]
    assert msgspec.json.decode(msgspec.json.encode(frame["moments"][0]))["ad"]["slots"][0]["price"] == 0.5
    assert {name: known["title"] for name, known in frame["items"].items()} == {"cup": "Blue cup", "pot": "Tea pot"}
    state.receive(decision(2))
    later = state.frame(frame["cursor"], START_MS / 1000)
    assert [moment["id"] for moment in later["moments"]] == [log_id(2)]
    assert state.frame(later["cursor"], START_MS / 1000)["moments"] == []


def test_frame_is_a_sample_and_says_so_at_high_rates() -> None:
    state = state_of(event(0), decision(0))
    cursor = state.frame(0, START_MS / 1000)["cursor"]
    for offset in range(1, 1001):
        state.receive(event(offset))
        state.receive(decision(offset))
    frame = state.frame(cursor, START_MS / 1000)
    assert len(frame["moments"]) == console_state.FRAME_MOMENTS
    assert frame["passed_over"] == 1000 - console_state.FRAME_MOMENTS
    assert frame["totals"] == {"events": 1001, "decisions": 1001}


def test_reports_and_leases_of_the_log_are_the_budgets() -> None:
    state = state_of(spend_report(0, "spring", 0), lease(1, "spring", 3_000_000, 0.5))
    state.receive(spend_report(2, "spring", 1_000_000, 3_000_000, lease=1))
    spring = state.budgets.campaigns()["spring"]
    assert (spring["spent"], spring["leased"], spring["multiplier"]) == (1.0, 2.0, 0.5)
    assert not state.rates.totals  # no events of users


def test_report_that_is_a_dead_letter_of_the_workers_hides_no_true_one() -> None:
    value = SpendReport(
        ts=2_932_896 * DAY_MS,
        partition=0,
        number=2**53,
        day=2_932_896,
        campaigns=(CampaignSpend("spring", 9_000_000, 9_000_000, 0, 1),),
    )
    other_day = msgspec.structs.replace(value, ts=START_MS)
    state = state_of(*(record(EVENTS.name, 0, encode_event(forged)) for forged in (value, other_day)))
    assert state.budgets.campaigns() == {}
    state.receive(spend_report(2, "spring", 1_000_000))
    assert state.budgets.campaigns()["spring"]["spent"] == 1.0


def test_outcomes_count_for_the_named_decision() -> None:
    state = state_of(event(0), decision(0), ad(0))
    named = {"decision_id": log_id(0), "position": 0}
    state.receive(event(1, kind="impression", item_id="pot", **named))
    state.receive(decision(1))  # nobody is shown the decision on an impression
    state.receive(event(2, kind="click", item_id="pot", **named))
    state.receive(event(3, kind="cart", item_id="pot", **named))
    state.receive(event(4, kind="purchase", item_id="pot", price=20.0, quantity=2, **named))
    state.receive(event(5, kind="click", item_id="pot", decision_id="unknown"))
    (counts,) = [state.outcomes.variants()["model"]]
    assert [counts[name] for name in ("decisions", "impressions", "clicks", "carts", "orders")] == [1, 1, 1, 1, 1]
    assert counts["revenue"] == 40.0
    assert counts["clicks_per_impression"].value == 1.0
    assert state.outcomes.placements()["list"]["clicks"] == 1
    report = state.items.report("pot")
    assert report is not None
    assert (report["recommended"], report["impressions"], report["clicks"]) == (1, 1, 2)
    assert report["shown_beside"] == report["clicked_beside"] == {"cup": 1}
    assert report["reasons"] == {"model": 1}


def test_campaign_owes_the_sum_of_its_charges() -> None:
    state = state_of(event(0), decision(0), ad(0))
    state.receive(event(1, kind="click", item_id="jug", decision_id=f"{log_id(0)}-ad", campaign_id="spring"))
    state.receive(charge(2, 0.5))
    state.receive(charge(2, 0.5))  # a repeat after a crash
    state.receive(charge(3, 0.0, reason="repeated"))
    state.receive(charge(4, -0.25, gross=0.0, reason="order moved"))
    campaign = state.outcomes.campaigns(START_MS / 1000)["spring"]
    assert (campaign["net"], campaign["gross"], sum(campaign["curve"])) == (0.25, 1.0, 0.25)
    assert campaign["charges"] == {"charged": 1, "repeated": 1, "order moved": 1}
    assert (campaign["won"], campaign["mean_price"], campaign["runners_up"]) == (1, 0.5, [("autumn", 1)])
    assert campaign["clicks"] == state.outcomes.placements()["beside"]["clicks"] == 1


def test_mean_price_leaves_out_machines() -> None:
    tally = ConsoleState().outcomes
    for offset, client in enumerate(("bot", msgspec.UNSET, "agent", "shopper")):
        price = 0.0 if client in ("bot", "agent") else 0.5 + offset
        made = msgspec.structs.replace(decode_decision(ad(offset, price=price).value or b""), client=client)
        assert isinstance(made, Ad)
        tally.add_ad(made)
        campaign = tally.campaigns(0)["spring"]
        assert (campaign["won"], campaign["mean_price"]) == (offset + 1, (None, 1.5, 1.5, 2.5)[offset])


def test_charge_ids_and_curves_are_bounded() -> None:
    state = ConsoleState()
    for minute in range(200):
        state.receive(charge(minute, 1.0)._replace(appended_at=START_MS + minute * 60_000))
    campaign = state.outcomes.campaigns(START_MS / 1000 + 199 * 60)["spring"]
    assert (campaign["net"], sum(campaign["curve"]), len(campaign["curve"])) == (200.0, 60.0, 60)


def test_campaigns_of_the_topic_come_and_go() -> None:
    state = state_of(record("ad-campaigns", 0, b'{"campaign_id":"a","item_id":"cup","bid":1.5}', key=b"a"))
    assert state.campaigns["a"].bid == 1.5
    state.receive(record("ad-campaigns", 1, b"", key=b"a"))
    assert state.campaigns == {}


def test_items_on_shelves_count_for_their_shelf() -> None:
    shelf = Shelf(
        name="similar", job="similar", items=(Choice(item_id="mug", score=0, propensity=1, reason="similar"),)
    )
    state = state_of(event(0), decision(0, shelf="for_you", shelves=(shelf,)), item("mug", "Mug"))
    for offset, item_id in ((1, "pot"), (2, "mug"), (3, "other")):
        state.receive(event(offset, kind="click", item_id=item_id, decision_id=log_id(0)))
    assert {name: counts["clicks"] for name, counts in state.outcomes.placements().items()} == {
        "for_you": 1,
        "similar": 1,
        "list": 1,
    }
    assert state.story("anna")["items"]["mug"]["title"] == "Mug"
    report = state.items.report("mug")
    assert report is not None
    assert report["positions"] == {"1": 1}


def test_erased_user_is_forgotten() -> None:
    state = state_of(event(0, "anna"), decision(0, "anna"), event(1, "ben"), decision(1, "ben"))
    receipt = Erased(event_id="x", user_id="anna", record_id=log_id(2), ts=START_MS)
    state.receive(record(ERASURE_RECEIPTS.name, 0, msgspec.json.encode(receipt)))
    assert state.story("anna")["moments"] == []
    assert len(state.story("ben")["moments"]) == 1
    assert [moment["user_id"] for moment in state.frame(0, 0.0)["moments"]] == ["ben"]


def test_dead_letters_are_counted_by_reason_with_the_newest_sample() -> None:
    state = state_of(
        dead_letter(1, "JSON is malformed (byte 3)"), dead_letter(2, "JSON is malformed (byte 7)", b'{"a"\xff')
    )
    for number in range(100):
        state.receive(dead_letter(10 + number, "no such thing as " + "x" * number))
    report = state.dead_letters.report()
    assert len(report) == 40
    again = state_of(dead_letter(1, "a 1"), dead_letter(2, "a 2", b"\xff<script>")).dead_letters.report()
    assert [(letter["count"], letter["reason"], letter["source"]) for letter in again] == [
        (2, "a 2", "clickstream-events-0-2")
    ]
    assert again[0]["sample"] == "\ufffd<script>"


def test_unreadable_records_change_nothing_else() -> None:
    broken = b"\xff\xfe", b"[" * 5000, b"null", b"{}", b""
    state = ConsoleState()
    for topic in state.topics:
        for value in broken:
            state.receive(record(topic, 0, value))
    state.receive(record(state.topics[0], 0, b"x" * (console_state.MAX_VALUE_BYTES + 1)))
    assert state.rates.totals["unreadable records"] > 10
    assert state.rates.totals["large records"] == 1
    assert len(state.moments) == 0


def test_workers_are_known_by_the_header_of_their_decisions() -> None:
    state = state_of(decision(0), decision(1, bundle=None, variant="popular"))
    state.receive(decision(2)._replace(headers={"scored": b"\xff"}))
    workers = state.workers.workers()
    assert workers["w-1"]["decisions"] == 2
    assert workers["w-1"]["mean_ms"] == 4.0
    assert workers[""]["decisions"] == 1
    assert [version["variants"] for version in state.workers.versions()] == [{"popular": 1}, {"model": 2}]
    assert state.decided == {0: 2}


def test_item_that_left_the_catalogue_has_no_title() -> None:
    state = state_of(item("cup", "Blue cup"))
    assert state.describe_items(["cup"])["cup"]["category"] == "Tea"
    state.receive(record("catalogue-items", 1, b"", key=b"cup"))
    assert state.describe_items(["cup"]) == {}
