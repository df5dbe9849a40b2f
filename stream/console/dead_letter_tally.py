"""Dead letter tally: dead letters by reason, each with its newest sample."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_REASONS = 40
"""Number of reasons; the reason without a dead letter for the longest time goes first."""
SAMPLE_BYTES = 600
"""Bytes of a sample: enough to recognise the sender."""
REASON_CHARACTERS = 300

_NUMBER = re.compile(r"\d+")
_QUOTE = re.compile(r"'[^']*'|\"[^\"]*\"")


class DeadLetterReason(msgspec.Struct):
    """Dead letters with a reason."""

    reason: str
    """Reason of the newest dead letter, in words."""
    source: str
    """`TOPIC-PARTITION-OFFSET` of the newest rejected record."""
    sample: str
    """Beginning of the newest rejected record."""
    appended_at: int
    """Append time of the newest dead letter, ms."""
    count: int = 0


class DeadLetterTally:
    """Counts dead letters by reason. Reasons that differ in numbers or quoted words alone count as the same."""

    def __init__(self) -> None:
        self._reasons: OrderedDict[str, DeadLetterReason] = OrderedDict()

    def add(self, headers: Mapping[str, bytes], value: bytes | None, appended_at: int) -> None:
        """Count a dead letter.

        Args:
            headers: Headers of the record: reason and source.
            value: The rejected record.
            appended_at: Append time of the dead letter, ms.
        """
        reason = _text(headers.get("error", b"")[: 4 * REASON_CHARACTERS])[:REASON_CHARACTERS] or "no reason is given"
        source = "-".join(_text(headers.get(name, b"?")[:300]) for name in ("topic", "partition", "offset"))
        kind = _NUMBER.sub("#", _QUOTE.sub("'...'", reason))
        tally = self._reasons.setdefault(kind, DeadLetterReason(reason, source, "", appended_at))
        self._reasons.move_to_end(kind)
        tally.reason, tally.source, tally.appended_at = reason, source, appended_at
        tally.sample = _text((value or b"")[:SAMPLE_BYTES])
        tally.count += 1
        if len(self._reasons) > MAX_REASONS:
            self._reasons.popitem(last=False)

    def report(self) -> list[dict[str, Any]]:
        """Return the reasons, the most frequent first."""
        return [
            msgspec.to_builtins(reason) for reason in sorted(self._reasons.values(), key=lambda reason: -reason.count)
        ]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
