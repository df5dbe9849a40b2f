"""Consent and erasure: what a user says holds from the next record of the log on, and an erased user is gone."""

import msgspec
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.schemas.decisions import Ad, Recommendation, decode_decision
from clickscore.schemas.erasure import Erased, decode_receipt
from clickscore.schemas.events import AnyEvent, Consent, PrivacyRecord, Tick, encode_event
from clickscore.schemas.purposes import PURPOSES, Purpose
from clickscore.schemas.sessions import ClosedSession, decode_session
from clickscore.schemas.snapshots import PARTITION_KEY, UserState, decode_partition, decode_user
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import Settings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.consent import MAX_STATEMENTS
from tests.events import MINUTE, START, Recorded, erase, grant, impression, purchase, records, search, view, withdraw
from tests.object_search import mentions

TOPIC = "events"
DAY = 24 * 60  # minutes
Logged = AnyEvent | PrivacyRecord | bytes


def pipeline(**changed: object) -> Pipeline:
    values = Settings.of(**changed)
    return Pipeline(values.sessions, values.policy, TOPIC, Catalogue())


def run(made: Pipeline, *events: Logged, first: int = 0) -> Output:
    return made.process(0, [record._replace(timestamp=-1) for record in records(*events, first=first)])


def newest(output: Output) -> Recommendation:
    decision = decode_decision(output.recommendations[-1].value or b"")
    assert isinstance(decision, Recommendation)
    return decision


def sessions(output: Output) -> list[ClosedSession]:
    return [decode_session(message.value or b"") for message in output.closed_sessions]


def tick(minute: float) -> bytes:
    return encode_event(Tick(ts=START + round(minute * MINUTE)))


# Records


def test_consent_and_erasure_get_no_decision():
    output = run(pipeline(), withdraw("ann", 0, "ads"), erase("ann", 1))
    assert (output.recommendations, output.ads, output.dead_letters) == ([], [], [])
    assert output.outcomes == {"consent": 1, "erase": 1}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "no purpose is named"),
        ({"withdrawn": ["personalization"]}, "personalization"),
        ({"withdrawm": ["ads"]}, "no purpose is named"),
        ({"granted": ["ads"], "withdrawn": ["training", "ads"]}, "ads cannot be both granted and withdrawn"),
    ],
)
def test_consent_that_says_nothing_clear_is_a_dead_letter(fields: dict[str, list[str]], error: str):
    value = msgspec.json.encode({"type": "consent", "event_id": "e", "user_id": "ann", "ts": START, **fields})
    (letter,) = run(pipeline(), value).dead_letters
    assert error in letter.error


def test_time_does_not_pass_by_consent_and_erasure():
    made = pipeline()
    output = run(made, view("ann", 0), withdraw("bob", 600, "ads"), erase("bob", 900), view("ann", 1))
    assert (made.state(0).max_ts, output.outcomes["decided"], output.jumps) == (START + MINUTE, 2, [])


# Personalisation


def test_user_who_said_nothing_is_personalised_and_the_decision_says_no_more():
    output = run(pipeline(), view("ann", 0))
    assert newest(output).withheld is msgspec.UNSET
    assert b"withheld" not in (output.recommendations[0].value or b"")


def test_withdrawal_holds_from_the_next_record_on():
    output = run(
        pipeline(), view("ann", 1, "a"), view("ann", 2, "b"), withdraw("ann", 0, "personalisation"), view("ann", 3, "c")
    )
    lengths = [decode_decision(message.value or b"").session_length for message in output.recommendations]  # pyright: ignore[reportAttributeAccessIssue]
    assert lengths == [1, 2, 1]
    assert newest(output).withheld == ("personalisation",)


def test_without_consent_nothing_but_the_statement_is_kept():
    made = pipeline()
    run(made, purchase("ann", 0), withdraw("ann", 1, "personalisation"), view("ann", 2), purchase("ann", 3))
    user = made.state(0).user("ann")
    assert msgspec.structs.replace(user, consent=None, offset=-1) == UserState()
    assert made.state(0).open_sessions == 0


@pytest.mark.parametrize("build", [view, purchase, search, impression])
def test_decision_without_history_is_that_of_a_user_who_came_now(build: object):
    event = build("ann", 9)  # type: ignore[operator]
    silent = run(
        pipeline(),
        view("ann", 0, "a"),
        purchase("ann", 1, "b"),
        withdraw("ann", 2, "personalisation"),
        view("bob", 3),
        event,
    )
    fresh = run(pipeline(), view("cid", 0, "a"), purchase("cid", 1, "b"), erase("cid", 2), view("bob", 3), event)
    expected = msgspec.structs.replace(newest(fresh), withheld=("personalisation",))
    assert newest(silent).items != ()
    assert msgspec.structs.replace(newest(silent), items=()) == msgspec.structs.replace(expected, items=())


def test_late_event_without_history_is_scored_on_its_item():
    output = run(pipeline(), withdraw("ann", 0, "personalisation"), view("bob", 10), view("ann", 1))
    assert (newest(output).late, newest(output).session_length) == (True, 1)


def test_history_begins_again_with_a_grant():
    output = run(
        pipeline(),
        withdraw("ann", 0, "personalisation"),
        view("ann", 1, "a"),
        grant("ann", 2, "personalisation"),
        view("ann", 3, "b"),
        view("ann", 4, "c"),
    )
    assert (newest(output).session_length, newest(output).withheld) == (2, msgspec.UNSET)


def test_session_before_a_withdrawal_is_published_up_to_it():
    output = run(pipeline(), view("ann", 0), view("ann", 1), withdraw("ann", 2, "personalisation"), view("ann", 3))
    assert [session.length for session in sessions(output)] == [2]


def test_events_without_consent_count_for_no_popularity():
    made = pipeline()
    run(made, withdraw("ann", 0, "personalisation"), view("ann", 1, "secret"))
    assert made.state(0).popular == []


# Ads


def shop(**changed: object) -> Pipeline:
    made = pipeline(**changed)
    for item, category in (("kettle", "tea"), ("drill", "tools")):
        made.catalogue.update_item(item.encode(), encode(Item(item_id=item, category=category)))
    for campaign, target in (("for-kettles", "kettle"), ("for-drills", "drill")):
        bid = 2.0 if target == "kettle" else 1.0
        made.catalogue.update_campaign(
            campaign.encode(),
            encode(
                Campaign(
                    campaign_id=campaign, item_id=f"{target}-ad", bid=bid, target_items=frozenset({target}), starts_at=0
                )
            ),
        )
    return made


def newest_ad(output: Output) -> Ad:
    decision = decode_decision(output.ads[-1].value or b"")
    assert isinstance(decision, Ad)
    return decision


def test_ad_without_consent_follows_the_current_item_alone():
    events = view("ann", 1, "kettle"), view("ann", 2, "drill")
    assert newest_ad(run(shop(), *events)).campaign_id == "for-kettles"
    ad = newest_ad(run(shop(), withdraw("ann", 0, "ads"), *events))
    assert (ad.campaign_id, ad.reason) == ("for-drills", "most valuable of 1 that match the current item")
    assert ad.withheld == ("ads",)


def test_recommendation_without_consent_to_ads_keeps_the_session():
    output = run(shop(), withdraw("ann", 0, "ads"), view("ann", 1), view("ann", 2, "drill"))
    assert newest(output).session_length == 2


def test_ad_after_an_impression_or_a_search_has_no_item_to_follow():
    for event in (impression("ann", 2), search("ann", 2)):
        ad = newest_ad(run(shop(), withdraw("ann", 0, "ads"), view("ann", 1), event))
        assert ad.reason == "no campaign matches"


def test_bought_item_is_no_reason_against_an_ad_without_consent():
    made = shop()
    run(made, withdraw("ann", 0, "ads"), purchase("ann", 1, "kettle-ad"))
    assert newest_ad(run(made, view("ann", 2, "kettle"), first=2)).item_id == "kettle-ad"


# Training


def test_session_of_a_user_without_consent_to_training_is_not_published():
    output = run(pipeline(), view("ann", 0), withdraw("ann", 1, "training"), view("ann", 2), view("bob", 0), tick(90))
    assert [session.user_id for session in sessions(output)] == ["bob"]


def test_session_with_events_from_before_a_grant_is_not_published():
    made = pipeline(consent_training="withdrawn")
    output = run(made, view("ann", 0), grant("ann", 1, "training"), view("ann", 2), view("ann", 60), tick(120))
    assert [session.opened_at for session in sessions(output)] == [START + 60 * MINUTE]


def test_session_that_a_withdrawal_interrupted_is_not_published():
    output = run(
        pipeline(),
        view("ann", 0),
        withdraw("ann", 1, "training"),
        view("ann", 2),
        grant("ann", 3, "training"),
        tick(90),
    )
    assert sessions(output) == []


def test_next_session_ends_a_session_without_consent_unpublished():
    output = run(pipeline(), view("ann", 0), withdraw("ann", 1, "training"), view("ann", 60))
    assert sessions(output) == []


def test_sessions_at_the_end_of_a_log_need_consent_to_training():
    made = pipeline()
    run(made, view("ann", 0), view("bob", 0), withdraw("bob", 1, "training"))
    assert [session.user_id for session in made.state(0).close_all()] == ["ann"]


# Order, repeats and the end of a statement


def test_older_grant_that_comes_late_does_not_overrule_a_withdrawal():
    made = pipeline()
    run(made, withdraw("ann", 10, *PURPOSES), grant("ann", 9, "ads"))
    assert made.state(0).withheld(made.state(0).user("ann")) == 0b111
    run(made, grant("ann", 11, "ads"), first=2)
    assert made.state(0).withheld(made.state(0).user("ann")) == 0b101


def test_withdrawal_counts_whatever_its_time():
    made = pipeline()
    run(made, grant("ann", 10, "ads"), withdraw("ann", 9, "ads"))
    assert made.state(0).withheld(made.state(0).user("ann")) == 0b010


def test_repeated_statement_changes_nothing():
    made = pipeline()
    output = run(made, withdraw("ann", 0, "ads"), grant("ann", 1, "ads"), withdraw("ann", 0, "ads"))
    assert output.outcomes == {"consent": 2, "repeated": 1}
    assert made.state(0).withheld(made.state(0).user("ann")) == 0


def test_state_of_a_user_who_says_much_stays_small():
    made = pipeline()
    run(made, *(statement("ann", minute, "ads") for minute in range(100) for statement in (grant, withdraw)))
    consent = made.state(0).user("ann").consent
    assert consent is not None
    assert len(consent.fingerprints) == MAX_STATEMENTS * 8
    assert len(made.state(0).contents()[b"ann"]) < 100


@pytest.mark.parametrize("purpose", PURPOSES)
def test_default_of_the_shop_holds_for_users_who_said_nothing(purpose: Purpose):
    made = pipeline(**{f"consent_{purpose}": "withdrawn"})
    assert newest(run(made, view("ann", 0))).withheld == (purpose,)
    assert newest(run(made, grant("ann", 1, purpose), view("ann", 2), first=1)).withheld is msgspec.UNSET


def test_statement_holds_for_its_time_and_then_the_default():
    made = pipeline(consent_ttl_ms=10 * DAY * MINUTE)
    run(made, withdraw("ann", 0, "ads"), tick(10 * DAY))
    assert made.state(0).user("ann").consent is not None
    run(made, grant("ann", DAY, "training"), tick(11 * DAY), first=2)
    assert made.state(0).user("ann").consent is not None
    output = run(made, tick(11 * DAY + 10), first=4)
    assert made.state(0).user("ann").consent is None
    assert [change.value for change in output.changes[:-1]] == [None]


def test_session_keeps_its_statement_to_its_end():
    made = pipeline(consent_ttl_ms=60 * MINUTE)
    events = [withdraw("ann", 0, "training"), *(view("ann", minute) for minute in range(50, 80, 10))]
    output = run(made, *events, tick(150), tick(160))
    assert (sessions(output), made.state(0).user("ann").consent) == ([], None)


def test_end_of_a_grant_ends_the_history():
    made = pipeline(consent_personalisation="withdrawn", consent_ttl_ms=60 * MINUTE)
    run(made, grant("ann", 0, "personalisation"), purchase("ann", 1), tick(120), tick(121))
    assert b"ann" not in made.state(0).contents()


def test_history_from_before_a_change_of_the_default_goes_with_the_next_event():
    before, after = pipeline(), pipeline(consent_personalisation="withdrawn")
    output = run(before, purchase("ann", 0))
    values = Settings.of(consent_personalisation="withdrawn")
    after.load({0: restore(output.changes, "events-0", values.sessions)})
    output = run(after, view("ann", 1), first=1)
    assert (newest(output).session_length, [session.length for session in sessions(output)]) == (1, [1])
    assert b"ann" not in after.state(0).contents()


# Erasure


def test_erased_user_leaves_nothing_in_the_state():
    made, empty = pipeline(), pipeline()
    run(made, purchase("ann", 0), withdraw("ann", 1, "ads"), view("ann", 2, "a"), erase("ann", 3))
    run(empty, tick(0), tick(1), tick(2), tick(2))
    erasures = [(xxhash.xxh3_64_digest(b"ann"), START + 3 * MINUTE)]  # a hand-over that comes late must know of it
    left, nothing = (decode_partition(each.state(0).contents().pop(PARTITION_KEY)) for each in (made, empty))
    assert left == msgspec.structs.replace(nothing, erasures=erasures)
    assert made.state(0).contents().keys() == {PARTITION_KEY}


def test_erased_user_leaves_nothing_at_all_after_a_day():
    made, empty = pipeline(), pipeline()
    run(made, view("ann", 0), erase("ann", 1), tick(DAY + 7))
    run(empty, tick(0), tick(0), tick(DAY + 7))
    assert made.state(0).contents() == empty.state(0).contents()


def test_erased_session_is_not_published():
    assert run(pipeline(), view("ann", 0), erase("ann", 1), tick(90)).closed_sessions == []


def test_erased_user_is_a_tombstone_with_the_offset_of_the_erasure():
    made = pipeline()
    run(made, view("ann", 0))
    changes = run(made, erase("ann", 1), first=1).changes
    assert [(change.key, change.value, change.offset) for change in changes[:-1]] == [
        (b"ann", None, 1),
        (b"\0uann", None, 1),
    ]


def test_erasure_of_an_unknown_user_writes_a_tombstone_too():
    changes = run(pipeline(), erase("ann", 1)).changes
    assert [(change.key, change.value) for change in changes[:-1]] == [(b"ann", None)]


def test_items_of_the_erased_user_alone_leave_the_popular_items():
    made = pipeline()
    run(made, view("ann", 0, "secret"), view("ann", 0, "shared"), view("bob", 0, "shared"), erase("ann", 1))
    assert made.state(0).popular == ["shared"]


def test_erasure_is_answered_by_a_receipt():
    (receipt,) = run(pipeline(), view("ann", 0), erase("ann", 1)).receipts
    expected = Erased(record_id="events-0-1", user_id="ann", event_id=erase("ann", 1).event_id, ts=START + MINUTE)
    assert (receipt.key, decode_receipt(receipt.value or b"")) == (b"ann", expected)


def test_user_who_comes_back_is_a_new_user():
    made = pipeline()
    output = run(made, purchase("ann", 0), view("ann", 1), erase("ann", 2), view("ann", 3), tick(40), tick(90))
    assert newest(output).session_length == 1
    assert [(session.length, session.id) for session in sessions(output)] == [(1, "events-0-3")]


def test_erasure_again_does_no_harm():
    once, twice = pipeline(), pipeline()
    run(once, view("ann", 0), view("bob", 0), erase("ann", 1), tick(0))
    output = run(twice, view("ann", 0), view("bob", 0), erase("ann", 1), erase("ann", 1))
    assert once.state(0).contents() == twice.state(0).contents()
    assert len(output.receipts) == 2


def test_event_before_the_erasure_is_decided_again_with_the_same_bytes_after_a_crash():
    log = records(view("ann", 0, "a"), view("ann", 1, "b"), erase("ann", 2), view("ann", 3, "c"))
    whole = pipeline().process(0, log)
    for stored in range(1, len(log)):
        first, second = pipeline(), pipeline()
        changes = first.process(0, log[:stored]).changes
        second.load({0: restore(changes, "events-0", Settings.of().sessions)})
        assert second.process(0, log).recommendations == whole.recommendations[min(stored, 2 + (stored > 3)) :]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=30))
def test_no_timer_keeps_the_id_of_an_erased_user(steps: list[tuple[int, int]]):
    made = pipeline()
    minute, events = 0, list[Logged]()
    for kind, step in steps:
        minute += step
        choices = view("ann", minute), purchase("ann", minute), withdraw("ann", minute, "ads"), view("bob", minute)
        events.append(choices[kind])
    run(made, *events)
    run(made, erase("ann", minute), first=len(events))
    assert not mentions(made.state(0), "ann")


# Snapshots


def test_time_that_ends_a_statement_in_the_batch_of_the_erasure_does_no_harm():
    made = pipeline()
    run(made, withdraw("ann", 0, "ads"))
    output = run(made, erase("ann", 1), view("bob", 400 * DAY), first=1)
    assert output.outcomes == {"erase": 1, "decided": 1}
    assert decode_decision(output.recommendations[0].value or b"").user_id == "bob"


def test_time_that_forgets_a_buyer_without_purchases_does_no_harm():
    made = pipeline()
    run(made, purchase("ann", 0, "kettle"), tick(60), withdraw("ann", 61, "personalisation"))
    assert run(made, view("bob", 40 * DAY), first=3).outcomes == {"decided": 1}


def test_snapshot_from_before_consent_is_read():
    old = msgspec.msgpack.encode([7, 7, "s", START, START, 1, False, [0], b"\1", ["a"], b"12345678", ["b"]])
    assert decode_user(old) == UserState(
        offset=7,
        opened_by=7,
        session_id="s",
        opened_at=START,
        last_ts=START,
        length=1,
        ages=[0],
        actions=b"\1",
        items=["a"],
        fingerprints=b"12345678",
        bought=["b"],
    )


def test_statement_survives_a_restart():
    made, heir = pipeline(), pipeline()
    changes = run(made, withdraw("ann", 0, "personalisation")).changes
    heir.load({0: restore(changes, "events-0", Settings.of().sessions)})
    assert newest(run(heir, view("ann", 1), first=1)).withheld == ("personalisation",)


def test_statement_is_an_event_with_lists_of_purposes():
    text = (
        b'{"type":"consent","event_id":"e","user_id":"ann","ts":1700000000000,'
        b'"granted":["training"],"withdrawn":["ads"]}'
    )
    expected = Consent(event_id="e", user_id="ann", ts=START, granted=("training",), withdrawn=("ads",))
    assert encode_event(expected) == text
    made = pipeline()
    made.process(0, [Recorded(0, START, b"ann", text)])
    assert made.state(0).withheld(made.state(0).user("ann")) == 0b010
