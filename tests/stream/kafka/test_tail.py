from typing import Any

import msgspec
import pytest
from aiokafka import ConsumerRecord

from clickscore.schemas import catalogue
from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.decisions import Ad, Choice, Recommendation, Shelf, SoldSlot, encode_decision
from clickscore.schemas.erasure import Erased, Remains, encode_receipt
from clickscore.schemas.events import Consent, Epoch, Erase, Identify, Purchase, Search, Tick, View, encode_event
from clickscore.schemas.handover import Handover
from clickscore.schemas.outcomes import AdCharge, DecisionOutcome, LineOutcome, encode_outcome
from clickscore.schemas.sessions import ClosedSession, encode_session
from clickscore.schemas.topics import (
    AD_CHARGES,
    ADS,
    CAMPAIGNS,
    CATALOGUE,
    CLOSED_SESSIONS,
    DEAD_LETTERS,
    DECISION_OUTCOMES,
    ERASURE_RECEIPTS,
    EVENTS,
    RECOMMENDATIONS,
    SNAPSHOTS,
    TOPICS,
)
from clickscore.stream.kafka.tail import describe
from clickscore.stream.terminal_text import safe_text

TS = 1_569_888_003_000


def record(value: bytes | None, key: bytes | None = b"u1", headers: tuple[tuple[str, bytes], ...] = ()) -> Any:
    return ConsumerRecord(
        topic="any",
        partition=0,
        offset=0,
        timestamp=TS,
        timestamp_type=1,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        headers=headers,
    )


def recommendation(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "decision_id": "clickstream-events-0-7",
        "user_id": "u1",
        "event_id": "e7",
        "ts": TS,
        "bundle": "abc",
        "policy": "default",
        "variant": "model",
        "session_id": "s1",
        "session_length": 3,
        "late": False,
        "actions": {"view": 0.7, "leave": 0.3},
        "purchase": 0.125,
        "items": tuple(Choice(item_id=f"i{n}", score=1.0, propensity=1.0, reason="model") for n in range(7)),
        "filtered": {},
    }
    return encode_decision(Recommendation(**fields | changes))


def ad(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "decision_id": "clickstream-events-0-7-ad",
        "user_id": "u1",
        "event_id": "e7",
        "ts": TS,
        "bundle": "abc",
        "policy": "default",
        "variant": "model",
        "session_id": "s1",
        "campaign_id": "c1",
        "item_id": "i1",
        "bid": 2.0,
        "purchase": 0.1,
        "propensity": 1.0,
        "reason": "the highest value, 0.2",
    }
    return encode_decision(Ad(**fields | changes))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (View(event_id="e", user_id="u1", ts=TS, item_id="i1"), "user u1 viewed item i1"),
        (Purchase(event_id="e", user_id="u1", ts=TS, item_id="i1"), "user u1 bought item i1"),
        (Search(event_id="e", user_id="u1", ts=TS, query="red shoes"), "user u1 searched for 'red shoes'"),
        (Tick(ts=TS), "time passed, nobody came"),
        (
            Consent(event_id="e", user_id="u1", ts=TS, granted=("ads",), withdrawn=("training", "personalisation")),
            "user u1 granted consent to ads and withdrew consent to training, personalisation",
        ),
        (Erase(event_id="e", user_id="u1", ts=TS), "user u1 is to be forgotten"),
        (Identify(event_id="e", user_id="c7", ts=TS, identified_as="u1"), "user c7 is the user u1"),
        (
            Handover(user_id="u1", anonymous_id="c7", ts=TS, partition=0, offset=1),
            "user u1 takes over 0 events of c7",
        ),
    ],
)
def test_event_in_words(event: Any, words: str) -> None:
    assert describe(EVENTS.name, record(encode_event(event))) == f"2019-10-01 00:00:03  {words}"


def test_epoch_in_words() -> None:
    epoch = Epoch(number=7, catalogue=12, campaigns=3, bundle="b1")
    assert describe(EVENTS.name, record(encode_event(epoch))) == (
        "epoch 7 begins: catalogue up to offset 12, campaigns up to 3, bundle b1"
    )
    assert "no bundle" in describe(EVENTS.name, record(encode_event(Epoch(number=1, catalogue=0, campaigns=0))))


def test_recommendation_in_words() -> None:
    assert describe(RECOMMENDATIONS.name, record(recommendation())) == (
        "2019-10-01 00:00:03  user u1, event 3 of the session; show i0, i1, i2, i3, i4 and 2 more (by model abc); "
        "next most likely: view (70%); buys in this session: 12.5%"
    )


def test_recommendation_by_popularity_in_words() -> None:
    items = (Choice(item_id="i1", score=9, propensity=1.0, reason="popular"),)
    value = recommendation(bundle=None, actions=None, purchase=None, items=items, late=True)
    assert describe(RECOMMENDATIONS.name, record(value)) == (
        "2019-10-01 00:00:03  user u1, event 3 of the session; show i1 (what is popular); the event came late"
    )


def test_recommendation_of_nothing_in_words() -> None:
    value = recommendation(actions=None, purchase=None, items=())
    assert describe(RECOMMENDATIONS.name, record(value)).endswith("; nothing to show")


def test_shelves_in_words() -> None:
    items = (Choice(item_id="i9", score=0, propensity=1.0, reason="viewed"),)
    shelves = (Shelf(name="again", job="recently_viewed", items=items), Shelf(name="similar", job="similar", items=()))
    words = describe(RECOMMENDATIONS.name, record(recommendation(shelf="for_you", shelves=shelves)))
    assert "; on again i9; on similar nothing; " in words


def test_ad_in_words() -> None:
    assert describe(ADS.name, record(ad())).endswith("user u1; ad for item i1 of campaign c1: the highest value, 0.2")
    slot = SoldSlot(
        placement="beside",
        slot=0,
        position=None,
        campaign_id="c1",
        item_id="i1",
        bid=2.0,
        bid_per="click",
        probability=0.1,
        quality=1.0,
        exposure=1.0,
        price=1.5,
        runner_up="c2",
    )
    assert "ad for item i1 of campaign c1 at 1.50 a click: " in describe(ADS.name, record(ad(slots=(slot,))))
    assert describe(ADS.name, record(ad(campaign_id=None, item_id=None, reason="none targets this session"))).endswith(
        "user u1; no ad: none targets this session"
    )


def test_closed_session_in_words() -> None:
    session = ClosedSession(
        id="t-0-1",
        session_id="s1",
        user_id="u1",
        opened_at=TS,
        closed_at=TS + 65_000,
        length=2,
        purchased=True,
        events=(),
    )
    assert describe(CLOSED_SESSIONS.name, record(encode_session(session))) == (
        "2019-10-01 00:00:03  user u1; 2 events in 1 min 5 s; bought"
    )


def test_catalogue_in_words() -> None:
    item = Item(item_id="i1", title="Kettle", category="kitchen", price=20, stock=3)
    assert describe(CATALOGUE.name, record(catalogue.encode(item))) == (
        "item i1 'Kettle'; kitchen; price 20.00; 3 in stock"
    )
    assert describe(CATALOGUE.name, record(None, key=b"i1")) == "i1 was removed"
    campaign = Campaign(campaign_id="c1", item_id="i1", bid=0.5, target_categories=frozenset({"kitchen"}))
    assert describe(CAMPAIGNS.name, record(catalogue.encode(campaign))) == (
        "campaign c1 for item i1; bids 0.50 a click; on kitchen"
    )
    campaign = Campaign(campaign_id="c1", item_id="i1", bid=0.5, bid_per="order", target_queries=frozenset({"tea"}))
    assert describe(CAMPAIGNS.name, record(catalogue.encode(campaign))).endswith("bids 0.50 an order; on tea")


def test_snapshots_in_words() -> None:
    assert describe(SNAPSHOTS.name, record(b"12345")) == "what is remembered of user u1: 5 bytes"
    assert describe(SNAPSHOTS.name, record(b"123", key=b"\0uu1")) == "open decisions of user u1: 3 bytes"
    assert describe(SNAPSHOTS.name, record(b"1", key=b"")) == "what is remembered of the partition: 1 bytes"


def test_dead_letter_says_where_it_was_and_why_and_steers_no_terminal() -> None:
    headers = (("topic", b"clickstream-events"), ("partition", b"2"), ("offset", b"41"), ("error", b"no JSON"))
    words = describe(DEAD_LETTERS.name, record(b"\x1b[2Jbad\xff" + b"x" * 500, key=b"\x1bk", headers=headers))
    assert words.startswith("clickstream-events-2 offset 41; no JSON; key '\\x1bk'; \ufffd[2Jbad\ufffdxxx")
    assert words.endswith("x ...")


@pytest.mark.parametrize("topic", [*(topic.name for topic in TOPICS), "another-topic"])
@pytest.mark.parametrize("value", [b"", b"{", b"\xff\x00", None])
def test_any_record_has_words(topic: str, value: bytes | None) -> None:
    assert "\x00" not in describe(topic, record(value, key=None))


def test_what_a_shopper_typed_steers_no_terminal() -> None:
    event = View(event_id="e", user_id="\x1b[2J", ts=TS, item_id="a\nb")
    words = describe(EVENTS.name, record(encode_event(event)))
    assert "\x1b" not in words
    assert "\n" not in words


DEEP = b'{"type":"view","event_id":"e","user_id":"u","item_id":"i","ts":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
FAR = 2**62
UNUSUAL = {
    "not UTF-8": (EVENTS.name, b'{"type":"view","event_id":"\xff","user_id":"u","item_id":"i","ts":1}'),
    "deep event": (EVENTS.name, DEEP),
    "deep item": (CATALOGUE.name, b'{"item_id":"a","title":"b","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "far event": (EVENTS.name, encode_event(View(event_id="e", user_id="u", item_id="i", ts=FAR))),
    "far decision": (RECOMMENDATIONS.name, recommendation(ts=FAR)),
    "far ad": (ADS.name, ad(ts=-FAR)),
    "empty": (RECOMMENDATIONS.name, b""),
    "escape": (EVENTS.name, encode_event(View(event_id="e", user_id="\x1b]0;x\x07", item_id="\u202ei\x9b2J", ts=1))),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_any_record_is_a_line_of_safe_text(kind: str) -> None:
    topic, value = UNUSUAL[kind]
    line = describe(topic, record(value, key=b"\x1b[2J\xff"))
    assert line == safe_text(line) != ""


def test_time_beyond_the_calendar_is_shown_in_milliseconds() -> None:
    line = describe(RECOMMENDATIONS.name, record(recommendation(ts=FAR)))
    assert line.startswith(f"at {FAR} ms  user u1, event 3 of the session; show i0")


def test_header_without_a_value_is_empty() -> None:
    headers: Any = (("error", None), ("topic", b"clickstream-events"))
    assert describe(DEAD_LETTERS.name, record(b"x", headers=headers)).startswith("clickstream-events-? offset ?; ; key")


def test_erasure_receipt_in_words() -> None:
    erased = Erased(event_id="e", user_id="u1", record_id="clickstream-events-0-7", ts=TS)
    assert describe(ERASURE_RECEIPTS.name, record(encode_receipt(erased))) == (
        "2019-10-01 00:00:03  user u1 is forgotten, by the event clickstream-events-0-7"
    )
    remains = Remains(event_id="e", user_id="u1", part=2, parts=3, decisions=("d", "f"), sessions=("s",))
    assert describe(ERASURE_RECEIPTS.name, record(encode_receipt(remains))) == (
        "2 decisions, 0 ads and 1 closed sessions of user u1 still lie in topics, from before the event 'e' "
        "(part 2 of 3)"
    )


def test_decision_without_consent_says_so() -> None:
    words = describe(RECOMMENDATIONS.name, record(recommendation(withheld=("personalisation", "ads"))))
    assert words.endswith("; no consent to personalisation, ads")


def test_outcome_and_charge_are_said_in_words():
    line = LineOutcome(item_id="i1", placement="list", impressions=2, clicks=1)
    outcome = DecisionOutcome(decision_id="e-0-1", user_id="u1", ts=TS, variant="model", lines=(line,))
    assert describe(DECISION_OUTCOMES.name, record(encode_outcome(outcome))).endswith(
        "user u1; decision e-0-1: 2 impressions, 1 clicks"
    )
    correction = msgspec.structs.replace(outcome, revision=1, lines=())
    assert describe(DECISION_OUTCOMES.name, record(encode_outcome(correction))).endswith(
        "decision e-0-1, correction 1: no reaction"
    )
    charge = AdCharge(
        charge_id="e-0-1/0/0",
        campaign_id="c1",
        decision_id="e-0-1",
        slot=0,
        placement="beside",
        bid_per="click",
        ts=TS,
        gross=0.5,
        net=0.0,
        reason="repeated",
    )
    assert describe(AD_CHARGES.name, record(encode_outcome(charge))).endswith(
        "campaign c1 pays 0 of 0.5 (repeated); decision e-0-1, slot 0"
    )
    credit = msgspec.structs.replace(charge, net=-0.5)
    assert "campaign c1 gets 0.5 back" in describe(AD_CHARGES.name, record(encode_outcome(credit)))
