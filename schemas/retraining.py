"""Retraining leases: who retrains the bundles of a rollout, as records of the topic `rollouts`.

The key is `ROLLOUT/retraining`. Leases count in the order of the log: a record is in force if the lease before it has
ended, or belongs to the same holder.
"""

from typing import Annotated

import msgspec

from clickscore.schemas.json_depth import bounded_depth
from clickscore.schemas.rollouts import Milliseconds

LEASE_SUFFIX = "/retraining"
"""End of the key of a lease; the name of the rollout stands before it."""


class RetrainingLease(msgspec.Struct, frozen=True, kw_only=True):
    """The right to retrain, for a time."""

    holder: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    """Random name of the holder."""
    taken_at: Milliseconds
    """Wall-clock time of the record, ms."""
    ends_at: Milliseconds
    """Wall-clock time until which nobody else may retrain, ms; `taken_at` gives the lease back."""


def follows(lease: RetrainingLease | None, record: RetrainingLease) -> RetrainingLease:
    """Return the lease that is in force after the next record.

    Args:
        lease: The lease so far; None before the first.
        record: The next record of the log.
    """
    if lease is None or record.holder == lease.holder or lease.ends_at <= record.taken_at:
        return record
    return lease


decode_lease = bounded_depth(msgspec.json.Decoder(RetrainingLease).decode)
encode_lease = msgspec.json.Encoder().encode
