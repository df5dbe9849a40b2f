"""Identity: a session moves from an anonymous id to a user, whatever partition each of them is in."""

from collections.abc import Sequence

import msgspec
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.events import AnyEvent, PrivacyRecord, Tick, decode_record, encode_event, read_identify
from clickscore.schemas.handover import HandedAds, HandedConsent, Handover
from clickscore.schemas.open_decisions import OpenDecision, UserLedger, encode_ledger
from clickscore.schemas.purposes import PURPOSES, Purpose
from clickscore.schemas.sessions import ClosedSession, decode_session
from clickscore.schemas.snapshots import PARTITION_KEY, UserState, decode_partition, decode_user, encode
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Message, Output, SessionMerge
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import Settings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.state.handover_guard import MAX_ERASURES
from clickscore.stream.state.identity import merge_client
from tests.events import (
    MINUTE,
    START,
    Recorded,
    erase,
    grant,
    handed_session,
    handover,
    identify,
    impression,
    purchase,
    records,
    view,
    withdraw,
)

TOPIC = "events"
ANONYMOUS, USERS = 1, 0
"""Partitions of the anonymous ids and of the users."""
Logged = AnyEvent | PrivacyRecord | Handover | bytes


def pipeline(**changed: object) -> Pipeline:
    values = Settings.of(**changed)
    return Pipeline(values.sessions, values.policy, TOPIC, Catalogue())


def run(made: Pipeline, partition: int, *events: Logged) -> Output:
    first = made.state(partition).offset + 1
    return made.process(partition, [record._replace(timestamp=-1) for record in records(*events, first=first)])


def hand_over(made: Pipeline, *events: Logged) -> Handover:
    """Return what the last of some events of the anonymous ids hands over."""
    (message,) = run(made, ANONYMOUS, *events).handovers
    record = decode_record(message.value or b"")
    assert isinstance(record, Handover)
    assert message.key == record.user_id.encode()
    return record


def tick(minute: float) -> bytes:
    return encode_event(Tick(ts=START + round(minute * MINUTE)))


def newest(output: Output) -> Recommendation:
    decision = decode_decision(output.recommendations[-1].value or b"")
    assert isinstance(decision, Recommendation)
    return decision


def sessions(output: Output) -> list[ClosedSession]:
    return [decode_session(message.value or b"") for message in output.closed_sessions]


def said(granted: tuple[Purpose, ...] = (), withdrawn: tuple[Purpose, ...] = (), minute: float = 0) -> HandedConsent:
    at = START + round(minute * MINUTE)
    return HandedConsent(granted=granted, withdrawn=withdrawn, said_at=at, withdrawn_at=at if withdrawn else 0)


# The identify event


def test_identify_event_gets_no_decision_and_moves_no_time():
    made = pipeline()
    output = run(made, ANONYMOUS, view("cookie", 0), identify("cookie", 900, "ann"), view("bob", 1))
    assert output.outcomes == {"decided": 2, "identify": 1}
    assert made.state(ANONYMOUS).max_ts == START + MINUTE


def test_user_who_is_identified_as_the_same_user_is_a_dead_letter():
    value = encode_event(identify("cookie", 0, "ann")).replace(b'"ann"', b'"cookie"')
    (letter,) = run(pipeline(), ANONYMOUS, value).dead_letters
    assert "are the same" in letter.error


def test_search_for_identify_events_decodes_no_other_record():
    event = identify("cookie", 0, "ann")
    assert read_identify(encode_event(event)) == event
    assert read_identify(None) is None
    assert read_identify(encode_event(view("cookie", 0))) is None
    assert read_identify(encode_event(view("cookie", 0, "identify"))) is None
    assert read_identify(b'{"type": "identify"}') is None


def test_session_leaves_the_anonymous_id_and_is_not_published():
    made = pipeline()
    run(made, ANONYMOUS, view("cookie", 0, "a"), view("cookie", 1, "b"))
    output = run(made, ANONYMOUS, identify("cookie", 2, "ann"))
    assert (made.state(ANONYMOUS).open_sessions, output.closed_sessions) == (0, [])
    assert made.state(ANONYMOUS).user("cookie") == UserState()
    assert output.changes[0].value is None  # a tombstone
    assert run(made, ANONYMOUS, tick(90)).closed_sessions == []


def test_handover_has_events_bought_items_and_the_position_of_the_identification():
    record = hand_over(
        pipeline(), view("cookie", 0, "a", session="web"), purchase("cookie", 1, "b"), identify("cookie", 2, "ann")
    )
    session = record.session
    assert session is not None
    assert (record.user_id, record.anonymous_id, record.partition, record.offset) == ("ann", "cookie", ANONYMOUS, 2)
    assert (session.session_id, session.opened_by, session.length, session.purchased) == ("web", 0, 2, True)
    assert [(event.ts, event.action, event.item_id) for event in session.events] == [
        (START, 1, "a"),
        (START + MINUTE, 5, "b"),
    ]
    assert (record.bought, record.last_ts) == (("b",), START + MINUTE)


def test_nothing_to_hand_over_writes_nothing():
    output = run(pipeline(), ANONYMOUS, identify("cookie", 0, "ann"), view("cookie", 1), identify("cookie", 2, "ann"))
    assert (output.outcomes["identify"], len(output.handovers)) == (2, 1)


def test_repeated_identify_event_hands_over_what_came_in_between():
    made, event = pipeline(), identify("cookie", 1, "ann")
    first = hand_over(made, view("cookie", 0, "a"), event)
    assert run(made, ANONYMOUS, event).handovers == []
    second = hand_over(made, view("cookie", 2, "b"), event)
    assert [[each.item_id for each in record.session.events] for record in (first, second) if record.session] == [
        ["a"],
        ["b"],
    ]


def test_shared_device_gives_each_user_what_was_done_since_the_last_login():
    made = pipeline()
    first = hand_over(made, view("cookie", 0, "a"), identify("cookie", 1, "ann"))
    second = hand_over(made, view("cookie", 2, "b"), identify("cookie", 3, "bob"))
    run(made, USERS, first, second)
    assert made.state(USERS).user("ann").items == ["a"]
    assert made.state(USERS).user("bob").items == ["b"]


def test_chain_hands_over_what_is_there():
    made = pipeline()
    first = hand_over(made, view("cookie", 0, "a"), identify("cookie", 1, "ann"))
    (second,) = run(made, USERS, first, view("ann", 2, "b"), identify("ann", 3, "bea")).handovers
    run(made, ANONYMOUS, second.value or b"")
    assert made.state(ANONYMOUS).user("bea").items == ["a", "b"]
    assert made.state(USERS).user("ann") == UserState()


def test_items_of_a_session_that_was_handed_over_no_longer_count_where_it_was():
    made = pipeline(k=1)
    other = [view(f"user-{number}", 2, "cup") for number in range(2)]
    many = [event for number in range(3) for event in (view(f"c{number}", 0, "pot"), identify(f"c{number}", 1, "ann"))]
    output = run(made, ANONYMOUS, *many, *other, view("bob", 12, "pan"))
    assert [choice.item_id for choice in newest(output).items] == ["cup"]


def test_handover_too_large_for_a_record_loses_the_oldest_events():
    made = pipeline(max_event_bytes=1_000)
    events = [view("cookie", minute, "x" * 100 + str(minute)) for minute in range(30)]
    (message,) = run(made, ANONYMOUS, *events, identify("cookie", 31, "ann")).handovers
    record = decode_record(message.value or b"")
    assert isinstance(record, Handover)
    assert record.session is not None
    assert len(message.value or b"") <= 1_000
    assert record.session.length == 30
    assert record.session.events[-1].item_id.endswith("29")
    assert run(made, USERS, record).dead_letters == []
    assert made.state(USERS).user("ann").length == 30


def test_bought_items_too_large_for_a_record_lose_the_oldest():
    made = pipeline(max_event_bytes=1_000)
    bought = [purchase("cookie", minute, "x" * 100 + str(minute)) for minute in range(20)]
    run(made, ANONYMOUS, *bought, tick(70))
    record = hand_over(made, identify("cookie", 71, "ann"))
    assert record.session is None
    assert record.bought[-1].endswith("19")


def test_ids_too_long_for_a_record_are_a_dead_letter_in_the_log_of_the_user():
    made = pipeline(max_event_bytes=300)
    event = msgspec.structs.replace(identify("c" * 60, 1, "u" * 60), event_id="e")
    output = run(made, ANONYMOUS, view("c" * 60, 0, event_id="v"), event)
    (letter,) = run(made, USERS, output.handovers[0].value or b"").dead_letters
    assert "max_event_bytes" in letter.error


# The hand-over


def test_first_decision_after_the_handover_knows_both_halves():
    made = pipeline()
    record = hand_over(made, view("cookie", 0, "a"), view("cookie", 2, "c"), identify("cookie", 3, "ann"))
    before = run(made, USERS, view("ann", 1, "b"))
    after = run(made, USERS, record, view("ann", 4, "d"))
    assert (newest(before).session_length, newest(after).session_length) == (1, 4)
    assert made.state(USERS).user("ann").items == ["a", "b", "c", "d"]


def test_user_without_a_session_takes_over_the_session_and_its_next_name():
    made = pipeline()
    run(made, USERS, handover("ann", 1, handed_session(0, 1, name="before login")), impression("ann", 2))
    assert made.state(USERS).user("ann").session_id == "before login"
    output = run(made, USERS, view("ann", 3, session="after login"), view("ann", 4, session="third"))
    assert [(each.session_id, each.length, each.id) for each in sessions(output)] == [("after login", 3, "events-0-0")]


def test_session_with_a_name_of_the_user_keeps_it():
    made = pipeline()
    session = handed_session(0, 1, name="before login")
    output = run(made, USERS, view("ann", 2, session="own"), handover("ann", 3, session), view("ann", 4, session="own"))
    assert (newest(output).session_id, newest(output).session_length) == ("own", 4)


def test_name_that_came_with_the_handover_goes_with_its_session():
    made = pipeline()
    run(made, USERS, handover("ann", 1, handed_session(0, 1)), tick(40))
    output = run(made, USERS, view("ann", 41, session="b"), view("ann", 42, session="c"))
    assert [each.session_id for each in sessions(output)] == ["b"]


def test_event_that_both_halves_remember_counts_once():
    made = pipeline()
    event = view("ann", 1, "b", event_id="event-1")
    output = run(made, USERS, event, handover("ann", 2, handed_session(0, 1)), event)
    assert output.outcomes == {"decided": 1, "handover": 1, "repeated": 1}
    assert (made.state(USERS).user("ann").length, made.state(USERS).user("ann").items) == (2, ["item-0", "b"])


def test_own_events_come_first_at_the_same_time():
    made = pipeline()
    run(made, USERS, view("ann", 1, "own"), handover("ann", 2, handed_session(0, 1, 2)))
    assert made.state(USERS).user("ann").items == ["item-0", "own", "item-1", "item-2"]


def test_merged_session_is_bounded_and_still_counts_all_events():
    made = pipeline(max_events=3)
    run(made, USERS, view("ann", 1.5, "own"), handover("ann", 3, handed_session(0, 1, 2, 3)))
    user = made.state(USERS).user("ann")
    assert (user.items, user.length, user.opened_at) == (["own", "item-2", "item-3"], 5, START)


def test_adopted_session_is_bounded():
    made = pipeline(max_events=2)
    run(made, USERS, handover("ann", 3, handed_session(0, 1, 2, 3)))
    assert made.state(USERS).user("ann").items == ["item-2", "item-3"]


def test_halves_exactly_the_gap_apart_are_one_session():
    made = pipeline()
    run(made, USERS, view("ann", 31, "own"), handover("ann", 32, handed_session(0, 1)))
    assert made.state(USERS).user("ann").length == 3


def test_older_half_beyond_the_gap_is_published_on_its_own():
    made = pipeline()
    output = run(made, USERS, view("ann", 40, "own"), handover("ann", 41, handed_session(0, 1, first=7)))
    assert [(each.id, each.user_id, each.length) for each in sessions(output)] == [("events-1-7", "ann", 2)]
    assert made.state(USERS).user("ann").items == ["own"]


def test_newer_half_beyond_the_gap_ends_the_session_of_the_user():
    made = pipeline()
    output = run(made, USERS, view("ann", 0, "own"), handover("ann", 33, handed_session(31, 32)))
    assert [(each.id, each.length) for each in sessions(output)] == [("events-0-0", 1)]
    assert made.state(USERS).user("ann").items == ["item-31", "item-32"]
    assert made.state(USERS).open_sessions == 1


def test_half_that_would_be_closed_by_now_is_published_and_does_not_become_a_session():
    made = pipeline()
    output = run(made, USERS, view("bob", 100), handover("ann", 3, handed_session(0, 1, first=7)), tick(101))
    assert [(each.id, each.closed_at) for each in sessions(output)] == [("events-1-7", START + MINUTE)]
    assert "ann" not in str(made.state(USERS).contents())


def test_half_that_is_not_over_is_taken_in_though_its_events_are_below_the_watermark():
    made = pipeline()
    output = run(made, USERS, view("bob", 30), handover("ann", 3, handed_session(0, 1)), view("ann", 30, "own"))
    assert newest(output).session_length == 3


def test_newer_half_may_be_over_as_well():
    made = pipeline()
    record = handover("ann", 33, handed_session(31, 32, first=7))
    run(made, USERS, view("ann", 0, "own"))
    many = [view(f"user-{number}", 0) for number in range(64)]  # the bound for closures leaves the user's session open
    run(made, USERS, *many)
    output = run(made, USERS, view("zoe", 200), record, tick(201))
    assert [each.id for each in sessions(output) if each.user_id == "ann"] == ["events-0-0", "events-1-7"]


def test_taken_over_session_is_closed_in_its_time():
    made = pipeline()
    run(made, USERS, view("bob", 0), handover("ann", 3, handed_session(0, 1)))
    (session,) = [each for each in sessions(run(made, USERS, tick(40))) if each.user_id == "ann"]
    assert (session.id, session.length, session.session_id) == ("events-0-1", 2, "web-1")


def test_merge_names_both_sessions():
    made = pipeline()
    output = run(made, USERS, view("ann", 1), handover("ann", 2, handed_session(0, 1, first=5)))
    assert output.merges == [SessionMerge("events-1-5", "events-0-0", "ann")]
    assert run(made, USERS, handover("ann", 3, offset=10)).merges == []


def test_items_of_a_merged_session_count_once_for_the_user():
    made = pipeline(k=1)
    session = handed_session(1, 2)
    run(
        made, USERS, view("ann", 0, "item-1"), handover("ann", 3, session), view("bob", 4, "pan"), view("cid", 5, "pan")
    )
    output = run(made, USERS, view("dan", 12, "cup"))
    assert [choice.item_id for choice in newest(output).items] == ["pan"]


# Exactly once


def test_repeat_of_a_handover_changes_nothing():
    made = pipeline()
    record = handover("ann", 1, handed_session(0, 1))
    output = run(made, USERS, record, record)
    assert output.outcomes == {"handover": 1, "repeated": 1}
    assert made.state(USERS).user("ann").length == 2


def test_repeat_is_known_after_a_restart_and_after_the_user_is_forgotten():
    made, heir = pipeline(), pipeline()
    record = handover("ann", 1, handed_session(0, 1))
    changes = run(made, USERS, view("bob", 0), record, tick(50), tick(90)).changes
    heir.load({USERS: restore(changes, f"{TOPIC}-{USERS}", Settings.of().sessions)})
    output = run(heir, USERS, record)
    assert (output.outcomes, output.closed_sessions) == ({"repeated": 1}, [])


def test_handovers_of_one_source_partition_come_in_order_and_of_others_by_themselves():
    made = pipeline()
    run(made, USERS, handover("ann", 1, handed_session(0), offset=9), handover("bob", 1, handed_session(0), offset=12))
    output = run(
        made,
        USERS,
        handover("cid", 1, handed_session(0), offset=11),
        handover("dan", 1, handed_session(0), partition=3, offset=2),
    )
    assert output.outcomes == {"repeated": 1, "handover": 1}


def test_crash_before_the_snapshot_writes_the_same_handover_again():
    log = records(view("cookie", 0, "a"), view("cookie", 1, "b"), identify("cookie", 2, "ann"))
    first, second = pipeline(), pipeline()
    changes = first.process(ANONYMOUS, log[:2]).changes
    lost = first.process(ANONYMOUS, log).handovers
    second.load({ANONYMOUS: restore(changes, f"{TOPIC}-{ANONYMOUS}", Settings.of().sessions)})
    assert second.process(ANONYMOUS, log).handovers == lost


BOUNDS: dict[str, object] = {"lateness_ms": 30 * MINUTE, "max_events": 100}  # no event is late or forgotten


class Shop:
    """A log of two partitions, each with a worker that may crash before its snapshots are stored."""

    def __init__(self) -> None:
        self.pipeline = pipeline(**BOUNDS)
        self.logs: dict[int, list[Recorded]] = {USERS: [], ANONYMOUS: []}
        self.changes: dict[int, list[ChangelogRecord]] = {USERS: [], ANONYMOUS: []}

    def send(self, partition: int, value: bytes) -> None:
        self.logs[partition].append(Recorded(len(self.logs[partition]), -1, None, value))

    def work(self, partition: int, limit: int, *, crashes: bool) -> None:
        """Process the next records of a partition, and write the hand-overs; a crash loses the new state alone."""
        start = self.pipeline.state(partition).offset + 1
        output = self.pipeline.process(partition, self.logs[partition][start : start + limit])
        for message in output.handovers:
            self.send(USERS, message.value or b"")
        if crashes:
            state = restore(self.changes[partition], f"{TOPIC}-{partition}", Settings.of(**BOUNDS).sessions)
            self.pipeline.load({partition: state})
        else:
            self.changes[partition] += output.changes

    def finish(self) -> None:
        for partition in (ANONYMOUS, USERS):
            self.work(partition, len(self.logs[partition]), crashes=False)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["anonymous", "own", "both"]), st.integers(0, 25)),
        st.just(("identify", 0)),
        st.tuples(st.sampled_from(["work", "crash"]), st.integers(0, 7)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(STEPS)
def test_merged_session_is_that_of_the_reference_for_any_order_and_any_crash(steps: Sequence[tuple[str, int]]):
    """The reference: all events of the user and all events before the last login, each id once, in order of time."""
    shop, mine, waiting = Shop(), dict[str, int](), dict[str, int]()
    for number, (step, value) in enumerate(steps):
        event_id, minute = f"event-{value}" if step == "both" else f"e{number}", value + number / 100
        if step in ("anonymous", "both"):
            shop.send(ANONYMOUS, encode_event(view("cookie", minute, f"item-{minute}", event_id=event_id)))
            waiting.setdefault(event_id, START + round(minute * MINUTE))
        if step in ("own", "both"):
            shop.send(USERS, encode_event(view("ann", minute, f"item-{minute}", event_id=event_id)))
            mine.setdefault(event_id, START + round(minute * MINUTE))
        if step == "identify":
            shop.send(ANONYMOUS, encode_event(identify("cookie", 26, "ann")))
            mine, waiting = waiting | mine, {}
        if step in ("work", "crash"):
            shop.work((USERS, ANONYMOUS)[value % 2], 1 + value, crashes=step == "crash")
    shop.finish()
    user = shop.pipeline.state(USERS).user("ann")
    assert {user.fingerprints[8 * row : 8 * row + 8] for row in range(len(user.ages))} == set(map(_hash, mine))
    assert user.ages == sorted(user.ages)
    assert user.length == len(mine)
    assert shop.pipeline.state(ANONYMOUS).user("cookie").length == len(waiting)


def _hash(text: str) -> bytes:
    return xxhash.xxh3_64_digest(text.encode())


# Consent


@pytest.mark.parametrize(
    ("anonymous", "own", "withheld"),
    [
        (withdraw("cookie", 0, "ads"), grant("ann", 1, "ads"), ("ads",)),
        (grant("cookie", 0, "ads"), withdraw("ann", 1, "ads"), ("ads",)),
        (withdraw("cookie", 0, "ads"), withdraw("ann", 1, "training"), ("ads", "training")),
        (withdraw("cookie", 0, "ads"), None, ("ads",)),
        (grant("cookie", 0, "ads"), None, ()),
        (None, withdraw("ann", 1, "ads"), ("ads",)),
    ],
)
def test_stricter_consent_wins_from_the_next_record_on(
    anonymous: PrivacyRecord | None, own: PrivacyRecord | None, withheld: tuple[Purpose, ...]
):
    made = pipeline()
    record = hand_over(made, *([anonymous] if anonymous else []), view("cookie", 2, "a"), identify("cookie", 3, "ann"))
    output = run(made, USERS, *([own] if own else []), record, view("ann", 4))
    assert (newest(output).withheld or ()) == withheld
    assert newest(output).session_length == 2


def test_what_was_said_under_one_id_counts_before_the_silence_of_the_other():
    made = pipeline(consent_personalisation="withdrawn")
    record = hand_over(
        made, grant("cookie", 0, "personalisation"), view("cookie", 1, "a"), identify("cookie", 2, "ann")
    )
    output = run(made, USERS, view("ann", 1), record, view("ann", 3))
    assert (newest(output).withheld, newest(output).session_length) == (msgspec.UNSET, 2)


def test_user_who_withdrew_personalisation_takes_nothing_over():
    made = pipeline()
    record = hand_over(made, purchase("cookie", 0, "a"), identify("cookie", 1, "ann"))
    output = run(made, USERS, withdraw("ann", 0, "personalisation"), record, view("ann", 2))
    assert newest(output).session_length == 1
    assert (made.state(USERS).user("ann").bought, made.state(USERS).open_sessions) == ([], 0)


def test_withdrawal_of_personalisation_under_the_anonymous_id_ends_the_history_of_the_user():
    made = pipeline()
    record = hand_over(made, withdraw("cookie", 0, "personalisation"), identify("cookie", 1, "ann"))
    output = run(made, USERS, view("ann", 0), record, view("ann", 2))
    assert [each.length for each in sessions(output)] == [1]
    assert newest(output).withheld == ("personalisation",)


def test_history_from_before_a_change_of_settings_is_not_handed_over():
    made, strict = pipeline(), pipeline(consent_personalisation="withdrawn")
    changes = run(made, ANONYMOUS, view("cookie", 0)).changes
    sessions_settings = Settings.of(consent_personalisation="withdrawn").sessions
    strict.load({ANONYMOUS: restore(changes, f"{TOPIC}-{ANONYMOUS}", sessions_settings)})
    output = run(strict, ANONYMOUS, identify("cookie", 1, "ann"))
    assert (output.handovers, [each.length for each in sessions(output)]) == ([], [1])


def test_statement_stays_with_the_anonymous_id_and_goes_to_a_user_once():
    made = pipeline()
    first = hand_over(made, withdraw("cookie", 0, "ads"), identify("cookie", 1, "ann"))
    run(made, USERS, first, grant("ann", 2, "ads"))
    assert run(made, ANONYMOUS, identify("cookie", 3, "ann")).handovers == []
    assert newest(run(made, ANONYMOUS, view("cookie", 4))).withheld == ("ads",)
    second = hand_over(made, identify("cookie", 5, "ann"))
    assert (second.consent, second.withheld) == (None, ("ads",))
    assert newest(run(made, USERS, second, view("ann", 6))).withheld is msgspec.UNSET
    assert hand_over(made, identify("cookie", 7, "bob")).consent is not None


def test_new_statement_of_the_anonymous_id_is_handed_over_again():
    made = pipeline()
    hand_over(made, withdraw("cookie", 0, "ads"), identify("cookie", 1, "ann"))
    record = hand_over(made, withdraw("cookie", 2, "training"), identify("cookie", 3, "ann"))
    assert record.consent is not None
    assert record.consent.withdrawn == ("ads", "training")


def test_statement_that_was_handed_over_holds_for_its_time():
    made = pipeline(consent_ttl_ms=60 * MINUTE)
    run(made, USERS, handover("ann", 1, consent=said(withdrawn=("ads",)), last_ts=0), view("bob", 0))
    assert made.state(USERS).user("ann").consent is not None
    run(made, USERS, tick(70))
    assert made.state(USERS).user("ann").consent is None


def test_late_grant_undoes_no_withdrawal_that_was_handed_over():
    made = pipeline()
    record = handover("ann", 1, consent=said(withdrawn=("ads",), minute=5), last_ts=0)
    assert newest(run(made, USERS, record, grant("ann", 4, "ads"), view("ann", 6))).withheld == ("ads",)
    assert newest(run(made, USERS, grant("ann", 5, "ads"), view("ann", 7))).withheld is msgspec.UNSET


def test_session_with_events_without_consent_to_training_is_not_published():
    made = pipeline(consent_training="withdrawn")
    grants = grant("ann", 0, "training"), grant("ann", 0, "training", "ads")
    record = hand_over(made, view("cookie", 1), identify("cookie", 2, "ann"))
    assert sessions(run(made, USERS, grants[0], view("ann", 1), record, tick(90))) == []
    again = hand_over(made, view("cookie", 100), identify("cookie", 101, "bob"))
    assert sessions(run(made, USERS, grant("bob", 0, "training"), again, tick(190))) == []


def test_session_of_the_user_without_consent_to_training_is_not_published_after_a_grant_by_handover():
    made = pipeline(consent_training="withdrawn")
    record = hand_over(made, grant("cookie", 0, "training"), view("cookie", 1), identify("cookie", 2, "ann"))
    assert sessions(run(made, USERS, view("ann", 1), record, tick(90))) == []


def test_session_that_was_withheld_before_the_last_grant_stays_withheld():
    made = pipeline(consent_training="withdrawn")
    record = hand_over(made, view("cookie", 0), grant("cookie", 1, "training"), identify("cookie", 2, "ann"))
    assert record.withheld == ("training",)
    assert sessions(run(made, USERS, record, tick(90))) == []


def test_half_that_is_over_is_not_published_without_consent_to_training():
    made = pipeline()
    record = handover("ann", 2, handed_session(0, 1), withheld=("training",))
    assert sessions(run(made, USERS, view("ann", 90), record)) == []


def test_own_session_is_published_where_the_half_without_consent_to_training_is_over():
    made = pipeline()
    record = handover("ann", 2, handed_session(0, 1), withheld=("training",))
    (session,) = sessions(run(made, USERS, view("ann", 90), record, tick(190)))
    assert (session.id, session.length) == ("events-0-0", 1)


def test_forged_words_about_consent_make_no_statement_for_ever():
    made = pipeline()
    run(made, USERS, handover("ann", 2, handed_session(0, 1), withheld=PURPOSES), tick(90), tick(91))
    assert "ann" not in str(made.state(USERS).contents())


# Erasure


def test_handover_from_before_an_erasure_is_dropped():
    made = pipeline()
    output = run(made, USERS, erase("ann", 5), handover("ann", 5, handed_session(0, 1), consent=said(("ads",))))
    assert output.outcomes == {"erase": 1, "handover": 1}
    assert made.state(USERS).user("ann") == UserState()


def test_handover_of_an_erased_anonymous_id_is_dropped():
    made = pipeline()
    run(made, USERS, erase("cookie", 5), handover("ann", 4, handed_session(0, 1)))
    assert made.state(USERS).open_sessions == 0


def test_user_who_comes_back_after_an_erasure_takes_over_again():
    made = pipeline()
    run(made, USERS, erase("ann", 5), handover("ann", 6, handed_session(0, 1)))
    assert made.state(USERS).user("ann").length == 2


def test_erasure_removes_what_was_taken_over():
    made = pipeline()
    run(made, USERS, handover("ann", 2, handed_session(0, 1), bought=("a",), consent=said(("ads",))), erase("ann", 3))
    assert made.state(USERS).user("ann") == UserState()


def test_erasures_are_remembered_over_a_restart_for_a_day_and_not_without_bound():
    made, heir = pipeline(), pipeline()
    output = run(made, USERS, *(erase(f"user-{number}", number / 100) for number in range(MAX_ERASURES + 1)))
    heir.load({USERS: restore(output.changes, f"{TOPIC}-{USERS}", Settings.of().sessions)})
    run(heir, USERS, handover("user-1", 0.01, handed_session(0)), handover("user-0", 0, handed_session(0), offset=10))
    assert [heir.state(USERS).user(f"user-{number}").length for number in (1, 0)] == [0, 0]
    changes = run(heir, USERS, tick(25 * 60)).changes
    assert decode_partition(changes[-1].value or b"").erasures == []


@pytest.mark.parametrize(("minute", "length"), [(1, 0), (1.01, 1)])
def test_handover_of_anybody_up_to_an_erasure_that_is_no_longer_remembered_is_dropped(minute: float, length: int):
    made, heir = pipeline(), pipeline()
    erasures = [erase("first", 1), erase("second", 0), *(erase(f"user-{number}", 2) for number in range(MAX_ERASURES))]
    output = run(made, USERS, *erasures)
    heir.load({USERS: restore(output.changes, f"{TOPIC}-{USERS}", Settings.of().sessions)})
    assert heir.state(USERS).contents() == made.state(USERS).contents()
    run(heir, USERS, handover("ann", minute, handed_session(minute)))
    assert heir.state(USERS).user("ann").length == length
    run(heir, USERS, tick(25 * 60), handover("bob", 0, handed_session(0), offset=10))
    assert decode_partition(heir.state(USERS).partition_record().value or b"").erasures == []


def test_erasure_with_an_older_time_does_not_shorten_an_earlier_one():
    made = pipeline()
    run(made, USERS, erase("ann", 5), erase("ann", 1), handover("ann", 4, handed_session(0)))
    assert made.state(USERS).user("ann").length == 0


# Bought items and class


def test_bought_items_become_one_list_with_those_of_the_newer_half_last():
    made = pipeline(max_bought=3)
    run(made, USERS, purchase("ann", 0, "a"), purchase("ann", 1, "b"))
    run(made, USERS, handover("ann", 5, None, bought=("c", "a"), last_ts=START + 4 * MINUTE))
    assert made.state(USERS).user("ann").bought == ["b", "c", "a"]
    run(made, USERS, handover("ann", 5, None, offset=10, bought=("d",), last_ts=START - MINUTE))
    assert made.state(USERS).user("ann").bought == ["b", "c", "a"]


def test_bought_items_of_a_handover_are_not_recommended_and_are_forgotten_in_their_time():
    made = pipeline(user_ttl_ms=60 * MINUTE)
    bought = handover("ann", 1, None, bought=("pot",), last_ts=START)
    output = run(made, USERS, bought, view("bob", 1, "pot"), view("bob", 2, "cup"), view("ann", 3, "pan"))
    assert "pot" not in [choice.item_id for choice in newest(output).items]
    run(made, USERS, tick(70), tick(80), tick(140))
    assert made.state(USERS).user("ann").bought == []


@pytest.mark.parametrize(
    ("own", "handed", "expected"),
    [(0, 0, 0), (0, 6, 6), (6, 0, 6), (1, 6, 1), (6, 1, 1), (1, 2, 2), (3, 2, 3), (4, 6, 4), (0, 1, 1)],
)
def test_declared_class_counts_before_a_recognised_one_and_a_machine_before_a_shopper(
    own: int, handed: int, expected: int
):
    assert merge_client(own, handed) == expected


def test_session_of_a_machine_makes_the_user_a_machine_that_does_not_count():
    made = pipeline(k=2)
    output = run(made, USERS, view("ann", 0, "pot"), handover("ann", 2, handed_session(0, 1), client=6), tick(90))
    assert output.closed_sessions == []
    assert made.state(USERS).user("ann").client == 6
    assert made.state(USERS).popular == []
    run(made, USERS, tick(31 * 24 * 60))
    assert "ann" not in str(made.state(USERS).contents())


def test_class_of_a_machine_stays_with_the_anonymous_id_and_is_handed_over():
    made = pipeline()
    bot = msgspec.structs.replace(view("cookie", 0), client="bot")
    record = hand_over(made, bot, identify("cookie", 1, "ann"))
    assert (record.client, made.state(ANONYMOUS).user("cookie").client) == (2, 2)
    assert run(made, ANONYMOUS, identify("cookie", 2, "ann")).handovers == []


def test_shopper_by_declaration_is_one_for_the_session_alone():
    made = pipeline()
    run(made, USERS, view("ann", 90), handover("ann", 91, handed_session(0, 1), client=1))
    assert made.state(USERS).user("ann").client == 0


def test_machine_of_a_session_that_is_over_is_known_from_then_on():
    made = pipeline()
    output = run(made, USERS, view("ann", 90), handover("ann", 91, handed_session(0, 1), client=6))
    assert (output.closed_sessions, made.state(USERS).user("ann").client) == ([], 6)


# Hostile input


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"offset": -1}, "offset"),
        ({"offset": 2**63}, "offset"),
        ({"partition": 10_000}, "partition"),
        ({"client": 99}, "client"),
        ({"bought": [""]}, "bought"),
        ({"withheld": ["sleep"]}, "withheld"),
        ({"session": {"session_id": "s"}}, "session"),
        ({"last_ts": 2**60}, "last_ts"),
    ],
)
def test_forged_handover_is_a_dead_letter(changes: dict[str, object], error: str):
    fields = msgspec.to_builtins(handover("ann", 2, handed_session(0, 1))) | {"type": "handover"} | changes
    (letter,) = run(pipeline(), USERS, msgspec.json.encode(fields)).dead_letters
    assert error in letter.error


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"events": []}, "session.events must have at least 1 entry, not 0"),
        ({"length": 1}, "more events than its length"),
        ({"length": 2**40}, "length"),
        ({"opened_at": START + 1}, "not in order of time"),
        ({"events": [[START, 1, "a", "AAAAAAAAAAA="], [START - 1, 1, "b", "BBBBBBBBBBA="]]}, "not in order of time"),
        ({"events": [[START, 1, "a", "AAAA"]]}, "session.events[0][3] must have at least 8 bytes"),
        ({"events": [[START, 9, "a", "AAAAAAAAAAA="]]}, "session.events[0][1] must be at most 7, not 9"),
    ],
)
def test_forged_session_is_a_dead_letter(changes: dict[str, object], error: str):
    fields = msgspec.to_builtins(handover("ann", 2, handed_session(0, 1))) | {"type": "handover"}
    fields["session"] |= changes
    (letter,) = run(pipeline(), USERS, msgspec.json.encode(fields)).dead_letters
    assert error in letter.error


def test_handover_of_the_future_is_a_dead_letter_and_an_old_one_is_none():
    made = pipeline(past_ms=MINUTE)
    value = encode_event(handover("ann", 2, handed_session(0, 100)))
    (letter,) = made.process(USERS, [Recorded(0, START, None, value)]).dead_letters
    assert "after the append time" in letter.error
    old = made.process(USERS, [Recorded(1, START + 500 * MINUTE, None, value)])
    assert old.outcomes == {"handover": 1}


def test_handover_with_an_open_decision_of_the_future_is_a_dead_letter():
    made = pipeline()
    ledgers = [
        encode_ledger(UserLedger([OpenDecision(1, 0, ts, "model", b"")])) for ts in (START, START + 500 * MINUTE)
    ]
    values = [encode_event(handover("ann", 2, None, offset=number, ledger=x)) for number, x in enumerate(ledgers, 7)]
    output = made.process(USERS, [Recorded(number, START, None, value) for number, value in enumerate(values)])
    assert output.outcomes["handover"] == 1
    assert [letter.record.offset for letter in output.dead_letters] == [1]
    assert "after the append time" in output.dead_letters[0].error


def test_handover_with_free_text_for_a_variant_is_a_dead_letter():
    ledger = encode_ledger(UserLedger([OpenDecision(1, 0, START, "x" * 1000, b"")]))
    fields = msgspec.to_builtins(handover("ann", 2, None)) | {"type": "handover", "ledger": ledger}
    output = run(pipeline(), USERS, msgspec.json.encode(fields))
    assert [letter.error for letter in output.dead_letters] == ["an open decision is damaged"]


TOMORROW = START // DAY_MS + 1


@pytest.mark.parametrize(
    "fields",
    [
        {"ads": HandedAds(day=TOMORROW, impressions=bytes(16))},
        {"consent": HandedConsent(withdrawn=("ads",), said_at=START, withdrawn_at=TOMORROW * DAY_MS)},
        {"consent": HandedConsent(granted=("ads",), said_at=TOMORROW * DAY_MS)},
        {"bought": ("tea",), "bought_days": (TOMORROW,)},
    ],
)
def test_handover_with_a_part_of_the_future_is_a_dead_letter(fields: dict[str, object]):
    value = encode_event(handover("ann", 2, None, **fields))
    (letter,) = pipeline().process(USERS, [Recorded(0, START, None, value)]).dead_letters
    assert "after the append time" in letter.error


def test_repeats_within_a_forged_session_count_once():
    made = pipeline()
    session = handed_session(0, 1)
    twice = msgspec.structs.replace(session, length=4, events=tuple(event for event in session.events for _ in "ab"))
    run(made, USERS, handover("ann", 2, twice))
    assert (made.state(USERS).user("ann").length, len(made.state(USERS).user("ann").items)) == (2, 2)


# Bytes


def test_handover_costs_a_user_a_byte_and_a_partition_a_few_bytes_a_source():
    made = pipeline()
    run(made, USERS, view("bob", 0))
    plain = _partition_bytes(made)
    run(made, USERS, handover("ann", 2, handed_session(0, 1)))
    snapshot = made.state(USERS).contents()[b"ann"]
    assert snapshot[-5:] == b"\xc3\xc0\xc0\x90\xc0"  # handed over, no ads, no ledger, no purchase, nothing seen
    assert decode_user(snapshot).is_handed
    assert _partition_bytes(made) - plain == 2
    run(made, USERS, handover("ann", 2, handed_session(0, 1), offset=2**53))
    run(made, USERS, erase("ann", 3))
    assert _partition_bytes(made) - plain == 10 + 20
    run(made, USERS, *(erase(f"user-{number}", 3) for number in range(1_000)))
    assert _partition_bytes(made) - plain <= 10 + 20 * MAX_ERASURES + 12 + 4  # 12 for all that were pushed out


def _partition_bytes(made: Pipeline) -> int:
    """Return the bytes of the partition's own record without the popular items."""
    snapshot = decode_partition(made.state(USERS).contents()[PARTITION_KEY])
    return len(encode(msgspec.structs.replace(snapshot, popular=[])))


def test_messages_of_a_batch_are_in_the_order_of_their_events():
    made = pipeline()
    events = [event for number in range(3) for event in (view(f"c{number}", 0), identify(f"c{number}", 1, "ann"))]
    offsets = [decode_record(message.value or b"") for message in run(made, ANONYMOUS, *events).handovers]
    assert [record.offset for record in offsets if isinstance(record, Handover)] == [1, 3, 5]
    assert all(isinstance(message, Message) for message in run(made, ANONYMOUS).handovers)


def test_open_decisions_go_over_with_the_session_and_alone():
    made = pipeline()
    first = made.process(ANONYMOUS, records(view("cookie", 0, "cup"), identify("cookie", 1, "ann")))
    (message,) = first.handovers
    again = made.process(ANONYMOUS, records(view("cookie", 2, "cup"), withdraw("cookie", 3, *PURPOSES), first=2))
    assert again.handovers == []
    received = made.process(USERS, records(message.value))
    assert received.outcomes["handover"] == 1
    assert [decision.partition for decision in made.state(USERS).ledger.user("ann").decisions] == [ANONYMOUS]
    assert made.state(ANONYMOUS).ledger.user("cookie").decisions == []


def test_open_decisions_go_over_when_the_session_is_over():
    made = pipeline(gap_ms=MINUTE, lateness_ms=0)
    log = [*records(view("cookie", 0, "cup")), *records(view("other", 5, "cup"), identify("cookie", 6, "ann"), first=1)]
    (message,) = made.process(ANONYMOUS, log).handovers
    record = decode_record(message.value or b"")
    assert isinstance(record, Handover)
    assert (record.session, record.ledger is not msgspec.UNSET) == (None, True)


def test_open_decisions_are_left_out_of_a_record_that_would_be_too_large():
    made = pipeline(max_event_bytes=700)
    (message,) = made.process(ANONYMOUS, records(view("cookie", 0, "cup"), identify("cookie", 1, "ann"))).handovers
    assert b"ledger" in (message.value or b"")
    made = pipeline(max_event_bytes=len(message.value or b"") - 1)
    (message,) = made.process(ANONYMOUS, records(view("cookie", 0, "cup"), identify("cookie", 1, "ann"))).handovers
    assert b"ledger" not in (message.value or b"")
    assert b"session" in (message.value or b"")
