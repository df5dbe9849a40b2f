"""Topics: names, keys and configs. The delivery guarantees rest on these configs."""

import msgspec

from clickscore.schemas.durations import DAY_MS, HOUR_MS

MAX_RECORD_BYTES = 32 * 1024 * 1024
"""Largest record batch of any topic, bytes. The snapshots of a cycle are a batch, stored whole or not at all."""
MAX_ERROR_CHARACTERS = 1000
"""Largest length of the reason in the header of a dead letter. The reason may quote the record."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic of `clickscore topics create`."""

    name: str
    per_user: bool
    """Whether a record belongs to a user. Such topics have as many partitions as the events, other topics only 1."""
    config: dict[str, str]
    """Configs of the topic, by Kafka's names."""


_append_time = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_RECORD_BYTES)}
# Kafka deletes whole segments: a record stays for up to `segment.ms` longer than `retention.ms`. Kafka's own default of
# a week would double the time.
_delete = {
    "cleanup.policy": "delete",
    "retention.ms": str(7 * DAY_MS),
    "segment.ms": str(DAY_MS),
    **_append_time,
}
# One hour without compaction: a stalled worker may write an old state late, and the newer state must still be in the
# log when a restore repairs the order.
_compact = {
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": str(HOUR_MS),
    # An overwritten or removed value leaves the disk within a day of the next write to its partition. Kafka's own
    # defaults have no such bound: a quiet shop would keep the state of a forgotten user for weeks.
    "max.compaction.lag.ms": str(DAY_MS),
    "segment.ms": str(6 * HOUR_MS),  # only a finished segment is compacted
    "segment.bytes": str(128 * 1024 * 1024),  # a restore also reads the segment that is not compacted yet
    "min.cleanable.dirty.ratio": "0.1",  # compacts when a tenth is overwritten; Kafka's default waits for a half
    "delete.retention.ms": str(DAY_MS),  # a removal stays readable for a day, for a reader that is behind
    "max.message.bytes": str(MAX_RECORD_BYTES),
}
# A replay reads the catalogue as of each event, so old values stay for as long as the events.
_reference = {
    **_compact,
    "min.compaction.lag.ms": str(7 * DAY_MS),
    "max.compaction.lag.ms": str(8 * DAY_MS),
}

EVENTS = Topic(name="clickstream-events", per_user=True, config=_delete)
CATALOGUE = Topic(name="catalogue-items", per_user=False, config=_reference)
CAMPAIGNS = Topic(name="ad-campaigns", per_user=False, config=_reference)
ROLLOUTS = Topic(name="rollouts", per_user=False, config=_compact)
RECOMMENDATIONS = Topic(name="recommendation-decisions", per_user=True, config=_delete)
ADS = Topic(name="ad-decisions", per_user=True, config=_delete)
DECISION_OUTCOMES = Topic(name="decision-outcomes", per_user=True, config=_delete)
AD_CHARGES = Topic(name="ad-charges", per_user=True, config=_delete)
CLOSED_SESSIONS = Topic(name="closed-sessions", per_user=True, config=_delete)
ERASURE_RECEIPTS = Topic(name="erasure-receipts", per_user=True, config=_delete)
SNAPSHOTS = Topic(name="session-snapshots", per_user=True, config=_compact)
DEAD_LETTERS = Topic(name="dead-letters", per_user=True, config=_delete)

TOPICS: tuple[Topic, ...] = (
    EVENTS,
    CATALOGUE,
    CAMPAIGNS,
    ROLLOUTS,
    RECOMMENDATIONS,
    ADS,
    DECISION_OUTCOMES,
    AD_CHARGES,
    CLOSED_SESSIONS,
    ERASURE_RECEIPTS,
    SNAPSHOTS,
    DEAD_LETTERS,
)
