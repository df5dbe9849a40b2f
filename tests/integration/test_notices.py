"""Notices: a live worker counts and logs users in foreign partitions and clocks that are ahead."""

from pathlib import Path

import pytest

from clickscore.schemas.events import View, encode_event
from clickscore.stream.kafka.partitioner import partition_of
from tests.integration.event_log import BEGAN
from tests.integration.live import Sent, installation
from tests.integration.test_worker import metrics

pytestmark = pytest.mark.kafka

HOUR_MS = 3_600_000


def sent(user: str, ts: int, shift: int = 0) -> Sent:
    """Return a view for the user's partition, or for a later partition."""
    view = View(event_id=f"{user}-{ts}", user_id=user, ts=ts, item_id="kettle")
    return Sent(encode_event(view), user.encode(), (partition_of(user.encode(), 4) + shift) % 4)


def test_worker_notices_a_second_partitioner_and_a_jump_of_the_clock(broker: str, tmp_path: Path) -> None:
    log = [sent("anna", BEGAN), sent("bert", BEGAN, shift=1), sent("anna", BEGAN + 2 * HOUR_MS), sent("carl", BEGAN)]
    with installation(broker, tmp_path) as live:
        worker = live.start_worker()
        worker.wait_restored()
        live.produce(log)
        live.wait_finished()
        scraped = metrics(worker)
        live.stop_workers()
    assert scraped["clickscore_foreign_partition_total"] == 1
    assert scraped['clickscore_items_total{reason="popular",variant="model"}'] > 0
    assert all(value < 0 for name, value in scraped.items() if name.startswith("clickscore_watermark_ahead_ms{"))
    assert "by murmur2 of the user id" in worker.output
    assert f"event 'anna-{BEGAN + 2 * HOUR_MS}' of the user with the hash" in worker.output
    assert "user bert" not in worker.output
