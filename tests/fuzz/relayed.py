"""Relay: mutated records of other systems; each becomes events or a dead letter, or its mapping ignores it."""

import random
from collections import Counter
from pathlib import Path

from aiokafka import ConsumerRecord

from clickscore.schemas.events import decode_record
from clickscore.schemas.topics import EVENTS
from clickscore.stream.event_files.formats.mapping_files import SHIPPED_MAPPINGS, read_mapping
from clickscore.stream.event_files.relay import RecordMapper, RelayTally
from tests.fuzz.judge import FaultError, Outcomes
from tests.fuzz.mutation import mutated_cells, mutated_record
from tests.fuzz.samples import SOURCES, Source

RECORDS = 100
"""Records of a case."""
MAX_EVENT_BYTES = 65_536


def fuzz_relay(chance: random.Random, folder: Path) -> Outcomes:
    """Map records of a topic, and return the outcome of each."""
    del folder
    source = chance.choice([source for source in SOURCES if source.format in SHIPPED_MAPPINGS])
    tally = RelayTally()
    mapper = RecordMapper(read_mapping(source.format), tally, MAX_EVENT_BYTES)
    outcomes: Outcomes = Counter(_outcome(mapper, offset, _value(chance, source)) for offset in range(RECORDS))
    counted = (tally.read, tally.ignored, tally.dead.total)
    if counted != (RECORDS, outcomes["ignored"], outcomes["refused"]):
        raise FaultError(f"read, ignored and dead are counted as {counted}: {dict(outcomes)}")
    return outcomes


def _value(chance: random.Random, source: Source) -> bytes | None:
    if chance.random() < 0.05:
        return chance.choice((None, b"", b"x" * 100_000, b"[" * 5_000))
    if source.objects:
        return mutated_record(chance, chance.choice(source.objects))
    return mutated_cells(chance, chance.choice(source.rows), source.separators[0])


def _outcome(mapper: RecordMapper, offset: int, value: bytes | None) -> str:
    record = ConsumerRecord(
        topic="tracker",
        partition=0,
        offset=offset,
        timestamp=0,
        timestamp_type=0,
        key=b"key",
        value=value,
        checksum=None,
        serialized_key_size=3,
        serialized_value_size=len(value or b""),
        headers=(),
    )
    outgoing = mapper.outgoing(record)
    for relayed in outgoing:
        if relayed.topic == EVENTS.name:
            decode_record(relayed.value)
        elif not dict(relayed.headers)["error"].strip() or len(relayed.value) > MAX_EVENT_BYTES:
            raise FaultError(f"a dead letter without words, or too large: {relayed}")
    topics = {relayed.topic for relayed in outgoing}
    return "ignored" if not outgoing else "events" if topics == {EVENTS.name} else "refused"
