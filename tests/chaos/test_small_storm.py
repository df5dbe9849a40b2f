"""Small storm: a kill of a worker, a stall and a kill of the broker under load, with the judge of `make chaos`."""

from pathlib import Path

import pytest

from tests.chaos.storm import run_storm

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 20


def test_nothing_is_off_after_a_small_storm(tmp_path: Path) -> None:
    result = run_storm(tmp_path, SEED, kills=1, stalls=1, broker_kills=1, broker_holds=0)
    assert result.verdict.examples == []
    assert result.verdict.events > 1_000
    assert {"kill -9": 1, "stalls": 1, "broker kills": 1}.items() <= result.deeds.items()
