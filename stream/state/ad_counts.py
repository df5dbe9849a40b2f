"""Ad counts: how often a user has seen the ads of a campaign on a day, and ads in a session.

An impression counts at its own record in the log. All records of a user are in one partition, so the counts are exact
without any other store, and a replay has the same. A repeated event is recognised by its id for the whole day.
"""

import xxhash

from clickscore.schemas.ad_impressions import AD_IMPRESSION_BYTES, MAX_AD_IMPRESSIONS, campaign_hash
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.handover import HandedAds
from clickscore.schemas.snapshots import AdState

_HASH_BYTES = AD_IMPRESSION_BYTES // 2


def add_impression(ads: AdState | None, campaign_id: str, event_id: str, ts: int, opened_by: int) -> AdState | None:
    """Return the counts with another impression; None where the impression is a repeat or of an earlier day.

    Args:
        ads: The counts so far.
        campaign_id: Campaign of the ad.
        event_id: Id of the event.
        ts: Event time, ms.
        opened_by: Source offset of the first event of the user's open session; -1 without a session.
    """
    day = ts // DAY_MS
    if ads is None or ads.day < day:
        impressions = b""
    elif ads.day > day:
        return None
    else:
        impressions = ads.impressions
    fingerprint = xxhash.xxh3_64_digest(event_id.encode())
    if fingerprint in event_hashes(impressions):
        return None
    if len(impressions) < MAX_AD_IMPRESSIONS * AD_IMPRESSION_BYTES:
        impressions += campaign_hash(campaign_id) + fingerprint
    return AdState(day, impressions, opened_by, in_session(ads, opened_by) + 1 if opened_by >= 0 else 0)


def event_hashes(impressions: bytes) -> set[bytes]:
    """Return the hash of each remembered impression's event id."""
    starts = range(_HASH_BYTES, len(impressions), AD_IMPRESSION_BYTES)
    return {impressions[start : start + _HASH_BYTES] for start in starts}


def impressions_on_day(ads: AdState | None, ts: int) -> bytes:
    """Return the remembered impressions for the day of an event time (ms); for an earlier day those of the newest."""
    return ads.impressions if ads is not None and ads.day >= ts // DAY_MS else b""


def in_session(ads: AdState | None, opened_by: int) -> int:
    """Return the number of ad impressions in the session that an event opened.

    Args:
        ads: The counts.
        opened_by: Source offset of the first event of the user's open session; -1 without a session.
    """
    return ads.in_session if ads is not None and opened_by >= 0 and ads.opened_by == opened_by else 0


def ends_at(ads: AdState) -> int:
    """Return the event time from which the counts of the day no longer matter, ms."""
    return (ads.day + 1) * DAY_MS


def hand_over(ads: AdState, opened_by: int) -> HandedAds:
    """Return the counts of an anonymous id for a hand-over.

    Args:
        ads: The counts.
        opened_by: Source offset of the first event of the open session; -1 without a session.
    """
    return HandedAds(day=ads.day, impressions=ads.impressions, in_session=in_session(ads, opened_by))


def merge(ads: AdState | None, handed: HandedAds, opened_by: int, *, takes_session: bool) -> AdState:
    """Return the counts of a user together with those of an anonymous id; each impression counts once.

    Args:
        ads: Counts of the user.
        handed: Counts of the anonymous id.
        opened_by: Source offset of the first event of the user's open session; -1 without a session.
        takes_session: Whether the open session has the events of the anonymous id.
    """
    impressions, day, handed_count = handed.impressions, handed.day, handed.in_session
    if ads is not None and ads.day > handed.day:
        impressions, day = ads.impressions, ads.day
    elif ads is not None and ads.day == handed.day:
        own = event_hashes(ads.impressions)
        entries = [
            impressions[start : start + AD_IMPRESSION_BYTES]
            for start in range(0, len(impressions), AD_IMPRESSION_BYTES)
        ]
        new = b"".join(entry for entry in entries if entry[_HASH_BYTES:] not in own)
        impressions = (ads.impressions + new)[: MAX_AD_IMPRESSIONS * AD_IMPRESSION_BYTES]
        session_entries = entries[max(0, len(entries) - handed_count) :]  # the newest: entries are in order of arrival
        handed_count -= sum([entry[_HASH_BYTES:] in own for entry in session_entries])
    count = in_session(ads, opened_by) + (handed_count if takes_session else 0)
    return AdState(day, impressions, opened_by, count)
