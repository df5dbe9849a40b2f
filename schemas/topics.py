"""Topics: names, keys and configs. The delivery guarantees rest on these configs."""

import msgspec

from clickscore.schemas.durations import DAY_MS, HOUR_MS

MAX_RECORD_BYTES = 32 * 1024 * 1024
"""Largest record batch of any topic, bytes. The snapshots of a cycle are a batch, stored whole or not at all."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic of `clickscore topics create`."""

    name: str
    per_user: bool
    """Whether the key is a user id. User-keyed topics have as many partitions as the events, other topics only 1."""
    config: dict[str, str]
    """Configs of the topic, by Kafka's names."""


_append_time = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_RECORD_BYTES)}
_delete = {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS), **_append_time}
# One hour without compaction: a stalled worker may write an old state late, and the newer state must still be in the
# log when a restore repairs the order.
_compact = {
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": str(HOUR_MS),
    "max.message.bytes": str(MAX_RECORD_BYTES),
}

EVENTS = Topic(name="clickstream-events", per_user=True, config=_delete)
CATALOGUE = Topic(name="catalogue-items", per_user=False, config=_compact)
CAMPAIGNS = Topic(name="ad-campaigns", per_user=False, config=_compact)
RECOMMENDATIONS = Topic(name="recommendation-decisions", per_user=True, config=_delete)
ADS = Topic(name="ad-decisions", per_user=True, config=_delete)
CLOSED_SESSIONS = Topic(name="closed-sessions", per_user=True, config=_delete)
SNAPSHOTS = Topic(name="session-snapshots", per_user=True, config=_compact)
DEAD_LETTERS = Topic(name="dead-letters", per_user=True, config=_delete)

TOPICS: tuple[Topic, ...] = (
    EVENTS,
    CATALOGUE,
    CAMPAIGNS,
    RECOMMENDATIONS,
    ADS,
    CLOSED_SESSIONS,
    SNAPSHOTS,
    DEAD_LETTERS,
)
