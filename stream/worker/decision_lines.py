"""Decision lines: a line of the log for a share of the decisions, with the decision's id and a hash of the user."""

import logging

from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.stream.policy.experiments import unit_hash
from clickscore.stream.worker.logs import user_hash, with_fields
from clickscore.stream.worker.outgoing import PublishJob

log = logging.getLogger(__name__)


class DecisionLines:
    """Writes lines of decisions that are stored. A restart writes lines for the same decisions."""

    def __init__(self, topic: str, share: float) -> None:
        """Build the writer.

        Args:
            topic: Full name of the topic of events: decision ids begin with it.
            share: Share of the decisions, by a hash of the decision id.
        """
        self._topic = topic
        self._share = share

    def write(self, job: PublishJob) -> None:
        """Write the lines of a stored batch."""
        if not self._share:
            return
        partition, traces = job.batch.partition, job.traces.headers
        for message in job.output.recommendations:
            offset = message.event_offset
            decision_id = f"{self._topic}-{partition}-{offset}"
            if offset is None or unit_hash("log", decision_id) >= self._share:
                continue
            decision = decode_decision(message.value or b"")
            assert isinstance(decision, Recommendation)
            user = user_hash(message.key or b"")
            log.info(
                "decision %s: %d items by %s for the user with the hash %s",
                decision_id,
                len(decision.items),
                decision.variant,
                user,
                extra=with_fields(
                    decision_id=decision_id,
                    user=user,
                    variant=decision.variant,
                    bundle=decision.bundle,
                    policy=decision.policy,
                    items=len(decision.items),
                    traceparent=dict(traces.get(offset, ())).get("traceparent", b"").decode(),
                ),
            )
