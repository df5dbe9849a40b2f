"""Rolling upgrade: the wheel of the previous release beside the new wheel, with a rollback, and the judge."""

from pathlib import Path

import pytest

from tests.chaos.upgrade import WORKERS, run_upgrade
from tests.chaos.versions import NoHistoryError

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 9


def test_an_upgrade_and_a_rollback_lose_nothing(broker: str, tmp_path: Path) -> None:
    try:
        result = run_upgrade(broker, tmp_path, SEED)
    except NoHistoryError as exc:
        pytest.skip(str(exc))
    assert result.verdict.examples == []
    assert result.verdict.events > 1_000
    assert {"upgraded": WORKERS, "rolled back": WORKERS, "kill -9": 2}.items() <= result.deeds.items()
