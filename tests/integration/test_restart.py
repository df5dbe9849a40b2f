"""Restart: a worker that remembers many users is back soon."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from clickscore.schemas.events import View, encode_event
from tests.integration.event_log import BEGAN, Sent
from tests.integration.live import installation

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

USERS = 100_000
READY_S = 60


class Restarted(NamedTuple):
    ready_in_s: float
    """From the start of the process, imports included."""
    users: int
    open_sessions: int


def one_event_of_each() -> Iterator[Sent]:
    """Views within a gap, so that every session is still open at the end."""
    for number in range(USERS):
        user = f"user-{number}"
        event = View(event_id=f"e{number}", user_id=user, ts=BEGAN + number // 100, item_id=f"item-{number % 5_000}")
        yield Sent(encode_event(event), user.encode())


@pytest.fixture(scope="module")
def restarted(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Restarted:
    with installation(broker, tmp_path_factory.mktemp("restart")) as live:
        live.produce(one_event_of_each())
        first = live.start_worker()
        live.wait_finished()
        first.stop()
        second = live.start_worker()
        ready_in_s = second.wait_restored()
        health = second.health()
        second.stop()
        return Restarted(ready_in_s, health["users"], health["open_sessions"])


def test_worker_is_ready_soon_after_a_restart_on_a_hundred_thousand_users(restarted: Restarted) -> None:
    assert restarted.ready_in_s < READY_S


def test_worker_remembers_every_user_after_a_restart(restarted: Restarted) -> None:
    assert restarted.users == USERS


def test_every_session_is_still_open_after_a_restart(restarted: Restarted) -> None:
    assert restarted.open_sessions == USERS
