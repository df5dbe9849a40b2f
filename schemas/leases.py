"""Leases: slices of the budgets of campaigns, as records in the log of the partition that may spend them.

A partition reports its spend to partition 0 of `clickstream-events`, and the allocator there answers with a lease. Both
are records of the log. So the state after a record follows from the log alone, and a repeat after a crash has a number
that was applied already.
"""

from typing import Annotated

import msgspec

from clickscore.schemas.decisions import BidUnit
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.field_types import YEAR_9999_MS, EventTime, Id
from clickscore.schemas.handover import MAX_PARTITIONS

MICROS = 1_000_000
"""Smallest units of money in one unit of the shop's currency. Sums of whole numbers are exact."""

MONEY_DECIMALS = 9
"""Decimals of amounts: a price has 6, and an impression costs a thousandth of the price of a thousand."""

MAX_MICROS = 2**53
"""Largest amount: JSON holds no larger exact number."""

MAX_CAMPAIGNS = 500
"""Campaigns of a record at most; more take several records. A campaign takes about 100 bytes."""

MAX_STEP = 1_000_000
"""Largest step of the number of a record: two years of one record a minute. A forged number beyond is refused."""

Amount = Annotated[int, msgspec.Meta(ge=0, le=MAX_MICROS)]
"""Money, in millionths of the shop's currency."""
Day = Annotated[int, msgspec.Meta(ge=0, le=YEAR_9999_MS // DAY_MS)]
"""Day in event time: days since 1970, UTC."""
RecordNumber = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Source = Annotated[int, msgspec.Meta(ge=0, le=MAX_PARTITIONS - 1)]


class CampaignSpend(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Spend of a campaign in a partition on a day; each number is the sum since the beginning of the day."""

    campaign_id: Id
    limit: Amount
    """What the partition may spend on the day, as far as its leases say."""
    spent: Amount
    """What was charged, and what is to be charged with the next lease."""
    expected: Amount
    """Expected spend: price times probability of the sold slots."""
    entries: Annotated[int, msgspec.Meta(ge=0, le=MAX_MICROS)]
    """Number of auctions that the campaign entered or would have entered with a lease."""


class SpendReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="spend_report", gc=False):
    """What a partition has spent. Workers write reports, a minute of event time apart, into partition 0."""

    ts: EventTime
    """Newest event time of the partition."""
    partition: Source
    number: RecordNumber
    """Number of the report among those of the partition: a report that is not newer changes nothing."""
    day: Day
    lease: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """Number of the newest lease that the partition had applied; 0 for none."""
    pages: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """Number of pages with a matching campaign since the report before."""
    is_final: bool = False
    """Whether the day is over in the partition: nothing else is spent on the day."""
    campaigns: Annotated[tuple[CampaignSpend, ...], msgspec.Meta(max_length=MAX_CAMPAIGNS)] = ()
    """Campaigns with changes since the report before."""


class CampaignLease(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a partition may spend for a campaign."""

    campaign_id: Id
    limit: Amount
    """Largest spend of the partition on the day, what is spent already included."""
    multiplier: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """Factor on the bid of the campaign, from pacing."""


class BudgetLease(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="lease", gc=False):
    """Slices of budgets for a partition, from the allocator. Workers write leases."""

    ts: EventTime
    """Event time of the report that the lease answers."""
    number: RecordNumber
    """Number of the lease among those of the partition: a lease that is not newer changes nothing."""
    day: Day
    ends_at: EventTime
    """End of the term in event time, ms: with the first report from then on, what is not spent returns."""
    campaigns: Annotated[tuple[CampaignLease, ...], msgspec.Meta(max_length=MAX_CAMPAIGNS)] = ()
    """What the partition may spend for each campaign; other campaigns keep the lease that they have."""


def time_fault(record: SpendReport | BudgetLease, appended_at: int, future_ms: int) -> str | None:
    """Return in words why the times of a record do not fit together; None where they fit.

    A day in the future would close the books of every true report.

    Args:
        record: The record.
        appended_at: Append time, ms; below 0 where it is not known.
        future_ms: How far an event time may lie after the append time, ms.
    """
    if record.day != record.ts // DAY_MS:
        return f"day is {record.day}, but ts is in the day {record.ts // DAY_MS}"
    ahead_ms = record.ts - appended_at
    if appended_at >= 0 and ahead_ms > future_ms:
        return f"ts is {ahead_ms} ms after the append time, more than future_ms"
    return None


def is_next(number: int, newest: int) -> bool:
    """Return whether a record with a number counts after the newest record of the partition.

    Args:
        number: Number of the record.
        newest: Number of the newest record that counted; 0 for none.
    """
    return newest < number <= newest + MAX_STEP


def unit_price(price: float, bid_per: BidUnit) -> float:
    """Return the price of one click, impression or order.

    Args:
        price: Price as campaigns and decisions state it.
        bid_per: What the price is for.
    """
    return round(price / 1000, MONEY_DECIMALS) if bid_per == "thousand_impressions" else price


def to_micros(price: float) -> int:
    """Return a price in millionths of the currency."""
    return round(price * MICROS)
