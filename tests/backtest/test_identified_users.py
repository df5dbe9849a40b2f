"""Identity in a backtest: a session that moves from an anonymous id to a user is judged as a whole."""

from collections import Counter
from pathlib import Path

from clickscore.backtest import label_join as book
from clickscore.backtest.backtest_run import _cut_at_handovers  # pyright: ignore[reportPrivateUsage]
from clickscore.backtest.label_join import LabelJoin
from clickscore.backtest.shared_pipelines import ArmDecisions
from clickscore.schemas.events import encode_event
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import PolicySettings, SessionSettings
from tests.backtest.contests import arm, contest
from tests.chaos.privacy_records import with_identities
from tests.events import handed_session, handover, identify, records, view
from tests.integration.event_log import event_log


def test_events_before_and_after_the_login_are_judged_as_one_session(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    events = [
        view("cookie", 0, "a"),
        view("cookie", 1, "b"),
        identify("cookie", 2, "ann"),
        view("ann", 3, "c"),
        view("ann", 90, "d"),  # ends the session, and is open itself where the log ends
    ]
    log.write_bytes(b"\n".join(map(encode_event, events)))
    evidence = contest(log, [arm("popularity")], leak_sample=10)
    assert evidence.columns.column("length").tolist() == [1, 2, 3]
    assert evidence.records == len(events)
    assert evidence.join.left_out == Counter({book.PRIVACY: 1, book.OPEN: 1})
    assert (evidence.leak_check.events, evidence.leak_check.leaks) == (4, ())


def test_every_record_of_a_log_with_identities_is_judged_or_left_out_for_a_reason(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    sent = with_identities(event_log(2_500, seed=8, users=60), seed=8)
    log.write_bytes(b"\n".join(record.value or b"null" for record in sent))
    arms = [arm("popularity"), arm("short", baseline="repeat", gap_ms=600_000)]
    evidence = contest(log, arms, leak_sample=300)
    left_out = evidence.join.left_out
    assert evidence.records == len(sent)
    assert len(evidence.columns) + left_out.total() == len(sent)
    assert left_out[book.PRIVACY] > 10
    assert (evidence.leak_check.events >= 300, evidence.leak_check.leaks) == (True, ())


def test_each_handover_of_a_topic_begins_a_batch() -> None:
    log = records(view("ann", 0), handover("ann", 1), view("ann", 2), handover("ann", 3, offset=10))
    parts = list(_cut_at_handovers([(0, log), (1, log[:1])]))
    offsets = [[(partition, [record.offset for record in part]) for partition, part in batches] for batches in parts]
    assert offsets == [[(0, [0])], [(0, [1])], [(0, [2])], [(0, [3])], [(0, []), (1, [0])]]


def test_session_whose_anonymous_part_lies_before_the_log_is_judged_from_there_on() -> None:
    pipeline = Pipeline(SessionSettings(), PolicySettings(), "events", Catalogue())
    join = LabelJoin([True], lambda _: None)
    over = handover("bob", 1, handed_session(0, first=3), offset=10)
    log = records(handover("ann", 2, handed_session(0, 1)), view("ann", 3, "c"), view("ann", 90, "d"), over)
    for record in log:
        outputs, requests, _ = pipeline.collect_requests([(0, [record._replace(timestamp=-1)])])
        join.add(outputs, [ArmDecisions(request, True, [], []) for request in requests])
    join.finish()
    assert join.left_out == Counter({book.UNDECIDED: 2, book.OPEN: 0})


def test_session_published_by_a_handover_may_end_after_the_next_session_of_the_anonymous_id() -> None:
    pipeline = Pipeline(SessionSettings(), PolicySettings(), "events", Catalogue())
    join = LabelJoin([True], lambda _: None)
    logs = {
        0: records(
            view("cookie", 0, "a"), identify("cookie", 1, "ann"), view("cookie", 2, "b"), view("someone", 90, "c")
        ),
        1: records(view("bob", 90, "d"), handover("ann", 1, handed_session(0, first=0), partition=0)),
    }
    for partition, log in logs.items():
        for record in log:
            outputs, requests, _ = pipeline.collect_requests([(partition, [record._replace(timestamp=-1)])])
            join.add(outputs, [ArmDecisions(request, True, [], []) for request in requests])
    join.finish()
    assert join.left_out == Counter({book.UNDECIDED: 4, book.OPEN: 0})
