"""Worker: what it says of itself, follows beside the events, and writes while nothing comes."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import ProxyHandler, build_opener

import msgspec
import pytest

from clickscore.schemas.catalogue import Item
from clickscore.schemas.decisions import Ad, decode_decision
from clickscore.schemas.events import View, encode_event
from clickscore.schemas.topics import ADS, EVENTS, RECOMMENDATIONS
from clickscore.stream.kafka.topics import create_topics, delete_topics
from tests.integration.comparison import Evidence, gather_evidence, headers, partition_facts
from tests.integration.event_log import BEGAN, ITEMS, Sent, campaigns, catalogue, event_log
from tests.integration.live import Installation, Worker, installation

pytestmark = pytest.mark.kafka

WAIT_S = 30


def metrics(worker: Worker) -> dict[str, float]:
    """Return its samples by name and labels."""
    url = f"http://{worker.settings.worker.web_host}:{worker.settings.worker.web_port}/metrics"
    with build_opener(ProxyHandler({})).open(url, timeout=20) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def wait_metric(worker: Worker, name: str, value: float) -> None:
    deadline = time.monotonic() + WAIT_S
    while (found := metrics(worker).get(name)) != value:
        assert time.monotonic() < deadline, f"{name} is {found}, not {value}"
        time.sleep(0.1)


def view(event_id: str, ts: int = BEGAN, user: str = "u") -> Sent:
    return Sent(encode_event(View(event_id=event_id, user_id=user, ts=ts, item_id=ITEMS[0])), user.encode())


# Reports


class Reported(NamedTuple):
    metrics: dict[str, float]
    health: dict
    evidence: Evidence
    headers: dict[str, str]
    """Of a decision."""


@pytest.fixture(scope="module")
def reported(broker: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    with installation(broker, tmp_path_factory.mktemp("reported"), bundle=str(bundle)) as live:
        live.fill_catalogue(catalogue(), campaigns())
        worker = live.start_worker()
        live.produce(event_log(3_000, seed=10))
        live.wait_finished()
        found, health = metrics(worker), worker.health()
        worker.stop()
        first = next(record for records in live.read(RECOMMENDATIONS).values() for record in records)
        return Reported(found, health, gather_evidence(live), headers(first))


def test_metrics_count_events_by_what_became_of_them(reported: Reported) -> None:
    name = re.compile(r'clickscore_events_total\{outcome="(\w+)"\}')
    counted = {match[1]: value for key, value in reported.metrics.items() if (match := name.fullmatch(key))}
    assert Counter(counted) == reported.evidence.replay.outcomes


def test_metrics_count_what_was_published(reported: Reported) -> None:
    published = reported.metrics['clickscore_published_total{topic="recommendation-decisions"}']
    assert published == len(reported.evidence.live.recommendations)


def test_metrics_never_name_a_user(reported: Reported) -> None:
    assert not any("user-" in name for name in reported.metrics)


def test_health_says_how_much_is_remembered_and_that_nothing_is_left_to_do(reported: Reported) -> None:
    states = reported.evidence.replay.states.values()
    assert reported.health["lag"] == 0
    assert reported.health["users"] == sum(map(len, states))
    assert reported.health["open_sessions"] == sum(state.open_sessions for state in states)


def test_wall_clock_facts_are_headers_of_a_decision(reported: Reported) -> None:
    assert msgspec.json.decode(reported.headers["scored"]).keys() == {"worker", "at", "took_ms"}


# What the shop says meanwhile


@pytest.fixture
def live(broker: str, tmp_path: Path) -> Iterator[Installation]:
    with installation(broker, tmp_path, tick_after_ms=2_000) as running:
        yield running


def test_item_that_goes_out_of_stock_is_shown_no_longer(live: Installation, bundle: Path) -> None:
    worker = live.start_worker(bundle=str(bundle))
    live.produce([view("before")])
    live.wait_decisions(1)
    live.fill_catalogue([Item(item_id=item, stock=0) for item in ITEMS[:200]], [])
    wait_metric(worker, "clickscore_catalogue_updates", 200)
    live.produce([view("after")])
    live.wait_decisions(2)
    records = (record for found in live.read(RECOMMENDATIONS).values() for record in found)
    decisions = (decode_decision(record.value) for record in records)
    item_ids = {decision.event_id: {choice.item_id for choice in decision.items} for decision in decisions}
    assert item_ids["before"] & set(ITEMS[:200])
    assert item_ids["after"]
    assert not item_ids["after"] & set(ITEMS[:200])


def test_campaign_that_starts_meanwhile_is_shown(live: Installation) -> None:
    worker = live.start_worker()
    live.produce([view("before")])
    live.wait_decisions(1)
    live.fill_catalogue([], campaigns()[2:3])
    wait_metric(worker, "clickscore_catalogue_updates", 1)
    live.produce([view("after")])
    live.wait_finished()
    (ad,) = (decode_decision(record.value) for records in live.read(ADS).values() for record in records)
    assert isinstance(ad, Ad)
    assert (ad.event_id, ad.campaign_id) == ("after", "everybody")


# Time


def test_idle_partition_gets_a_tick_in_the_log_so_that_a_replay_meets_the_same_time(live: Installation) -> None:
    worker = live.start_worker()
    live.produce([view("now", ts=int(time.time() * 1000))])
    deadline = time.monotonic() + WAIT_S
    while len(live.events()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    worker.stop()
    live.start_worker(tick_after_ms=0)
    live.wait_finished()
    evidence = gather_evidence(live)
    assert evidence.replay.outcomes["tick"] >= 1
    assert {number: partition_facts(state) for number, state in evidence.live.states.items()} == {
        number: partition_facts(state) for number, state in evidence.replay.states.items()
    }


def test_idle_partition_of_a_backfill_gets_no_tick(live: Installation) -> None:
    live.start_worker()
    live.produce([view("long-ago")])
    live.wait_finished()
    time.sleep(4)
    assert len(live.events()) == 1


# Topics that were made anew


def test_worker_refuses_a_state_that_is_ahead_of_events_which_were_made_anew(live: Installation) -> None:
    live.produce(event_log(400))
    live.start_worker()
    live.wait_finished()
    live.stop_workers()
    asyncio.run(delete_topics(live.settings.kafka, [EVENTS]))
    asyncio.run(create_topics(live.settings.kafka))
    worker = live.start_worker()
    assert worker.wait(WAIT_S) == 1
    message = worker.output.splitlines()[-1]
    assert message.startswith(f"clickscore: {live.settings.kafka.topic_prefix}session-snapshots holds the state of ")
    assert message.endswith("make it anew with `clickscore topics create`")
