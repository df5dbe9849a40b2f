"""Small storm: a kill and a stall of a worker under load, with the judge of `make chaos`."""

from pathlib import Path

import pytest

from tests.chaos.storm import strike_workers

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 20


def test_nothing_is_off_after_a_kill_and_a_stall_under_load(broker: str, tmp_path: Path) -> None:
    result = strike_workers(broker, tmp_path, SEED, kills=1, stalls=1)
    assert result.verdict.examples == []
    assert result.verdict.events > 1_000
    assert result.verdict.joined > 10
    assert result.verdict.charged > 0
    assert {"kill -9": 1, "stalls": 1}.items() <= result.deeds.items()
