"""Topics: their names, and the settings that the guarantees rest on."""

import msgspec

from clickscore.schemas.durations import DAY_MS

MAX_RECORD_BYTES = 32 * 1024 * 1024
"""Largest record batch of any topic: a cycle's snapshots travel as one, so that they are stored whole or not at all."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic as `clickscore topics create` makes it."""

    name: str
    per_user: bool
    """Keyed by user, so with as many partitions as the events; others have one."""
    config: dict[str, str]


_append_time = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_RECORD_BYTES)}
_delete = {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS), **_append_time}
# The lag keeps a stalled worker's late write from compacting away the newer state before a restore repairs it.
_compact = {
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": "3600000",
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
