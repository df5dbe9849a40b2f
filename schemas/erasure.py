"""Erasure receipts: what became of a request to forget a user, as records of `erasure-receipts`.

A worker writes `erased` when it comes to an `erase` event. `clickscore erase` then reads the topics, and writes
`remains`: the ids of the user's records that still lie in topics. A repeat after a crash has the same bytes.
"""

import msgspec

from clickscore.schemas.json_depth import bounded_depth


class Receipt(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """Fields of every receipt."""

    event_id: str
    """Id of the `erase` event."""
    user_id: str


class Erased(Receipt, frozen=True, kw_only=True, tag="erased", gc=False):
    """A worker has removed the state of the user. All decisions on earlier events of the user are in their topics."""

    record_id: str
    """`TOPIC-PARTITION-OFFSET` of the `erase` event. An event that is sent to all partitions has a receipt of each."""
    ts: int
    """Event time of the `erase` event, ms."""


class Remains(Receipt, frozen=True, kw_only=True, tag="remains", gc=False):
    """Records of the user, from before the `erase` event, that still lay in topics when the topics were read.

    The records end with the retention of their topics. A long list comes in parts of at most `MAX_IDS` ids each.
    """

    part: int
    """Number of this part, from 1."""
    parts: int
    """Number of parts."""
    decisions: tuple[str, ...] = ()
    """Ids of recommendations, oldest first. The ad of a decision has the same id with `-ad` at the end."""
    ads: tuple[str, ...] = ()
    """Ids of ad decisions, oldest first."""
    sessions: tuple[str, ...] = ()
    """Ids of closed sessions, oldest first."""


MAX_IDS = 10_000
"""Largest number of ids of a record: about 400 KB, where Kafka's default limit of a record is 1 MB."""

AnyReceipt = Erased | Remains

decode_receipt = bounded_depth(msgspec.json.Decoder(AnyReceipt).decode)
encode_receipt = msgspec.json.Encoder().encode
