"""Session model: it agrees with the pipeline, whatever the settings, the batches and the restarts."""

import random

import pytest

from clickscore.schemas.events import Erase, Purchase, Tick, View, encode_event
from clickscore.stream.settings import Settings
from tests.chaos.crashing_workers import CrashingWorkers
from tests.chaos.judge import judge
from tests.chaos.privacy_records import with_identities, with_privacy_records
from tests.chaos.reactions import ends_of_windows
from tests.chaos.written_topics import rules_of, written_topics
from tests.integration.event_log import BEGAN, MEAN_GAP_MS, Sent, event_log

pytestmark = pytest.mark.slow

MINUTE_MS = 60_000
SETTINGS = {
    "defaults": {},
    "short gap, small bounds": {"gap_ms": MINUTE_MS, "lateness_ms": 1_000, "max_events": 3, "max_bought": 1},
    "no lateness, nothing bought": {"lateness_ms": 0, "max_bought": 0, "popularity_refresh_ms": 1_000},
    "late events are dead letters": {"late_events": "dead-letter", "user_ttl_ms": 31 * MINUTE_MS},
    "small events": {"max_event_bytes": 110},
}


def crowd(seed: int) -> list[Sent]:
    """Return events of many buyers, with silences in which more sessions end than an event may close."""
    dice = random.Random(seed)
    time_ms = BEGAN
    log: list[Sent] = []
    for number in range(1_200):
        time_ms += dice.choice([70_000, 600_000]) if number % 400 == 399 else dice.choice([0, 1, 5, 50, 500])
        user = f"user-{dice.randrange(400)}"
        kind = Purchase if dice.random() < 0.6 else View
        ts = time_ms - dice.choice([0, 0, 100, 20_000])
        name = dice.choice([None, None, "", "a"])
        event = kind(event_id=f"e{number}", user_id=user, ts=ts, item_id=f"i{dice.randrange(20)}", session_id=name)
        log.append(Sent(encode_event(event), user.encode()))
        if dice.random() < 0.03:
            log.append(Sent(encode_event(Tick(ts=time_ms))))
    return log


@pytest.mark.parametrize("name", SETTINGS)
def test_pipeline_does_what_the_model_says(name: str) -> None:
    settings = Settings.of(**SETTINGS[name])
    topics = written_topics(event_log(1_500, seed=3, users=100), settings, 50)
    verdict = judge(topics, rules_of(settings), with_ads=True)
    assert not verdict.examples


@pytest.mark.parametrize(("batch", "restart"), [(1, 0), (10, 7), (3, 40)])
def test_backlog_of_ended_sessions_is_worked_off_alike_with_and_without_restarts(batch: int, restart: int) -> None:
    settings = Settings.of(gap_ms=MINUTE_MS, lateness_ms=30_000, user_ttl_ms=2 * MINUTE_MS)
    verdict = judge(written_topics(crowd(1), settings, batch, restart), rules_of(settings), with_ads=True)
    assert not verdict.examples
    assert verdict.closed_sessions > 500


@pytest.mark.parametrize("default", ["granted", "withdrawn"])
@pytest.mark.parametrize(("batch", "restart"), [(40, 0), (7, 9)])
def test_consent_and_erasure_hold_alike_with_and_without_restarts(default: str, batch: int, restart: int) -> None:
    settings = Settings.of(
        gap_ms=5 * MINUTE_MS,
        consent_ttl_ms=MINUTE_MS,  # shorter than a statement may be late: some are over as they come
        consent_personalisation=default,
        consent_training=default,
    )
    log = with_privacy_records(event_log(1_500, seed=2, users=60), seed=2)
    verdict = judge(written_topics(log, settings, batch, restart), rules_of(settings), with_ads=True)
    assert not verdict.examples
    assert verdict.outcomes["consent"] > 10
    assert verdict.outcomes["erase"] > 3


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "small events"])  # too small for a hand-over
@pytest.mark.parametrize(("default", "batch", "restart"), [("granted", 40, 0), ("granted", 5, 9), ("withdrawn", 7, 5)])
def test_sessions_are_handed_over_alike_with_and_without_restarts(
    name: str, default: str, batch: int, restart: int
) -> None:
    settings = Settings.of(**SETTINGS[name], consent_personalisation=default, consent_training=default)
    log = with_identities(with_privacy_records(event_log(1_500, seed=2, users=60), seed=2), seed=2)
    verdict = judge(written_topics(log, settings, batch, restart), rules_of(settings), with_ads=True)
    assert not verdict.examples
    assert verdict.outcomes["identify"] > 10
    assert verdict.outcomes["handover"] > 3


def test_handovers_from_before_forgotten_erasures_are_dropped_alike_after_restarts() -> None:
    settings = Settings.of()
    log = with_identities(event_log(400, seed=2, users=60), seed=2)
    middle = len(log) // 2
    log[middle:middle] = [
        Sent(
            encode_event(Erase(event_id=f"x{number}", user_id=f"gone-{number}", ts=BEGAN + middle * MEAN_GAP_MS)),
            f"gone-{number}".encode(),
        )
        for number in range(1_300)  # some 325 in a partition
    ]
    verdict = judge(written_topics(log, settings, 40, 9), rules_of(settings), with_ads=True)
    assert not verdict.examples
    assert verdict.outcomes["erase"] == 1_300
    assert verdict.outcomes["handover"] > 3


@pytest.mark.parametrize("seed", range(5))
def test_sessions_are_handed_over_exactly_once_between_partitions_whose_workers_crash(seed: int) -> None:
    settings = Settings.of(**list(SETTINGS.values())[seed % 4])
    log = with_identities(with_privacy_records(event_log(1_000, seed, users=60), seed), seed)
    log += ends_of_windows(BEGAN + 1_000 * MEAN_GAP_MS)
    workers = CrashingWorkers(settings, seed)
    verdict = judge(workers.run(log), rules_of(settings), with_ads=True)
    assert not verdict.examples
    assert workers.crashes > 10
    assert verdict.outcomes["handover"] > 3
    assert verdict.joined > 10
    assert verdict.charged > 0


def test_log_holds_every_outcome() -> None:
    settings = Settings.of()
    topics = written_topics(event_log(1_500, seed=3, users=100), settings, 50)
    verdict = judge(topics, rules_of(settings), with_ads=True)
    assert verdict.outcomes.keys() == {"decided", "late", "repeated", "dead", "tick"}
