"""Fuzzed readers, bundles and pages, smaller than `make fuzz`; and proof that the fuzz finds what it looks for."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from clickscore.stream.worker.web import Page, WebServer
from tests.fuzz.bundles import fuzz_graph, fuzz_import, fuzz_items, fuzz_manifest
from tests.fuzz.gateway import fuzz_gateway
from tests.fuzz.judge import FaultError, Outcomes
from tests.fuzz.pages import answer_outcome, fuzz_pages
from tests.fuzz.planted import abort, fail, grow, never_end, refuse_silently, swallow
from tests.fuzz.readers import (
    fuzz_container,
    fuzz_mapping,
    fuzz_parquet_bytes,
    fuzz_parquet_rows,
    fuzz_resume,
    fuzz_text,
)
from tests.fuzz.relayed import fuzz_relay
from tests.fuzz.runner import DIED, STUCK, Target, run_case, run_target

pytestmark = pytest.mark.slow

SEED = "tests"


@pytest.mark.parametrize(
    ("run", "cases"),
    [
        (fuzz_text, 60),
        (fuzz_resume, 3),
        (fuzz_container, 200),
        (fuzz_mapping, 100),
        (fuzz_relay, 20),
        (fuzz_parquet_rows, 2),
        (fuzz_parquet_bytes, 4),
        (fuzz_gateway, 2),
        (fuzz_manifest, 20),
        (fuzz_items, 5),
        (fuzz_graph, 10),
        (fuzz_import, 5),
    ],
)
def test_every_value_has_an_outcome(run: Callable[[random.Random, Path], Outcomes], cases: int, tmp_path: Path) -> None:
    outcomes: Outcomes = Counter()
    for index in range(cases):
        verdict = run_case(run, f"{SEED}:{index}", tmp_path)
        assert (verdict.fault, verdict.crash) == ("", ""), f"seed {SEED}:{index}"
        outcomes += verdict.outcomes
    assert outcomes.total() >= cases
    assert outcomes["refused"]


def test_every_request_is_answered_or_cut_off() -> None:
    async def send() -> Outcomes:
        server = WebServer(
            {"/health": lambda: Page(200, b"{}"), "/metrics": lambda: Page(200, b"x 1\n")},
            "127.0.0.1",
            0,
            connection_s=1.0,
        )
        port = await server.start()
        try:
            return await fuzz_pages(SEED, 1_000, "127.0.0.1", port)
        finally:
            await server.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the event loop of a worker
        outcomes = runner.run(send())
    assert outcomes.total() == 1_000
    assert all(outcomes[name] for name in ("pages", "refused", "cut off"))


# Planted faults


def pass_everything(folder: Path) -> list[str]:
    return []


def test_swallowed_value_is_a_fault(tmp_path: Path) -> None:
    for index in range(5):
        assert "neither an event nor refused" in run_case(swallow, f"{SEED}:{index}", tmp_path).fault


def test_exception_that_is_not_in_words_is_a_crash(tmp_path: Path) -> None:
    assert "KeyError" in run_case(fail, SEED, tmp_path).crash


def test_refusal_without_words_is_a_fault(tmp_path: Path) -> None:
    assert "does not say enough" in run_case(refuse_silently, SEED, tmp_path).fault


def test_bundle_that_passes_a_check_and_cannot_be_served_is_a_fault(tmp_path: Path) -> None:
    def run(chance: random.Random, folder: Path) -> Outcomes:
        return fuzz_manifest(chance, folder, check=pass_everything)

    faults = [run_case(run, f"{SEED}:{index}", tmp_path).fault for index in range(5)]
    assert any("has no problems, and cannot be served" in fault for fault in faults)


@pytest.mark.parametrize(
    ("run", "seconds", "kind", "words"),
    [(never_end, 1.5, "stuck", STUCK), (abort, 30, "crashes", DIED), (grow, 30, "stuck", "MB of memory")],
)
def test_hang_death_and_growth_of_a_process_are_noticed(
    run: Callable[[random.Random, Path], Outcomes], seconds: float, kind: str, words: str, tmp_path: Path
) -> None:
    target = Target("planted", run, seconds=seconds, megabytes=250)
    report = run_target(target, 1, SEED, kept=tmp_path, deadline=time.monotonic() + 60, processes=1)
    assert words in getattr(report, kind)[0]
    assert not report.is_good


def test_answer_that_is_no_answer_is_a_fault() -> None:
    for answer in (b"hello", b"HTTP/1.1 x\r\n", b"HTTP/1.1 500 Internal Server Error\r\n"):
        with pytest.raises(FaultError):
            answer_outcome(b"GET / HTTP/1.1\r\n\r\n", answer)
