"""Explain: ids without an event say why, and published records are found in both topics."""

import asyncio

import msgspec
import pytest

from clickscore.schemas.explanations import Explanation
from clickscore.schemas.topics import ADS, RECOMMENDATIONS
from clickscore.stream.decision_ids import parse_decision_id
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.explain import DecisionLog, explain_cases, read_published
from clickscore.stream.replay.recompute import recompute_cases
from clickscore.stream.settings import KafkaSettings, PolicySettings, SessionSettings
from tests.events import records, view
from tests.memory_kafka import MemoryLog

LOG = DecisionLog("shop-events", {0: (100, 250), 1: (0, 0)})


@pytest.mark.parametrize("text", ["shop-events-0-100", "shop-events-0-249-ad"])
def test_event_that_is_there_is_no_problem(text: str):
    assert LOG.problem(parse_decision_id(text)) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shop-events-0-250", "it does not exist: partition 0 of shop-events ends before offset 250"),
        ("shop-events-1-0", "it does not exist: partition 1 of shop-events ends before offset 0"),
        ("shop-events-0-99", "its event was deleted by retention: partition 0 of shop-events begins at offset 100"),
        ("shop-events-2-0", "shop-events has no partition 2: the topic has 2 partitions"),
        ("events-0-100", "it belongs to an event of the topic events, and the events of this installation are in shop"),
    ],
)
def test_event_that_is_not_there_is_a_problem_in_words(text: str, words: str):
    assert (LOG.problem(parse_decision_id(text)) or "").startswith(words)


def test_beginning_that_is_not_read_is_named():
    assert "partition 0 was read from offset 100 on (the log begins there)" in LOG.missing(0, 100)[0]
    assert "from offset 130 on (a longer --warm-up reads more)" in LOG.missing(0, 130)[0]
    assert LOG.missing(1, 0) == []


def test_reading_begins_with_the_log_or_so_many_records_before():
    assert [LOG.read_from(0, 200, warm_up) for warm_up in (None, 0, 30, 1_000)] == [100, 200, 170, 100]


def test_id_whose_offset_holds_no_record_is_answered_after_the_others():
    ids = [parse_decision_id(f"shop-events-0-{offset}") for offset in (101, 102, 103)]
    targets = {0: {decision_id.offset: [decision_id] for decision_id in ids}}
    pipeline = Pipeline(SessionSettings(), PolicySettings(), LOG.topic, Catalogue())
    log = [*records(view("ann", 0), view("ann", 1), first=100), *records(view("ann", 2), first=103)]
    read, after, absent = explain_cases(
        LOG,
        lambda decision_id, _: Explanation(decision_id=str(decision_id), verdict="equal"),
        recompute_cases(pipeline, [(0, log)], targets),
        targets,
    )
    assert (read.decision_id, after.decision_id) == ("shop-events-0-101", "shop-events-0-103")
    assert (absent.decision_id, absent.verdict) == ("shop-events-0-102", "not recomputed")
    assert absent.problem == (
        "partition 0 of shop-events has no record at offset 102: it is the mark of a transaction, or its transaction "
        "was aborted"
    )


def test_recommendations_and_ads_are_found_where_the_topics_exist():
    log = MemoryLog()
    for topic, decision_id in (
        (RECOMMENDATIONS, "events-0-5"),
        (ADS, "events-0-5-ad"),
        (RECOMMENDATIONS, "events-0-6"),
    ):
        log.append(topic.name, 0, None, msgspec.json.encode({"decision_id": decision_id}))
    both, one = (
        asyncio.run(read_published(KafkaSettings(), log.open_reader, {0: [5]}, dict.fromkeys(topics, 1)))
        for topics in ([RECOMMENDATIONS.name, ADS.name], [RECOMMENDATIONS.name])
    )
    assert list(both.values) == ["events-0-5", "events-0-5-ad"]
    assert list(one.values) == ["events-0-5"]
