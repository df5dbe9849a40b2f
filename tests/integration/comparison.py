"""Comparison: what workers wrote against what a replay of the very records of the topic comes to."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import msgspec
from aiokafka import ConsumerRecord

from clickscore.schemas.decisions import decode_decision
from clickscore.schemas.erasure import Erased, decode_receipt
from clickscore.schemas.sessions import decode_session
from clickscore.schemas.snapshots import OFFSET_HEADER
from clickscore.schemas.topics import (
    ADS,
    CAMPAIGNS,
    CATALOGUE,
    CLOSED_SESSIONS,
    DEAD_LETTERS,
    ERASURE_RECEIPTS,
    EVENTS,
    RECOMMENDATIONS,
    SNAPSHOTS,
)
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings
from clickscore.stream.state.changelog import StateRestorer
from clickscore.stream.state.partition import PartitionState
from tests.integration.live import Installation, Records

REPLAY_BATCH = 389  # no divisor of what workers take, so that batches begin and end elsewhere


class Written(NamedTuple):
    """A record of an output topic, less what differs between two runs."""

    partition: int
    key: bytes | None
    value: bytes | None


class Letter(NamedTuple):
    """A dead letter: whence, and what."""

    partition: int
    key: bytes | None
    value: bytes | None
    error: str


class Account(NamedTuple):
    """What events came to: by id all that was written under it, in order, so that repeats show."""

    recommendations: dict[str, list[Written]]
    ads: dict[str, list[Written]]
    closed_sessions: dict[str, list[Written]]
    receipts: dict[str, list[Written]]
    dead_letters: dict[str, list[Letter]]
    """By `TOPIC-PARTITION-OFFSET` of the record."""
    states: dict[int, PartitionState]
    outcomes: Counter[str]
    """Empty where it is read from topics."""


class Evidence(NamedTuple):
    """What workers wrote, and what a replay says they should have."""

    live: Account
    replay: Account

    @property
    def repeats(self) -> int:
        """Recommendations that were written more than once."""
        return sum(len(written) - 1 for written in self.live.recommendations.values())


def gather_evidence(installation: Installation) -> Evidence:
    """Read everything, and replay the events."""
    return Evidence(live=written_account(installation), replay=replayed_account(installation))


def written_account(installation: Installation) -> Account:
    """Return what lies in the output topics."""
    return Account(
        recommendations=_by_id(installation.read(RECOMMENDATIONS), lambda value: decode_decision(value).decision_id),
        ads=_by_id(installation.read(ADS), lambda value: decode_decision(value).decision_id),
        closed_sessions=_by_id(installation.read(CLOSED_SESSIONS), lambda value: decode_session(value).id),
        receipts=_by_id(installation.read(ERASURE_RECEIPTS), _receipt_id),
        dead_letters=_letters(installation.read(DEAD_LETTERS)),
        states=restored_states(installation),
        outcomes=Counter(),
    )


def replayed_account(installation: Installation) -> Account:
    """Return what the pipeline makes of the records of the events' topic, with no Kafka in between."""
    settings = installation.settings
    pipeline = replay_pipeline(settings, installation)
    account = Account(*(defaultdict(list) for _ in range(5)), {}, Counter())
    for partition, records in installation.read(EVENTS).items():
        for start in range(0, len(records), REPLAY_BATCH):
            output = pipeline.process(partition, records[start : start + REPLAY_BATCH])
            _book(account, output, partition, pipeline.source(partition))
        account.states[partition] = pipeline.state(partition)
    return account


def replay_pipeline(settings: Settings, installation: Installation) -> Pipeline:
    """Return a pipeline that knows the catalogue and serves the bundle of an installation."""
    catalogue = Catalogue()
    for record in installation.read(CATALOGUE)[0]:
        assert catalogue.update_item(record.key, record.value) is None
    for record in installation.read(CAMPAIGNS)[0]:
        assert catalogue.update_campaign(record.key, record.value) is None
    scorer = (
        Scorer(load_bundle(Path(settings.scoring.bundle)), settings.scoring.score_batch)
        if settings.scoring.bundle
        else None
    )
    return Pipeline(settings.sessions, settings.policy, settings.kafka.topic(EVENTS.name), catalogue, scorer)


def restored_states(installation: Installation) -> dict[int, PartitionState]:
    """Return the state that each partition's snapshots leave, by the rule of a restart."""
    settings = installation.settings
    return {
        partition: _restorer(records).state(f"{settings.kafka.topic(EVENTS.name)}-{partition}", settings.sessions)
        for partition, records in installation.read(SNAPSHOTS).items()
    }


def differing(live: dict[str, list], replay: dict[str, list]) -> list[str]:
    """Return the ids under which anything else was written than the replay's one record."""
    return [identity for identity, written in live.items() if any(record != replay[identity][0] for record in written)]


def stale_keys(records: list[ConsumerRecord]) -> list[bytes]:
    """Return the keys whose last record is not their newest state, which compaction would keep."""
    return [change.key for change in _restorer(records).repairs()]


def remembered(state: PartitionState) -> dict[str, bytes]:
    """Return every user's snapshot of a state."""
    return dict(state._users.contents())


def partition_facts(state: PartitionState) -> dict[str, object]:
    """Return what a state says of its partition, popularity counts included."""
    return {
        "offset": state.offset,
        "max_ts": state.max_ts,
        "popular": state.popular,
        "open_sessions": state.open_sessions,
        "counts": dict(state._popularity._counts),
    }


def headers(record: ConsumerRecord) -> dict[str, str]:
    """Return a record's headers as text."""
    return {name: value.decode() for name, value in record.headers}


def _restorer(records: list[ConsumerRecord]) -> StateRestorer:
    restorer = StateRestorer()
    for record in records:
        restorer.add(record.key, record.value, int(headers(record).get(OFFSET_HEADER, -1)))
    return restorer


def _by_id(records: Records, name) -> dict[str, list[Written]]:
    found = defaultdict(list)
    for partition, of_partition in records.items():
        for record in of_partition:
            found[name(record.value)].append(Written(partition, record.key, record.value))
    return found


def _receipt_id(value: bytes) -> str:
    receipt = decode_receipt(value)
    assert isinstance(receipt, Erased)
    return receipt.record_id


def _letters(records: Records) -> dict[str, list[Letter]]:
    found = defaultdict(list)
    for partition, of_partition in records.items():
        for record in of_partition:
            says = headers(record)
            found[f"{says['topic']}-{says['partition']}-{says['offset']}"].append(
                Letter(partition, record.key, record.value, says["error"])
            )
    return found


def _book(account: Account, output: Output, partition: int, source: str) -> None:
    for books, messages, field in (
        (account.recommendations, output.recommendations, "decision_id"),
        (account.ads, output.ads, "decision_id"),
        (account.closed_sessions, output.closed_sessions, "id"),
        (account.receipts, output.receipts, "record_id"),
    ):
        for message in messages:
            books[msgspec.json.decode(message.value)[field]].append(Written(partition, message.key, message.value))
    for letter in output.dead_letters:
        account.dead_letters[f"{source}-{letter.record.offset}"].append(
            Letter(partition, letter.record.key, letter.record.value, letter.error)
        )
    account.outcomes.update(output.outcomes)
