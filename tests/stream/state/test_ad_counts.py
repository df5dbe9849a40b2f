"""Ad counts: impressions of a user and a day."""

from clickscore.schemas.ad_impressions import campaign_hash
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.handover import HandedAds
from clickscore.schemas.snapshots import AdState
from clickscore.stream.state.ad_counts import (
    add_impression,
    hand_over,
    impressions_on_day,
    in_session,
    merge,
)

DAY = 20_000
NOON = DAY * DAY_MS + DAY_MS // 2


def counted(*impressions: tuple[str, str], ts: int = NOON, opened_by: int = 5, ads: AdState | None = None) -> AdState:
    """Return the counts after impressions of (campaign, event)."""
    for campaign, event in impressions:
        ads = add_impression(ads, campaign, event, ts, opened_by) or ads
    assert ads is not None
    return ads


def count(ads: AdState | None, campaign: str, ts: int = NOON) -> int:
    impressions = impressions_on_day(ads, ts)
    return [impressions[start : start + 8] for start in range(0, len(impressions), 16)].count(campaign_hash(campaign))


def test_each_campaign_is_counted():
    ads = counted(("c", "1"), ("d", "2"), ("c", "3"))
    assert (count(ads, "c"), count(ads, "d"), count(ads, "e"), count(None, "c")) == (2, 1, 0, 0)


def test_repeated_event_counts_once_even_much_later():
    ads = counted(*(("c", str(number)) for number in range(60)))
    assert add_impression(ads, "c", "0", NOON, 5) is None


def test_counts_begin_anew_on_the_next_day():
    ads = counted(("c", "1"))
    assert count(ads, "c", NOON + DAY_MS) == 0
    assert count(counted(("d", "2"), ts=NOON + DAY_MS, ads=ads), "c", NOON + DAY_MS) == 0


def test_impression_of_an_earlier_day_does_not_count():
    assert add_impression(counted(("c", "1")), "c", "2", NOON - DAY_MS, 5) is None


def test_event_of_an_earlier_day_is_decided_with_the_newest_counts():
    assert count(counted(("c", "1")), "c", NOON - DAY_MS) == 1


def test_counts_are_bounded():
    ads = counted(*(("c", str(number)) for number in range(200)))
    assert (len(ads.impressions), ads.in_session) == (128 * 16, 200)


def test_session_has_its_own_count():
    ads = counted(("c", "1"), ("c", "2"))
    assert (in_session(ads, 5), in_session(ads, 9), in_session(ads, -1), in_session(None, 5)) == (2, 0, 0, 0)
    assert in_session(counted(("c", "3"), opened_by=9, ads=ads), 9) == 1
    assert in_session(counted(("c", "3"), ts=NOON + DAY_MS, ads=ads), 5) == 3


def test_impression_without_a_session_counts_for_its_day_alone():
    ads = counted(("c", "1"), opened_by=-1)
    assert (count(ads, "c"), ads.in_session) == (1, 0)


def test_handed_over_impressions_count_once():
    own, cookie = counted(("c", "1"), ("c", "2")), counted(("c", "2"), ("d", "3"), opened_by=8)
    ads = merge(own, hand_over(cookie, 8), 5, takes_session=True)
    assert (count(ads, "c"), count(ads, "d"), in_session(ads, 5)) == (2, 1, 3)


def test_repeats_of_an_earlier_session_take_nothing_from_the_count():
    own = counted(("c", "1"), ("c", "2"), ("c", "3"))
    cookie = counted(("c", "3"), ("c", "4"), opened_by=8, ads=counted(("c", "1"), ("c", "2"), opened_by=7))
    assert in_session(merge(own, hand_over(cookie, 8), 5, takes_session=True), 5) == 4


def test_handed_over_counts_of_a_session_that_is_over_stay_out():
    ads = merge(counted(("c", "1")), hand_over(counted(("d", "3"), opened_by=8), 8), 5, takes_session=False)
    assert in_session(ads, 5) == 1


def test_newer_day_counts_in_a_hand_over():
    own, newer = counted(("c", "1")), HandedAds(day=DAY + 1, impressions=campaign_hash("d") + bytes(8))
    assert merge(own, newer, 5, takes_session=True).day == DAY + 1
    older = HandedAds(day=DAY - 1, impressions=campaign_hash("d") + bytes(8))
    assert count(merge(own, older, 5, takes_session=True), "c") == 1
    assert count(merge(None, older, 5, takes_session=True), "d", NOON - DAY_MS) == 1


def test_merged_counts_are_bounded():
    own = counted(*(("c", str(number)) for number in range(100)))
    cookie = counted(*(("c", f"x{number}") for number in range(100)))
    assert len(merge(own, hand_over(cookie, 5), 5, takes_session=True).impressions) == 128 * 16
