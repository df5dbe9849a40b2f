"""Traffic shape: what past days say of the present one."""

import pytest

from clickscore.schemas.durations import DAY_MS, HOUR_MS
from clickscore.stream.budgets.traffic_shape import BINS, MIN_PAGES, TrafficShape

DAY = 20_000
MIDNIGHT = DAY * DAY_MS


def test_day_is_even_before_a_whole_day_was_seen():
    shape = TrafficShape()
    assert shape.share_before(DAY_MS // 4) == 0.25
    assert shape.share_before(DAY_MS) == 1.0


def test_shape_follows_the_pages_of_the_day_before():
    shape = TrafficShape()
    shape.count(MIDNIGHT, 1_000)
    shape.count(MIDNIGHT + 18 * HOUR_MS, 3_000)
    shape.count(MIDNIGHT + DAY_MS, 1)
    assert shape.share_before(12 * HOUR_MS) == pytest.approx(0.25 * 0.98 + 0.01)
    assert shape.share_before(DAY_MS) == pytest.approx(1.0)
    assert 0.3 < shape.share_before(18 * HOUR_MS + 60_000) < 0.5  # within the quarter of an hour with most pages


def test_later_days_count_more():
    shape = TrafficShape()
    for day, hour in enumerate((0, 0, 18, 0)):
        shape.count(MIDNIGHT + day * DAY_MS + hour * HOUR_MS, MIN_PAGES)
    assert shape.share_before(12 * HOUR_MS) == pytest.approx(0.5, abs=0.02)


def test_day_without_its_beginning_or_with_few_pages_says_nothing():
    shape = TrafficShape()
    shape.count(MIDNIGHT + 9 * HOUR_MS, MIN_PAGES)  # the log begins at nine
    shape.count(MIDNIGHT + DAY_MS, MIN_PAGES - 1)
    shape.count(MIDNIGHT + 2 * DAY_MS, 1)
    assert shape.share_before(DAY_MS // 2) == 0.5


def test_pages_of_an_earlier_day_do_not_count():
    shape = TrafficShape()
    shape.count(MIDNIGHT, 5)
    shape.count(MIDNIGHT - 1, 7)
    assert sum(shape.counts) == 5
    assert len(shape.counts) == BINS


def test_share_of_a_part_of_the_day():
    shape = TrafficShape()
    assert shape.share_between(6 * HOUR_MS, 18 * HOUR_MS, 12 * HOUR_MS) == pytest.approx(0.5)
    assert shape.share_between(6 * HOUR_MS, 18 * HOUR_MS, 3 * HOUR_MS) == 0
    assert shape.share_between(6 * HOUR_MS, 18 * HOUR_MS, 20 * HOUR_MS) == 1
