"""Decision ids: find the event, and so the place in the log, to which the id of a decision points."""

import re
from typing import NamedTuple

from clickscore.stream.errors import SettingsError

AD_SUFFIX = "-ad"
"""End of the id of a decision on an ad."""

_DECISION_ID = re.compile(
    r"(?P<topic>.+)-(?P<partition>0|[1-9]\d{0,8})-(?P<offset>0|[1-9]\d{0,17})(?P<ad>-ad)?", re.ASCII
)


class DecisionId(NamedTuple):
    """Parts of a decision's id."""

    topic: str
    """Topic of the event, with its prefix."""
    partition: int
    offset: int
    """Offset of the event."""
    is_ad: bool

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}{AD_SUFFIX if self.is_ad else ''}"


def parse_decision_id(text: str) -> DecisionId:
    """Return the parts of an id.

    Raises:
        SettingsError: The text is no id of a decision.
    """
    match = _DECISION_ID.fullmatch(text)
    if match is None:
        message = (
            f"{text!r} is no decision id: an id is TOPIC-PARTITION-OFFSET, and TOPIC-PARTITION-OFFSET-ad for an ad, "
            "with numbers without leading zeros"
        )
        raise SettingsError(message)
    return DecisionId(match["topic"], int(match["partition"]), int(match["offset"]), match["ad"] is not None)
