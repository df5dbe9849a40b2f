"""Replay of topics: byte for byte what live workers decided, and that a difference is found."""

import asyncio
import datetime
import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.events import read_epoch
from clickscore.schemas.topics import ADS, CLOSED_SESSIONS, EVENTS, RECOMMENDATIONS, Topic
from clickscore.stream.kafka.topics import create_topics, delete_topics
from clickscore.stream.settings import environment_of
from tests.integration.event_log import campaigns, catalogue, event_log
from tests.integration.live import ROOT, Installation, Sent, _produce, installation

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

BOUNDS = {"max_events": 20, "max_bought": 5, "control_share": 0.2}
EVENTS_SENT = 12_000
PLANTED = Topic(name="planted-decisions", per_user=True, config=RECOMMENDATIONS.config)


class Live(NamedTuple):
    installation: Installation
    decisions: dict[int, list[bytes]]
    """Recommendations of each partition and the ads that belong to them, each once, in the order of their events."""
    repeats: int
    sessions: set[bytes]


@pytest.fixture(scope="module")
def live(broker: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """What two workers made of a log, of whom one was killed and replaced by one with other batches."""
    log = event_log(EVENTS_SENT, seed=11)
    with installation(
        broker, tmp_path_factory.mktemp("live"), bundle=str(bundle), session_timeout_ms=6_000, **BOUNDS
    ) as found:
        found.fill_catalogue(catalogue(), campaigns())
        first, second = found.start_worker(max_batch=64), found.start_worker(max_batch=1024)
        for worker in (first, second):
            worker.wait_health(lambda health: health.get("restored") and len(health["partitions"]) == 2)
        for begin in range(0, EVENTS_SENT // 2, EVENTS_SENT // 12):
            found.fill_catalogue(*changed_shop(begin))
            found.produce(log[begin : begin + EVENTS_SENT // 12])
            time.sleep(0.3)  # so that changes take effect between the events
        found.wait_decisions(2_000)
        found.fill_catalogue(*changed_shop(-1))
        first.kill()
        found.produce(log[EVENTS_SENT // 2 :])
        third = found.start_worker(max_batch=300)
        third.wait_health(lambda health: health.get("restored") and len(health["partitions"]) == 2)
        found.wait_finished()
        for worker in (second, third):
            worker.stop()
        yield gathered(found)


def changed_shop(seed: int) -> tuple[list[Item], list[Campaign]]:
    """Return some items and campaigns with other stocks and bids."""
    rng = random.Random(seed)
    items = [msgspec.structs.replace(item, stock=rng.randrange(2)) for item in rng.sample(catalogue(), 60)]
    return items, [msgspec.structs.replace(campaign, bid=rng.random()) for campaign in campaigns()]


def gathered(found: Installation) -> Live:
    recommendations, ads = found.read(RECOMMENDATIONS), found.read(ADS)
    decisions: dict[int, list[bytes]] = {}
    repeats = 0
    for partition, records in recommendations.items():
        both = {offset_of(record.value): [record.value] for record in records}
        repeats += len(records) - len(both)
        for offset, value in {offset_of(record.value): record.value for record in ads[partition]}.items():
            both[offset].append(value)
        decisions[partition] = [value for _, pair in sorted(both.items()) for value in pair]
    sessions = {record.value for records in found.read(CLOSED_SESSIONS).values() for record in records}
    return Live(found, decisions, repeats, sessions)


def offset_of(decision: bytes) -> int:
    return int(msgspec.json.decode(decision)["decision_id"].removesuffix("-ad").rpartition("-")[2])


def command(live: Live, *arguments: object) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", **environment_of(live.installation.settings)}
    return [sys.executable, "-m", "clickscore.stream", *map(str, arguments)], environment


def clickscore(live: Live, *arguments: object) -> "subprocess.CompletedProcess[str]":
    run, environment = command(live, *arguments)
    return subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)


def replayed(live: Live, out: Path, *arguments: object) -> list[bytes]:
    done = clickscore(live, "replay", f"kafka:{EVENTS.name}", "--out", out, *arguments)
    assert done.returncode == 0, done.stderr
    return out.read_bytes().splitlines()


def all_of(live: Live) -> list[bytes]:
    return [value for _, values in sorted(live.decisions.items()) for value in values]


def counts(done: "subprocess.CompletedProcess[str]") -> dict[str, int]:
    """Return the counts that a check has printed."""
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()[:5]]
    return {words.split(":")[0].split(",")[0]: int(number.replace(",", "")) for number, words in rows}


def test_worker_says_at_its_start_how_much_of_the_catalogue_its_bundle_knows(live: Live) -> None:
    for worker in live.installation.workers:
        assert "300 of 300 catalogue items are known to the bundle" in worker.output


@pytest.mark.parametrize("workers", [1, 3])
def test_topic_is_replayed_to_the_bytes_that_workers_published(live: Live, workers: int, tmp_path: Path) -> None:
    assert len(all_of(live)) > EVENTS_SENT  # recommendations and ads
    assert replayed(live, tmp_path / "a.jsonl", "--workers", workers) == all_of(live)


def test_sessions_of_a_topic_are_those_that_workers_closed(live: Live, tmp_path: Path) -> None:
    done = clickscore(live, "sessions", f"kafka:{EVENTS.name}", "--out", tmp_path / "s.jsonl")
    assert done.returncode == 0, done.stderr
    assert set((tmp_path / "s.jsonl").read_bytes().splitlines()) == live.sessions
    assert len(live.sessions) > 100


@pytest.mark.parametrize("topic", [RECOMMENDATIONS, ADS], ids=lambda topic: topic.name)
@pytest.mark.parametrize("workers", [1, 2])
def test_check_finds_a_live_worker_faithful(live: Live, topic: Topic, workers: int) -> None:
    done = clickscore(live, "replay", f"kafka:{EVENTS.name}", "--check", f"kafka:{topic.name}", "--workers", workers)
    assert done.returncode == 0, done.stdout + done.stderr
    found = counts(done)
    assert found["equal"] == len(all_of(live)) // 2
    assert (found["different"], found["missing"], found["extra"]) == (0, 0, 0)
    if topic is RECOMMENDATIONS:
        assert found["published again"] == live.repeats


def test_check_of_another_policy_finds_every_decision_different(live: Live) -> None:
    done = clickscore(live, "replay", f"kafka:{EVENTS.name}", "--check", f"kafka:{RECOMMENDATIONS.name}", "--k", 1)
    assert done.returncode == 1
    assert counts(done)["different"] > 0.9 * len(all_of(live)) / 2
    assert done.stdout.count("published") == 10 + 3  # ten tables, and three lines of counts


class Planted(NamedTuple):
    changed: str
    dropped: str
    added: str
    """Ids of decisions."""


@pytest.fixture(scope="module")
def planted(live: Live) -> Iterator[Planted]:
    """A topic with copies of all recommendations, each twice, but for one changed, one left out and one too many."""
    settings = live.installation.settings
    asyncio.run(create_topics(settings.kafka, [PLANTED]))
    recommendations = {partition: values[::2] for partition, values in live.decisions.items()}
    ids = [msgspec.json.decode(value)["decision_id"] for value in recommendations[0]]
    decided = {offset_of(value) for value in recommendations[0]}
    undecided = next(offset for offset in range(len(decided)) if offset not in decided)
    found = Planted(ids[100], ids[200], f"{ids[0].rpartition('-')[0]}-{undecided}")
    copies = [
        Sent(value, b"u", partition)
        for partition, values in recommendations.items()
        for value in values
        if f'"{found.dropped}"'.encode() not in value
        for _ in range(2)
    ]
    changed = msgspec.json.decode(recommendations[0][100])
    changed["items"][0]["score"] = 123.0
    added = msgspec.json.decode(recommendations[0][0]) | {"decision_id": found.added}
    copies += [Sent(value, b"u", 0) for value in (msgspec.json.encode(changed), msgspec.json.encode(added), b"rubbish")]
    asyncio.run(_produce(settings, PLANTED, copies))
    yield found
    asyncio.run(delete_topics(settings.kafka, [PLANTED]))


@pytest.mark.parametrize("workers", [1, 2])
def test_check_finds_planted_differences(live: Live, planted: Planted, workers: int) -> None:
    events, decisions = f"kafka:{EVENTS.name}", f"kafka:{PLANTED.name}"
    done = clickscore(live, "replay", events, "--check", decisions, "--workers", workers)
    assert done.returncode == 1, done.stdout + done.stderr
    count = len(all_of(live)) // 2
    assert counts(done) == {
        "equal": count - 2,
        "different": 1,
        "missing": 1,
        "extra": 1,
        "published again": count - 1,
    }
    assert f"missing: replayed, not published ({planted.dropped})" in done.stdout
    assert f"extra: published, not replayed ({planted.added})" in done.stdout
    assert "1  published records are not decisions on these events" in done.stdout
    assert planted.changed in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if "123.0" in line]
    assert "items[0].score" in row


def test_check_of_a_range_concerns_its_events_alone(live: Live, planted: Planted) -> None:
    begin, end = offset_in_topic(planted.changed) - 5, offset_in_topic(planted.changed) + 5
    bounds = ["--from", begin, "--to", end, "--warm-up-from", "earliest"]
    done = clickscore(live, "replay", f"kafka:{EVENTS.name}", "--check", f"kafka:{PLANTED.name}", *bounds)
    assert done.returncode == 1
    assert (counts(done)["different"], counts(done)["missing"]) == (1, 0)
    expected = [value for value in all_of(live)[::2] if begin <= offset_of(value) < end]
    assert counts(done)["equal"] == len(expected) - 1


def offset_in_topic(identity: str) -> int:
    return int(identity.rpartition("-")[2])


# Ranges


@pytest.mark.parametrize("workers", [1, 2])
def test_range_with_all_that_was_before_gives_the_decisions_of_the_whole(
    live: Live, workers: int, tmp_path: Path
) -> None:
    bounds = ["--from", 1000, "--to", 2000, "--warm-up-from", "earliest", "--workers", workers]
    expected = [value for value in all_of(live) if 1000 <= offset_of(value) < 2000]
    assert replayed(live, tmp_path / "a.jsonl", *bounds) == expected


def test_range_from_the_middle_says_that_it_begins_without_the_state_before(live: Live, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    done = clickscore(live, "replay", f"kafka:{EVENTS.name}", "--from", 1000, "--out", out)
    assert "Warm-up: reading began in the middle of the log (partition 0 from offset 1,000" in done.stderr
    assert out.read_bytes().splitlines() != [value for value in all_of(live) if offset_of(value) >= 1000]


def test_range_by_time_begins_with_the_first_record_that_was_appended_then(live: Live, tmp_path: Path) -> None:
    records = live.installation.read(EVENTS)
    last = [record for record in records[2] if read_epoch(record.value) is None][-1]
    append_time = last.timestamp  # of the second half: one record batch has one append time
    moment = datetime.datetime.fromtimestamp(append_time / 1000, datetime.UTC).replace(tzinfo=None).isoformat()
    out = tmp_path / "a.jsonl"
    earlier = replayed(live, out, "--to", moment)
    later = replayed(live, out, "--from", moment, "--warm-up-from", "earliest")
    appended = {(p, record.offset): record.timestamp for p, of_p in records.items() for record in of_p}
    times = [appended[p, offset_of(value)] for p, values in live.decisions.items() for value in values]
    assert len(earlier) == sum(time < append_time for time in times) > 0
    assert len(later) == sum(time >= append_time for time in times) > 0
    assert sorted(earlier + later) == sorted(all_of(live))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["kafka:nowhere"], "nowhere is missing. `clickscore topics list` shows the topics"),
        ([f"kafka:{EVENTS.name}", "--from", "latest", "--to", "earliest"], "--to lies before --from"),
        ([f"kafka:{EVENTS.name}", "--warm-up-from", "5"], "--warm-up-from lies after --from"),
        ([f"kafka:{EVENTS.name}", "--check", "kafka:nowhere"], "nowhere is missing or has fewer partitions"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(live: Live, arguments: list[str], words: str, tmp_path: Path) -> None:
    done = clickscore(live, "replay", *arguments, "--out", tmp_path / "a")
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_run_that_was_killed_goes_on_to_the_same_bytes_though_the_topic_has_grown(
    live: Live, workers: int, tmp_path: Path
) -> None:
    out = tmp_path / "a.jsonl.gz"
    arguments = ["replay", f"kafka:{EVENTS.name}", "--out", out, "--workers", workers, "--checkpoint-s", "0.01"]
    run, environment = command(live, *arguments)
    first = subprocess.Popen(run, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "a.jsonl.gz.parts").glob("checkpoint-?")):
        assert first.poll() is None, "it ended before it could be cut off"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    first.send_signal(signal.SIGKILL)
    first.wait()
    live.installation.produce(event_log(50, seed=12))
    time.sleep(0.5)  # its processes see that nobody waits for them
    done = clickscore(live, *arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert gzip.decompress(out.read_bytes()).splitlines()[: len(live.decisions[0])] == live.decisions[0]


# Explanations of single decisions


def explained(live: Live, ids: list[str], *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Explain decisions whose ids come on standard input."""
    run, environment = command(live, "explain", "-", *arguments)
    text = "\n".join(ids)
    return subprocess.run(
        run, cwd=ROOT, env=environment, input=text, capture_output=True, text=True, check=False, timeout=120
    )


def test_past_decisions_come_out_byte_for_byte_after_a_kill_and_changes_of_the_shop(live: Live) -> None:
    ids = [msgspec.json.decode(value)["decision_id"] for value in random.Random(3).sample(all_of(live), 300)]
    done = explained(live, ids, "--brief")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(f"{decision_id}  equal" for decision_id in ids)
    assert "300 equal" in done.stderr


def test_decisions_that_cannot_be_explained_say_why_beside_the_others(live: Live) -> None:
    topic = live.installation.settings.kafka.topic(EVENTS.name)
    decision_id = msgspec.json.decode(live.decisions[1][-1])["decision_id"]
    ids = [f"{topic}-0-99999999", "other-0-1", f"{topic}-9-1", "rubbish", decision_id]
    done = explained(live, ids, "--json", "--what-if", "strict")
    assert done.returncode == 1
    explanations = {each["decision_id"]: each for each in msgspec.json.decode(done.stdout)}
    assert [explanations[text]["problem"].partition(":")[0] for text in ids] == [
        "it does not exist",
        f"it belongs to an event of the topic other, and the events of this installation are in {topic} (topic_prefix)",
        f"{topic} has no partition 9",
        "'rubbish' is no decision id",
        "",
    ]
    explanation = explanations[decision_id]
    assert explanation["verdict"] == "equal"
    assert explanation["published"] == explanation["recomputed"] == msgspec.json.decode(live.decisions[1][-1])
    assert len(explanation["what_if"]) == 1
