"""Worker tally: workers by the header of their decisions, and the bundles and policies of the decisions."""

from collections import Counter, OrderedDict
from typing import Any

import msgspec

from clickscore.schemas.json_depth import bounded_depth
from clickscore.stream.console.bounded import bounded_entry

MAX_WORKERS = 100
MAX_VERSIONS = 50
SMOOTHING = 0.02
"""Weight of a new decision in the mean time of computation."""


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a decision in the header `scored`."""

    worker: str = ""
    took_ms: float = 0.0


decode_scored = bounded_depth(msgspec.json.Decoder(Scored).decode)


class WorkerCounts(msgspec.Struct):
    """Counts of a worker."""

    decisions: int = 0
    mean_ms: float = 0.0
    """Smoothed time from a batch to its decisions, ms."""
    newest_at: int = 0
    """Append time of the newest decision, ms."""
    partitions: dict[int, int] = {}
    """Append time of the newest decision of each partition, ms."""


class WorkerTally:
    """Counts by worker, and by version."""

    def __init__(self) -> None:
        self._workers: OrderedDict[str, WorkerCounts] = OrderedDict()
        self._versions: OrderedDict[str, Counter[str]] = OrderedDict()

    def add(self, scored: bytes, partition: int, decided_at: int) -> None:
        """Count a decision of a worker. An unreadable header counts for the worker without a name.

        Args:
            scored: Header of the decision.
            partition: Partition of the decision.
            decided_at: Append time of the decision, ms.
        """
        try:
            facts = decode_scored(scored)
        except (msgspec.DecodeError, UnicodeDecodeError):
            facts = Scored()
        counts = bounded_entry(self._workers, facts.worker, WorkerCounts, MAX_WORKERS)
        counts.decisions += 1
        weight = max(SMOOTHING, 1 / counts.decisions)
        counts.mean_ms += weight * (facts.took_ms - counts.mean_ms)
        counts.newest_at = max(counts.newest_at, decided_at)
        counts.partitions[partition] = decided_at

    def add_version(self, bundle: str | None, policy: str, variant: str) -> None:
        """Count a decision of a bundle and a policy.

        Args:
            bundle: Version of the bundle; None without scores.
            policy: Label of the policy.
            variant: Variant of the A/B test.
        """
        entry = bounded_entry(self._versions, msgspec.json.encode((bundle, policy)).decode(), Counter, MAX_VERSIONS)
        entry[variant] += 1

    def workers(self) -> dict[str, Any]:
        """Return the counts of each worker."""
        return {name: msgspec.to_builtins(self._workers[name]) for name in sorted(self._workers)}

    def versions(self) -> list[dict[str, Any]]:
        """Return the pairs of bundle and policy in decisions, the latest last."""
        reports: list[dict[str, Any]] = []
        for key, variants in self._versions.items():
            bundle, policy = msgspec.json.decode(key)
            reports.append({"bundle": bundle, "policy": policy, "variants": dict(variants)})
        return reports
