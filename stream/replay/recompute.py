"""Recompute: bring partitions to the events of past decisions, and note everything that each decision depended on."""

from collections.abc import Collection, Iterator, Mapping

import msgspec

from clickscore.schemas.events import Epoch
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Output, Record
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.replay.source import Batches
from clickscore.stream.request import Request


class DecisionCase(msgspec.Struct, frozen=True):
    """An event of a past decision, with the state of its partition as of the event."""

    partition: int
    offset: int
    request: Request | None
    """Event and session as of the event; None where the record gets no decision."""
    catalogue: AnyCatalogue | None
    """Catalogue and campaigns in the epoch of the event."""
    epoch: Epoch | None
    """Epoch of the event; None in a log without epochs."""
    no_decision: str
    """Reason why the record gets no decision, in words; empty where it gets one."""


def recompute_cases(
    pipeline: Pipeline, batches: Batches, targets: Mapping[int, Collection[int]]
) -> Iterator[DecisionCase]:
    """Move the partitions on by some batches, and yield the case of each wanted event.

    All other events only update the state. A decision does not depend on where a batch ends, so a batch is split at
    each wanted event.

    Args:
        pipeline: Pipeline with the state before the batches.
        batches: Next records of partitions.
        targets: Offsets of the wanted events, by partition.
    """
    for partition, records in batches:
        offsets, start = targets[partition], 0
        for index, record in enumerate(records):
            if record.offset in offsets:
                pipeline.advance_all([(partition, records[start:index])])
                yield _case(pipeline, partition, record)
                start = index + 1
        pipeline.advance_all([(partition, records[start:])])


def _case(pipeline: Pipeline, partition: int, record: Record) -> DecisionCase:
    """Return the case of a record, after all records before it."""
    (output,), requests, catalogues = pipeline.collect_requests([(partition, [record])])
    request, catalogue = (requests[0], catalogues[0]) if requests else (None, None)
    reason = "" if requests else _describe_outcome(output)
    return DecisionCase(partition, record.offset, request, catalogue, pipeline.state(partition).epoch, reason)


_OUTCOMES = {
    "epoch": "the record is an epoch, which a worker wrote: it is no event of a user",
    "tick": "the record is a tick, which only says that time has passed: it is no event of a user",
    "handover": "the record hands a session over to a user: it is no event of its own",
    "budget": "the record is a report or a lease of ad budgets, which a worker wrote: it is no event of a user",
    "repeated": "the record repeats an earlier one, so it counts as no event",
}


def _describe_outcome(output: Output) -> str:
    """Return in words why a record got no decision."""
    if output.dead_letters:
        return f"the record became a dead letter: {output.dead_letters[0].error}"
    (outcome,) = output.outcomes
    return _OUTCOMES.get(outcome, f"the record is of the type {outcome}: it says something of a user, and is no action")
