"""Written topics: what the product's pipeline writes for a log, as the records of topics, for tests of the judge."""

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from clickscore.schemas.catalogue import encode
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import Settings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.worker.group import OutgoingRecord
from clickscore.stream.worker.outgoing import dead_letter, tombstone_headers
from tests.chaos.event_rules import Rules
from tests.chaos.judge import Topics
from tests.chaos.reactions import reactions_to
from tests.integration.event_log import Sent, campaigns, catalogue

TOPIC = "clickstream-events"
APPENDED_AT = 1_900_000_000_000


@dataclass(frozen=True)
class Stored:
    """A record of a topic."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def rules_of(settings: Settings) -> Rules:
    """Return the model's rules of the product's settings."""
    return Rules(*(getattr(settings.sessions, name) for name in Rules._fields))


def written_topics(
    log: Sequence[Sent], settings: Settings, batch: int, restart: int = 0, *, reacts: bool = False
) -> Topics:
    """Return all topics after the pipeline has processed a log in partition 0.

    Args:
        log: Records of the events.
        settings: Settings of sessions and policy.
        batch: Records that are processed together.
        restart: Number of batches after which the state is restored from the changelog; 0 for never.
        reacts: Whether shoppers react to the decisions.
    """
    pipeline = Pipeline(settings.sessions, settings.policy, TOPIC, reference())
    waiting = deque((key, value) for value, key, _ in log)
    events: list[Stored] = []
    outputs: list[list[Stored]] = [[] for _ in Topics._fields[2:]]
    changes: list[ChangelogRecord] = []
    for number in itertools.count():
        if not waiting:
            break
        fetched = [waiting.popleft() for _ in range(min(batch, len(waiting)))]
        records = [Stored(len(events) + row, APPENDED_AT, key, value) for row, (key, value) in enumerate(fetched)]
        events += records
        if restart and number % restart == restart - 1:
            pipeline.load({0: restore(changes, f"{TOPIC}-0", settings.sessions)})
        output = pipeline.process(0, records)
        changes += output.changes
        waiting.extendleft((message.key, message.value) for message in reversed(output.handovers))
        decisions = (*output.recommendations, *output.ads) if reacts else ()
        reactions = [sent for message in decisions for sent in reactions_to(message.value)]
        waiting.extendleft((sent.key, sent.value) for sent in reversed(reactions))
        for topic, records in zip(outputs, output_records(output, settings, 0), strict=True):
            topic += [Stored(len(topic) + index, APPENDED_AT, *record) for index, record in enumerate(records)]
    return Topics(TOPIC, {0: events}, *({0: records} for records in outputs))


def reference() -> Catalogue:
    """Return the catalogue and campaigns of `event_log`."""
    made = Catalogue()
    for item in catalogue():
        made.update_item(item.item_id.encode(), encode(item))
    for campaign in campaigns():
        made.update_campaign(campaign.campaign_id.encode(), encode(campaign))
    return made


def output_records(output: Output, settings: Settings, partition: int) -> list[list[OutgoingRecord]]:
    """Return the records for each output topic, in the order of `Topics`.

    Args:
        output: Output of a batch.
        settings: Names of topics, and limits.
        partition: Partition of the batch.
    """
    plain = (output.recommendations, output.ads, output.closed_sessions)
    return [
        *([(message.key, message.value, []) for message in messages] for messages in plain),
        [
            dead_letter(settings.kafka, partition, letter, settings.sessions.max_event_bytes)
            for letter in output.dead_letters
        ],
        [
            (change.key, change.value, tombstone_headers(change) if change.value is None else [])
            for change in output.changes
        ],
        *(
            [(message.key, message.value, []) for message in messages]
            for messages in (output.receipts, output.decision_outcomes, output.charges)
        ),
    ]
