"""Hand-overs: what an anonymous id did, as a record in the log of the user who turned out to be behind it.

A worker that comes to an `identify` event writes a `handover` into the user's partition of `clickstream-events`.
"""

from itertools import pairwise
from typing import Annotated

import msgspec

from clickscore.schemas.ad_impressions import AD_IMPRESSION_BYTES, MAX_AD_IMPRESSIONS
from clickscore.schemas.clients import CLIENTS
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.field_types import YEAR_9999_MS, EventTime, Id, LogOffset, Millis
from clickscore.schemas.open_decisions import decode_ledger
from clickscore.schemas.purposes import Purpose
from clickscore.schemas.seen_items import MAX_SEEN, SEEN_BYTES

MAX_PARTITIONS = 10_000
"""Partitions of a topic at most, for hand-overs. A partition remembers a number for each source partition."""


PREFIX = b'{"type":"handover"'
"""Beginning of a hand-over as workers write it."""


class HandedEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event of a handed-over session."""

    ts: EventTime
    action: Annotated[int, msgspec.Meta(ge=1, le=7)]
    """Action code: index into `schemas.events.ACTIONS`."""
    item_id: Annotated[str, msgspec.Meta(max_length=256)]
    """Empty for a search."""
    fingerprint: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    """Hash of the event id (xxh3, 64 bits), to deduplicate repeated events."""


class HandedSession(msgspec.Struct, frozen=True, kw_only=True):
    """The open session of an anonymous id."""

    session_id: Id
    opened_by: LogOffset
    """Offset of the session's first event, in the partition of the `identify` event."""
    opened_at: EventTime
    """Earliest `ts` of the session."""
    length: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    """Number of events of the session; `events` may have fewer."""
    purchased: bool = False
    """Whether the session has a purchase."""
    events: Annotated[tuple[HandedEvent, ...], msgspec.Meta(min_length=1)]
    """Newest events, in order of time."""
    seen: Annotated[bytes, msgspec.Meta(max_length=MAX_SEEN * SEEN_BYTES)] | msgspec.UnsetType = msgspec.UNSET
    """Impressions of items, as `schemas.seen_items` writes impressions down; left out without impressions."""

    def __post_init__(self) -> None:
        """Check that the parts describe one session.

        Raises:
            ValueError: The events are not in order of time, begin before the session, or are more than its length; or
                the seen items are cut off.
        """
        if self.seen is not msgspec.UNSET and len(self.seen) % SEEN_BYTES:
            message = "the seen items are cut off"
            raise ValueError(message)
        times = [self.opened_at, *(event.ts for event in self.events)]
        if any(later < earlier for earlier, later in pairwise(times)):
            message = "the events of the session are not in order of time"
            raise ValueError(message)
        if len(self.events) > self.length:
            message = "the session has more events than its length"
            raise ValueError(message)

    @property
    def last_ts(self) -> int:
        """Event time of the newest event, ms."""
        return self.events[-1].ts


class HandedConsent(msgspec.Struct, frozen=True, kw_only=True):
    """What was said about consent under the anonymous id."""

    granted: tuple[Purpose, ...] = ()
    withdrawn: tuple[Purpose, ...] = ()
    said_at: Millis
    """Newest `ts` of what was said."""
    withdrawn_at: Millis = 0
    """Newest `ts` of a withdrawal."""


class HandedAds(msgspec.Struct, frozen=True, kw_only=True):
    """Ads shown to an anonymous id."""

    day: Annotated[int, msgspec.Meta(ge=0, le=YEAR_9999_MS // DAY_MS)]
    """Day of the impressions in event time, days since 1970, UTC."""
    impressions: Annotated[bytes, msgspec.Meta(max_length=MAX_AD_IMPRESSIONS * AD_IMPRESSION_BYTES)]
    """16 bytes for each impression: hashes (xxh3, 64 bits) of the campaign's id and the event's id."""
    in_session: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    """Number of ad impressions in the open session."""

    def __post_init__(self) -> None:
        """Check that the impressions are whole.

        Raises:
            ValueError: The length is no multiple of the bytes of an impression.
        """
        if len(self.impressions) % AD_IMPRESSION_BYTES:
            message = "the ad impressions are cut off"
            raise ValueError(message)


class Handover(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="handover"):
    """What an anonymous id did, for the user who was identified. Workers write hand-overs.

    `partition` and `offset` say which `identify` event is behind the record: a repeat after a crash has the same, and
    changes nothing.
    """

    user_id: Id
    anonymous_id: Id
    ts: EventTime
    """Event time of the `identify` event."""
    partition: Annotated[int, msgspec.Meta(ge=0, le=MAX_PARTITIONS - 1)]
    """Partition of the `identify` event."""
    offset: LogOffset
    """Offset of the `identify` event."""
    session: HandedSession | None = None
    """The open session, if any."""
    bought: tuple[Id, ...] = ()
    """Bought items, newest last."""
    bought_days: tuple[Annotated[int, msgspec.Meta(ge=0, le=YEAR_9999_MS // DAY_MS)], ...] = ()
    """Day of the purchase of each bought item, days since 1970, UTC; the first items may lack one."""
    last_ts: Millis = 0
    """Newest event time of the anonymous id; 0 where no event is remembered."""
    consent: HandedConsent | None = None
    """What was said about consent, unless the user has it already."""
    withheld: tuple[Purpose, ...] = ()
    """Purposes to which the anonymous id had not consented."""
    client: Annotated[int, msgspec.Meta(ge=0, le=len(CLIENTS) - 1)] = 0
    """Class of the anonymous id: index into `schemas.clients.CLIENTS`."""
    ads: HandedAds | None = None
    """Ads shown to the anonymous id on the newest day with any."""
    ledger: bytes | msgspec.UnsetType = msgspec.UNSET
    """Open decisions of the anonymous id (`schemas.open_decisions.UserLedger`) as MessagePack; left out without any."""

    def __post_init__(self) -> None:
        """Check that the open decisions can be read.

        Raises:
            ValueError: They cannot.
        """
        if self.ledger is not msgspec.UNSET:
            decode_ledger(self.ledger)

    @property
    def newest_ts(self) -> int:
        """Newest event time that any part of the record names, ms; a day counts with its beginning."""
        times = [self.ts, self.last_ts, *(day * DAY_MS for day in self.bought_days)]
        if self.session is not None:
            times.append(self.session.last_ts)
        if self.consent is not None:
            times += self.consent.said_at, self.consent.withdrawn_at
        if self.ads is not None:
            times.append(self.ads.day * DAY_MS)
        if self.ledger is not msgspec.UNSET:
            times.append(decode_ledger(self.ledger).newest_ts)
        return max(times)
