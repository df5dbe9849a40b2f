"""Lost values: find out which epochs need values of catalogue or campaigns that compaction has removed."""

from collections.abc import Iterator
from typing import NamedTuple

from clickscore.schemas.events import Epoch
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.replay.reference_log import ReferenceLog


class _TopicLoss(NamedTuple):
    """What compaction may have taken from a topic."""

    first_gap: int
    """Smallest offset without a record; the end of a complete topic."""
    last_replaced: int
    """Offset of the last record so old that compaction may have removed the value that it replaced; -1 for none."""


class LostValues:
    """Knows for each epoch what is missing in the topics of catalogue and campaigns."""

    def __init__(self, log: ReferenceLog, kept_since_ms: float) -> None:
        """Look through the records.

        Args:
            log: All records of both topics, in the order of each.
            kept_since_ms: Append time from which on the topics keep replaced values, ms.
        """
        self._has_records = bool(log.records)
        self._losses = {
            CATALOGUE.name: _find_loss(log, CATALOGUE.name, log.catalogue, kept_since_ms),
            CAMPAIGNS.name: _find_loss(log, CAMPAIGNS.name, log.campaigns, kept_since_ms),
        }

    def describe(self, epoch: Epoch | None) -> list[str]:
        """Return in words what is missing for the decisions of an epoch; empty where everything is there.

        Compaction removes a value only for a later record of the same key. So the values as of an offset are complete
        unless a record before the offset is missing, and a record after it is old enough to have removed a value.
        """
        if epoch is None:
            problem = "the log has no epoch, so the present catalogue and campaigns were used"
            return [problem] if self._has_records else []
        return list(self._describe(epoch))

    def _describe(self, epoch: Epoch) -> Iterator[str]:
        for name, offset in ((CATALOGUE.name, epoch.catalogue), (CAMPAIGNS.name, epoch.campaigns)):
            loss = self._losses[name]
            if loss.first_gap < offset <= loss.last_replaced:
                yield (
                    f"compaction has removed values of {name} from before offset {offset:,}, which the epoch needs: "
                    "the next value of the item or campaign was used, or none"
                )


def _find_loss(log: ReferenceLog, name: str, end: int, kept_since_ms: float) -> _TopicLoss:
    """Return the loss of a topic.

    Args:
        log: Records of both topics.
        name: Name of the topic without the prefix.
        end: Offset after the last record.
        kept_since_ms: Append time from which on the topic keeps replaced values, ms.
    """
    expected, first_gap, last_replaced = 0, None, -1
    for record in log.records:
        if record.topic != name:
            continue
        if first_gap is None and record.offset != expected:
            first_gap = expected
        expected = record.offset + 1
        if record.timestamp < kept_since_ms:
            last_replaced = record.offset
    if first_gap is None:
        first_gap = expected
    return _TopicLoss(first_gap, last_replaced)
