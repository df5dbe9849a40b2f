"""Pipeline: what events come to, wherever batches begin and end and whenever a worker is restarted."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.events import AnyEvent, Click, Impression, PrivacyRecord, Tick, encode_event
from clickscore.schemas.handover import HandedConsent, Handover
from clickscore.schemas.purposes import purposes_of_bits
from clickscore.schemas.sessions import decode_session
from clickscore.stream.cut_bytes import cut_bytes, full_size
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Message, Output, WatermarkJump
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Request, Scores
from clickscore.stream.settings import SessionSettings, Settings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.changelog_record import ChangelogRecord
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
    search,
    view,
    withdraw,
)
from tests.integration.comparison import partition_facts
from tests.integration.event_log import BEGAN, event_log

TOPIC = "events"


def pipeline(**changed: object) -> Pipeline:
    settings = Settings.of(**changed)
    return Pipeline(settings.sessions, settings.policy, TOPIC, Catalogue())


def run(made: Pipeline, *events: AnyEvent | bytes | None) -> Output:
    return made.process(0, records(*events))


def decisions(output: Output) -> list[Recommendation]:
    decoded = [decode_decision(message.value or b"") for message in output.recommendations]
    return [decision for decision in decoded if isinstance(decision, Recommendation)]


def test_every_event_gets_one_decision():
    output = run(pipeline(), view("ann", 0), view("bob", 0), purchase("ann", 1), search("ann", 2), impression("bob", 3))
    assert [decision.event_id for decision in decisions(output)] == [
        view("ann", 0).event_id,
        view("bob", 0).event_id,
        purchase("ann", 1).event_id,
        search("ann", 2).event_id,
        impression("bob", 3).event_id,
    ]


def test_watch_sees_every_decision_with_its_request():
    made, seen = pipeline(), list[tuple[Request, bytes | None]]()
    made.watch = lambda due, _, page: seen.append((due.request, page.recommendation.value))
    output = run(made, view("ann", 0), view("ben", 1))
    assert [request.event.user_id for request, _ in seen] == ["ann", "ben"]
    assert [value for _, value in seen] == [message.value for message in output.recommendations]


def test_decision_is_named_after_its_events_place():
    assert decisions(run(pipeline(), view("ann", 0), view("ann", 1)))[1].decision_id == "events-0-1"


def test_decision_knows_its_own_event():
    assert [d.session_length for d in decisions(run(pipeline(), view("ann", 0), view("ann", 1)))] == [1, 2]


def test_repeated_event_gets_no_second_decision():
    output = run(pipeline(), view("ann", 0), view("ann", 0))
    assert (len(output.recommendations), output.outcomes["repeated"]) == (1, 1)


def test_repeated_event_changes_no_state():
    once, twice = pipeline(), pipeline()
    run(once, view("ann", 0))
    run(twice, view("ann", 0), view("ann", 0))
    assert once.state(0).user("ann") == twice.state(0).user("ann")


def test_late_event_is_decided_from_the_session_as_it_stands():
    output = run(pipeline(), view("ann", 0, "a"), view("bob", 10), view("ann", 4.9, "late"))
    assert (decisions(output)[-1].late, decisions(output)[-1].session_length) == (True, 1)


def test_late_event_changes_no_state():
    made = pipeline()
    run(made, view("ann", 0, "a"), view("bob", 10), view("ann", 4.9, "late"))
    assert made.state(0).user("ann").items == ["a"]


def test_event_at_the_watermark_is_not_late():
    output = run(pipeline(), view("bob", 10), view("ann", 5))
    assert [decision.late for decision in decisions(output)] == [False, False]


def test_late_event_is_a_dead_letter_where_the_setting_says_so():
    output = run(pipeline(late_events="dead-letter"), view("bob", 10), view("ann", 4.9))
    assert [letter.error for letter in output.dead_letters] == ["late: 306000 ms behind the newest event"]


BOUGHT = b'{"type":"purchase","event_id":"e","user_id":"u","ts":1700000000000,"item_id":"i",%s}'
"""A purchase, to be completed."""


def test_impression_enters_no_session():
    made = pipeline()
    run(made, view("ann", 0, "a"), impression("ann", 1, "b"))
    assert made.state(0).user("ann").items == ["a"]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, "null"),
        (b"rubbish", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b'{"type":"view","event_id":"\xff","user_id":"u","ts":1700000000000,"item_id":"i"}', "utf-8"),
        (b'{"type":"view","event_id":"e","user_id":"u","ts":"noon","item_id":"i"}', "ts"),
        (b'{"type":"view","event_id":"e","user_id":"u","ts":-1,"item_id":"i"}', "ts looks like a time before 1970"),
        (b'{"type":"view","event_id":"e","user_id":"u","ts":1767605470,"item_id":"i"}', "ts looks like seconds"),
        (b'{"type":"view","event_id":"e","user_id":"u","ts":1700000000000}', "item_id"),
        (b'{"type":"dance","event_id":"e","user_id":"u","ts":1700000000000}', "dance"),
        (b'{"type":"view","event_id":"e","user_id":"","ts":1700000000000,"item_id":"i"}', "user_id"),
        (b'{"type":"view","event_id":"e","user_id":"u","ts":1700000000000,"item_id":"i","price":1e13}', "price"),
        (BOUGHT % b'"price":9,"quantity":1000001', "quantity"),
        (BOUGHT % (b'"quantity":1' + b"0" * 400), "quantity"),
        (b"[" * 100_000, "bytes"),
        (b"[" * 60_000, "nested deeper than 64 levels"),
        (b'{"type":"epoch","number":1,"catalogue":1000000000000000000000,"campaigns":0}', "catalogue"),
        (b'{"type":"epoch","number":1,"catalogue":0,"campaigns":9007199254740993}', "campaigns"),
        (b'{"type":"epoch","number":9007199254740993,"catalogue":0,"campaigns":0}', "number"),
    ],
)
def test_record_that_is_no_event_is_a_dead_letter(value: bytes | None, error: str):
    output = run(pipeline(), value, view("ann", 0))
    assert len(output.dead_letters) == len(output.recommendations) == 1
    assert error in output.dead_letters[0].error


def test_unknown_fields_are_skipped():
    value = b'{"type":"view","event_id":"e","user_id":"u","ts":1700000000000,"item_id":"i","colour":"red"}'
    assert len(run(pipeline(), value).recommendations) == 1


@given(st.binary(max_size=200))
def test_no_bytes_stop_the_pipeline(value: bytes):
    output = run(pipeline(), value)
    assert len(output.dead_letters) == 1


@given(st.text(max_size=20), st.text(min_size=1, max_size=20))
def test_any_text_of_a_valid_event_is_taken_or_refused(name: str, user: str):
    event = msgspec.json.encode({"type": "view", "event_id": name, "user_id": user, "ts": START, "item_id": name})
    output = run(pipeline(), event)
    assert len(output.dead_letters) + len(output.recommendations) == 1


def appended(minutes_after: float) -> Recorded:
    """Return a record with an append time so many minutes after its event time."""
    return Recorded(0, START + round(minutes_after * MINUTE), b"ann", encode_event(view("ann", 0)))


def test_event_five_minutes_ahead_of_its_append_time_is_a_dead_letter():
    assert "more than future_ms" in pipeline().process(0, [appended(-5.1)]).dead_letters[0].error
    assert len(pipeline().process(0, [appended(-5)]).recommendations) == 1


def test_backfill_of_old_events_passes_by_default():
    assert len(pipeline().process(0, [appended(3 * 365 * 24 * 60)]).recommendations) == 1


def test_event_older_than_past_ms_is_a_dead_letter():
    output = pipeline(past_ms=60 * MINUTE).process(0, [appended(60.1)])
    assert output.dead_letters[0].error == "ts is 3606000 ms before the append time, more than past_ms"
    assert len(pipeline(past_ms=60 * MINUTE).process(0, [appended(60)]).recommendations) == 1


def test_wrong_units_of_time_are_refused_where_no_append_time_is_known():
    value = encode_event(view("ann", 0)).replace(str(START).encode(), b"1700000000")
    output = pipeline().process(0, [Recorded(0, -1, b"ann", value)])
    assert "ts looks like seconds" in output.dead_letters[0].error


@pytest.mark.parametrize("depth", [64, 65, 600, 950, 990, 1100])
def test_depth_of_a_record_decides_alike_on_every_stack(depth: int):
    """A field of an object is at depth 2: so 63 arrays in an unknown field are the limit."""
    nested = b"[" * (depth - 1) + b"]" * (depth - 1)
    value = encode_event(view("ann", 0))[:-1] + b',"extra":' + nested + b"}"

    def deep_run(frames: int) -> Output:
        return deep_run(frames - 1) if frames else run(pipeline(), value)

    shallow, deep = run(pipeline(), value), deep_run(300)
    assert len(shallow.recommendations) == len(deep.recommendations) == int(depth <= 64)


def test_tick_moves_the_watermark_and_gets_no_decision():
    made = pipeline()
    hour_later = START + 60 * MINUTE
    run(made, view("ann", 0))
    output = made.process(0, [Recorded(1, hour_later, None, msgspec.json.encode(Tick(ts=hour_later)))])
    assert (len(output.recommendations), output.outcomes["tick"]) == (0, 1)
    assert [decode_session(message.value or b"").user_id for message in output.closed_sessions] == ["ann"]


def test_session_closes_when_the_watermark_has_passed_its_gap():
    output = run(pipeline(), view("ann", 0), view("bob", 35), view("bob", 36.1))
    assert [decode_session(message.value or b"").user_id for message in output.closed_sessions] == ["ann"]


def test_session_stays_open_up_to_its_gap():
    assert run(pipeline(), view("ann", 0), view("bob", 35)).closed_sessions == []


def test_session_closes_when_its_user_comes_back_after_the_gap():
    output = run(pipeline(), view("ann", 0, "a"), view("ann", 31, "b"))
    assert [decode_session(m.value or b"").closed_at for m in output.closed_sessions] == [START]


def test_user_without_purchases_is_forgotten_with_the_session():
    made = pipeline()
    run(made, view("ann", 0), view("bob", 60))
    assert len(made.state(0)) == 1


def test_user_with_purchases_is_remembered_for_a_while():
    made = pipeline(user_ttl_ms=2 * 60 * MINUTE)
    run(made, purchase("ann", 0), view("bob", 60))
    assert made.state(0).user("ann").bought == ["kettle"]
    made.process(0, records(view("bob", 200), first=2))
    assert made.state(0).user("ann").bought == []


def test_what_was_bought_is_never_recommended():
    made = pipeline()
    output = run(made, view("bob", 0, "kettle"), view("bob", 1, "cup"), purchase("ann", 2), view("ann", 3, "pot"))
    assert [choice.item_id for choice in decisions(output)[-1].items] == ["cup"]  # the pot is on screen


def test_popular_is_what_open_sessions_hold_most():
    made = pipeline(k=1)
    many = [view(f"user-{number}", 0, "cup") for number in range(3)]
    output = run(made, view("ann", 0, "pot"), *many, view("bob", 10, "pan"))
    assert [[choice.item_id for choice in decision.items] for decision in decisions(output)][-1] == ["cup"]


def test_finished_records_are_skipped_after_a_restart():
    made = pipeline()
    log = records(view("ann", 0), view("ann", 1))
    made.process(0, log)
    output = made.process(0, log)
    assert (output.outcomes["skipped"], output.recommendations, output.changes) == (2, [], [])


def test_pipeline_without_a_scorer_waits_for_no_model():
    made = pipeline()
    assert not made.has_model
    assert [group.scores for group in made.begin([(0, records(view("ann", 0)))]).groups] == [None]


# Laws, on logs of every kind: out of order, late, repeated, broken, with several users and sessions.

USERS = ("ann", "bob", "cid")


@st.composite
def logs(draw: st.DrawFn) -> list[Recorded]:
    steps = draw(st.lists(st.tuples(st.sampled_from(USERS), st.integers(-8, 25), st.integers(0, 20)), max_size=60))
    log: list[Recorded] = []
    minute = 0
    for offset, (user, step, kind) in enumerate(steps):
        minute = max(0, minute + step)
        event = _handover(user, minute, offset) if kind == 16 else _event(user, minute, kind)
        if kind > 16 and offset:
            event = reaction(user, minute, kind, decision=max(0, offset - kind % 7))
        value = b"broken" if kind == 9 else encode_event(event)
        log.append(Recorded(offset, START + minute * MINUTE, user.encode(), value))
    return log


def _event(user: str, minute: int, kind: int) -> Tick | AnyEvent | PrivacyRecord:
    item = f"item-{kind % 4}"
    if kind == 6:
        return purchase(user, minute, item)
    if kind == 7:
        return search(user, minute)
    if kind == 8:
        return impression(user, minute, item)
    if kind == 10:
        return Tick(ts=START + minute * MINUTE)
    if kind >= 12:
        return _privacy_record(user, minute, kind)
    made = view(user, minute, item, session="web" if kind == 11 else None)
    return msgspec.structs.replace(made, client=("shopper", "bot", "agent")[minute % 3]) if minute % 17 == 5 else made


def reaction(user: str, minute: int, kind: int, decision: int) -> Click | Impression:
    """Return a click on what the decision at an offset may show, or its impression; some name it by its ads."""
    seen = impression(user, minute, f"item-{kind % 4}")
    decision_id = f"events-0-{decision}" + ("-ad" if minute % 5 == 0 else "")
    if kind % 2:
        return msgspec.structs.replace(seen, decision_id=decision_id)
    return Click(
        event_id=f"{user}-{minute}-clicks", user_id=user, ts=seen.ts, item_id=seen.item_id, decision_id=decision_id
    )


def _privacy_record(user: str, minute: int, kind: int) -> PrivacyRecord:
    purposes = purposes_of_bits(minute % 7 + 1)
    if kind == 15:
        return identify(user, minute, USERS[USERS.index(user) - 1])
    if kind == 12:
        return grant(user, minute, *purposes)
    return withdraw(user, minute, *purposes) if kind == 13 else erase(user, minute)


def _handover(user: str, minute: int, offset: int) -> Handover:
    """Return a hand-over of a session of several lengths and ages, with and without consent; each fifth is a repeat."""
    minutes = [max(0.0, minute - back / 2) for back in range(minute % 9, 0, -1)]
    said_at = START + minute * MINUTE
    bits = minute % 6 + 2
    said = HandedConsent(granted=purposes_of_bits(7 & ~bits), withdrawn=purposes_of_bits(bits), said_at=said_at)
    return handover(
        user,
        minute,
        handed_session(*minutes, first=offset) if minutes else None,
        partition=1 + minute % 2,
        offset=offset - minute % 5,
        bought=("cup", "item-1") if minute % 4 == 1 else (),
        last_ts=said_at,
        consent=said if minute % 7 == 3 else None,
        withheld=purposes_of_bits(minute % 8) if minute % 3 == 2 else (),
        client=minute % 9,
    )


def outputs(made: Pipeline, log: Sequence[Recorded], sizes: Sequence[int]) -> list[Output]:
    batches: list[Output] = []
    start = 0
    for size in [*sizes, len(log)]:
        batches.append(made.process(0, log[start : start + size]))
        start += size
    return batches


def decided(batches: Sequence[Output]) -> list[Message]:
    return [message for output in batches for message in output.recommendations]


def outcomes(batches: Sequence[Output]) -> list[Message]:
    return [message for output in batches for message in output.decision_outcomes]


def receipts(batches: Sequence[Output]) -> list[Message]:
    return [message for output in batches for message in output.receipts]


def handovers(batches: Sequence[Output]) -> list[Message]:
    return [message for output in batches for message in output.handovers]


def closed(batches: Sequence[Output]) -> set[Message]:
    return {message for output in batches for message in output.closed_sessions}


@settings(max_examples=200)
@given(logs(), st.lists(st.integers(1, 20), max_size=10))
def test_batch_boundaries_change_nothing(log: list[Recorded], sizes: list[int]):
    whole, split = pipeline(), pipeline()
    at_once, in_parts = outputs(whole, log, []), outputs(split, log, sizes)
    assert decided(at_once) == decided(in_parts)
    assert closed(at_once) == closed(in_parts)
    assert outcomes(at_once) == outcomes(in_parts)
    assert receipts(at_once) == receipts(in_parts)
    assert handovers(at_once) == handovers(in_parts)
    assert whole.state(0).contents() == split.state(0).contents()


@settings(max_examples=100)
@given(logs(), st.integers(0, 60))
def test_beginning_the_next_before_finishing_the_first_changes_nothing(log: list[Recorded], split: int):
    in_turn, overlapped = pipeline(), pipeline()
    first = overlapped.begin([(0, log[:split])])
    second = overlapped.begin([(0, log[split:])])
    results = [*overlapped.finish(first), *overlapped.finish(second)]
    expected = [*in_turn.process_all([(0, log[:split])]), *in_turn.process_all([(0, log[split:])])]
    assert results == expected
    assert overlapped.state(0).contents() == in_turn.state(0).contents()


@settings(max_examples=200)
@given(logs(), st.lists(st.integers(1, 20), max_size=10), st.integers(0, 10))
def test_restart_from_the_changelog_changes_nothing(log: list[Recorded], sizes: list[int], crash_after: int):
    whole = pipeline()
    expected = outputs(whole, log, [])
    first = pipeline()
    previous = outputs(first, log, sizes)[:crash_after]
    changes = [change for output in previous for change in output.changes]
    second = pipeline()
    second.load({0: restore(changes, "events-0", SessionSettings())})
    resumed = outputs(second, log, [])
    assert decided(previous) + decided(resumed) == decided(expected)
    assert closed(previous) | closed(resumed) == closed(expected)
    assert outcomes(previous) + outcomes(resumed) == outcomes(expected)
    assert receipts(previous) + receipts(resumed) == receipts(expected)
    assert handovers(previous) + handovers(resumed) == handovers(expected)
    assert second.state(0).contents() == whole.state(0).contents()


def test_restart_after_every_batch_leaves_the_counts_of_popularity():
    """A long log with consent and erasure: what a restart derives is what the worker had counted."""
    whole, heir = pipeline(max_events=20), pipeline(max_events=20)
    bounds = SessionSettings(max_events=20)
    sent = event_log(4_000, seed=1, users=80, privacy=0.03)
    log = [
        Recorded(offset, BEGAN + 365 * 24 * 60 * MINUTE, record.key, record.value) for offset, record in enumerate(sent)
    ]
    changes: list[ChangelogRecord] = []
    for start in range(0, len(log), 200):
        expected, output = (made.process(0, log[start : start + 200]) for made in (whole, heir))
        assert output.recommendations == expected.recommendations
        assert partition_facts(heir.state(0)) == partition_facts(whole.state(0))
        changes += output.changes
        heir.load({0: restore(changes, "events-0", bounds)})


@settings(max_examples=100)
@given(logs())
def test_never_more_than_k_items_none_twice_and_none_bought(log: list[Recorded]):
    made = pipeline(k=3)
    bought: dict[str, set[str]] = {user: set() for user in USERS}
    for record in log:
        for decision in decisions(made.process(0, [record])):
            items = [choice.item_id for choice in decision.items]
            bought[decision.user_id] = set(made.state(0).user(decision.user_id).bought)
            assert len(items) <= 3
            assert len(set(items)) == len(items)
            assert not bought[decision.user_id] & set(items)


@settings(max_examples=100)
@given(logs())
def test_every_record_comes_to_exactly_one_outcome(log: list[Recorded]):
    output = pipeline().process(0, log)
    assert output.outcomes.total() == len(log)
    assert output.outcomes["decided"] + output.outcomes["late"] == len(output.recommendations)


# Without decisions, and with decisions that somebody else makes


def test_advancing_closes_sessions_and_decides_nothing():
    made = pipeline()
    (output,) = made.advance_all([(0, records(view("ann", 0), view("ann", 60)))])
    assert (len(output.closed_sessions), output.recommendations) == (1, [])


def test_advancing_leaves_the_state_that_processing_leaves():
    advanced, processed = pipeline(), pipeline()
    advanced.advance_all([(0, records(view("ann", 0), view("bob", 1)))])
    run(processed, view("ann", 0), view("bob", 1))
    kept = {key: value for key, value in processed.partitions[0].contents().items() if not key.startswith(b"\0")}
    assert advanced.partitions[0].contents() == kept  # the ledger knows decisions alone


def test_user_id_that_might_be_a_key_of_the_ledger_is_a_dead_letter():
    output = pipeline().process(0, records(view("\0uann", 0), erase("\0uann", 1)))
    assert {letter.error[:12] for letter in output.dead_letters} == {"user_id begi"}
    assert output.outcomes["dead"] == 2


def test_requests_are_collected_in_order_of_their_events():
    _, requests, _ = pipeline().collect_requests([(0, records(view("ann", 0))), (1, records(view("bob", 1)))])
    assert [request.decision_id for request in requests] == ["events-0-0", "events-1-0"]


# Which partitions there are


def test_partitions_change_only_by_the_pipelines_own_methods():
    made = pipeline()
    with pytest.raises(TypeError):
        made.partitions[0] = made.state(0)  # pyright: ignore[reportIndexIssue]


def test_dropped_partition_starts_empty():
    made = pipeline()
    run(made, view("ann", 0))
    made.drop([0, 7])
    assert len(made.state(0)) == 0


def test_loaded_state_goes_on():
    made, heir = pipeline(), pipeline()
    run(made, view("ann", 0))
    heir.load({0: made.partitions[0]})
    assert decisions(heir.process(0, records(view("ann", 1), first=1)))[0].session_length == 2


# Jumps of the newest event time


def test_event_that_moves_the_newest_time_by_more_than_the_gap_is_named():
    made = pipeline()
    ahead = Recorded(1, START + 28 * MINUTE, b"bob", encode_event(view("bob", 30.1, event_id="early")))
    assert run(made, view("ann", 0)).jumps == []
    jump = WatermarkJump(1, "early", "bob", round(30.1 * MINUTE), round(2.1 * MINUTE))
    assert made.process(0, [ahead]).jumps == [jump]


def test_moves_up_to_the_gap_and_ticks_and_late_events_are_no_jumps():
    tick = encode_event(Tick(ts=START + 100 * MINUTE))
    log = [*records(view("ann", 0), view("bob", 30)), Recorded(2, -1, None, tick), *records(view("eve", 40), first=3)]
    assert pipeline().process(0, log).jumps == []


def test_jump_of_an_event_without_an_append_time_has_no_lead():
    log = [Recorded(0, -1, None, encode_event(view("ann", 0))), Recorded(1, -1, None, encode_event(view("bob", 31)))]
    (jump,) = pipeline().process(0, log).jumps
    assert jump.ahead_ms is None


# Items by origin


class OneItemScorer:
    """A scorer that knows the item `known`, and recommends `best` after it."""

    version = "one"
    popular = ("p",)
    known_items = ("known",)

    def item_vectors(self, items: Sequence[str]) -> np.ndarray:
        return np.zeros((len(items), 1))

    def count_known(self, items: Iterable[str]) -> int:
        return sum(item == "known" for item in items)

    def submit(self, requests: Sequence[Request]) -> "OneItemScorer":
        self.requests = requests
        return self

    def results(self) -> Iterator[tuple[int, Scores | None]]:
        for index, request in enumerate(self.requests):
            if "known" in request.items:
                yield index, Scores([1], [0.5], {}, 0.1, ["", "best"])
            elif "strange" in request.items:  # a bundle for all events: probabilities without candidates
                yield index, Scores([], [], {}, 0.1, ["", "best"])
            else:
                yield index, None


def scored_pipeline(**changed: object) -> Pipeline:
    values = Settings.of(**changed)
    return Pipeline(values.sessions, values.policy, TOPIC, Catalogue(), OneItemScorer())  # pyright: ignore[reportArgumentType]


def test_items_are_counted_by_variant_and_reason():
    output = run(scored_pipeline(k=2), view("ann", 0, "known"), view("bob", 0, "strange"), view("eve", 0, "other"))
    reasons = Counter(choice.reason for decision in decisions(output) for choice in decision.items)
    assert output.items == {("model", reason): count for reason, count in reasons.items()}
    assert (reasons["model"], reasons["popular"] > 0) == (1, True)


def test_control_variant_has_items_of_the_fallback_alone():
    output = run(scored_pipeline(k=2, control_share=1.0), view("ann", 0, "known"))
    assert output.items.keys() == {("popular", "popular")}


def test_every_event_without_a_known_item_is_unscored():
    output = run(scored_pipeline(), view("ann", 0, "known"), view("bob", 0, "strange"), view("eve", 0, "other"))
    assert output.unscored == 2


def test_known_items_of_the_catalogue_are_counted():
    made = scored_pipeline()
    assert pipeline().describe_catalogue() is None
    assert made.describe_catalogue() == "bundle one: the catalogue has no items"
    for item in ("known", "other", "gone"):
        made.catalogue.update_item(item.encode(), encode(Item(item_id=item)))
    made.catalogue.update_item(b"gone", None)
    assert made.describe_catalogue() == "bundle one: 1 of 2 catalogue items are known to the bundle"


def test_deciders_are_those_of_every_partition_with_and_without_events():
    made = scored_pipeline()
    run(made, view("ann", 0, "known"))
    made.state(1)
    assert [deciders.champion.bundle for deciders in made.find_all_deciders()] == ["one", "one"]


def test_decision_names_the_offset_of_its_event():
    output = run(pipeline(), view("ann", 0), view("bob", 1))
    assert [message.event_offset for message in output.recommendations] == [0, 1]


# Cut keys and values


def test_only_what_exceeds_the_limit_is_cut_and_its_size_is_remembered():
    assert cut_bytes(3, None) is None
    assert cut_bytes(3, b"abc") == b"abc"
    cut = cut_bytes(3, b"abcdef") or b""
    assert (cut, full_size(cut), full_size(b"abc")) == (b"abcd", 6, 3)


def test_cut_value_gets_the_reason_of_the_whole_value():
    limit = SessionSettings().max_event_bytes
    values = bytes(limit * 9), cut_bytes(limit, bytes(limit * 9))
    whole, cut = (pipeline().process(0, [Recorded(0, START, None, value)]) for value in values)
    assert whole.dead_letters[0].error == cut.dead_letters[0].error
