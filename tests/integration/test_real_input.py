"""Real input: recorded shops through `clickscore produce` and a worker; what becomes of every single line."""

import gzip
import os
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from clickscore.schemas.sessions import decode_session
from clickscore.schemas.snapshots import decode_user
from clickscore.stream.settings import environment_of
from tests.integration.comparison import Evidence, differing, gather_evidence, partition_facts, remembered
from tests.integration.live import ROOT, Installation, installation

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

FILES = Path(__file__).parents[2].parent / "shared" / "data"
TAOBAO = FILES / "taobao_userbehavior" / "events.csv.gz"
REES46 = FILES / "rees46_head" / "events.csv.gz"
TAOBAO_LINES = 30_000  # of 110,300: what the whole file comes to is in docs/


class Real(NamedTuple):
    lines: int
    evidence: Evidence
    offsets: Counter[str]
    """How often each record was decided on or was a dead letter."""


def produce(live: Installation, file: Path, file_format: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "clickscore.stream", "produce", str(file), "--format", file_format],
        cwd=ROOT,
        env={**os.environ, **environment_of(live.settings)},
        check=True,
        timeout=120,
    )


def run(live: Installation, file: Path, file_format: str, lines: int) -> Real:
    produce(live, file, file_format)
    worker = live.start_worker()
    live.wait_finished()
    worker.stop()
    evidence = gather_evidence(live)
    offsets = Counter()
    for books in (evidence.live.recommendations, evidence.live.dead_letters):
        offsets.update({identity: len(written) for identity, written in books.items()})
    assert len(live.events()) == lines
    return Real(lines, evidence, offsets)


@pytest.fixture(scope="module")
def taobao(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Real:
    if not TAOBAO.exists():
        pytest.skip(f"{TAOBAO} is not here: its licence keeps it out of the repository")
    folder = tmp_path_factory.mktemp("taobao")
    head = folder / "head.csv"
    with gzip.open(TAOBAO) as whole:
        head.write_bytes(b"".join(islice(whole, TAOBAO_LINES)))
    with installation(broker, folder) as live:
        return run(live, head, "taobao", TAOBAO_LINES)


@pytest.fixture(scope="module")
def rees46(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Real:
    if not REES46.exists():
        pytest.skip(f"{REES46} is not here: its licence keeps it out of the repository")
    with gzip.open(REES46) as whole:
        lines = sum(1 for _ in whole) - 1  # less the header
    with installation(broker, tmp_path_factory.mktemp("rees46")) as live:
        return run(live, REES46, "rees46", lines)


@pytest.fixture(scope="module", params=["taobao", "rees46"])
def real(request: pytest.FixtureRequest) -> Real:
    return request.getfixturevalue(request.param)


def test_every_event_is_decided_once_or_is_one_dead_letter_or_is_a_repeat(real: Real) -> None:
    assert set(real.offsets.values()) == {1}
    repeated = real.evidence.replay.outcomes["repeated"]
    assert len(real.offsets) + repeated == real.lines


def test_decisions_are_those_of_a_replay(real: Real) -> None:
    assert real.evidence.live.recommendations.keys() == real.evidence.replay.recommendations.keys()
    assert differing(real.evidence.live.recommendations, real.evidence.replay.recommendations) == []


def test_state_is_that_of_a_replay(real: Real) -> None:
    live, replay = real.evidence.live.states, real.evidence.replay.states
    assert {number: (remembered(live[number]), partition_facts(live[number])) for number in live} == {
        number: (remembered(replay[number]), partition_facts(replay[number])) for number in replay
    }


def test_exact_duplicates_are_repeats_and_get_no_second_decision(rees46: Real) -> None:
    outcomes = rees46.evidence.replay.outcomes
    assert outcomes["repeated"] == 5
    assert outcomes["decided"] + outcomes["late"] == len(rees46.evidence.live.recommendations) == rees46.lines - 5


def test_sessions_hold_every_event_but_the_late_and_the_repeated_ones(real: Real) -> None:
    closed = (decode_session(written[0].value) for written in real.evidence.live.closed_sessions.values())
    users = (decode_user(value) for state in real.evidence.live.states.values() for value in remembered(state).values())
    held = sum(session.length for session in closed) + sum(user.length for user in users)
    assert held == real.evidence.replay.outcomes["decided"]
