"""Judge: compare the output topics with the session model, record by record, and count every difference.

The judge reads the JSON and the MessagePack of the topics itself. Only documented forms are read.
"""

import itertools
import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from tests.chaos.event_rules import PURPOSES, JsonObject, Rules
from tests.chaos.ledger_model import LedgerModel, carries, read_pages
from tests.chaos.session_model import ACTIONS, PartitionFacts, PartitionModel, UserFacts

HASH_BYTES = 8
LEDGER_PREFIX = b"\0"
"""First byte of the keys of ledger records, which say nothing of sessions."""
HANDOVER = b'{"type":"handover"'
"""Beginning of a hand-over."""
NOTHING = UserFacts(0, (), None, (), None)
MAX_EXAMPLES = 20
DECISION_FIELDS = ("user_id", "event_id", "ts", "session_id", "session_length", "late")


class Record(Protocol):
    """A record of a topic, as a Kafka client returns it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


Records = Mapping[int, Sequence[Record]]
"""Records of a topic by partition."""


class Topics(NamedTuple):
    """All that the judge reads."""

    source: str
    """Full name of the topic of events."""
    events: Records
    recommendations: Records
    ads: Records
    closed_sessions: Records
    dead_letters: Records
    snapshots: Records
    receipts: Records
    decision_outcomes: Records
    ad_charges: Records


@dataclass
class Verdict:
    """Counts of a comparison; a good verdict has no faults."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    """Records by outcome, as the model says: decided, late, repeated, dead, tick."""
    users: int = 0
    """Users of whom the model remembers something at the end."""
    closed_sessions: int = 0
    joined: int = 0
    """Outcomes of decisions with a reaction, corrections included."""
    charged: float = 0.0
    """Sum of the charges, less the credits."""
    snapshots: int = 0
    """Records of the changelog, each compared with the model's state at its offset."""
    repeats: Counter[str] = field(default_factory=Counter[str])
    """Records that were written again, by kind."""
    faults: Counter[str] = field(default_factory=Counter[str])
    """Differences by kind: missing, unexpected, wrong, wrong state, unequal duplicate, stale key."""
    examples: list[str] = field(default_factory=list[str])

    @property
    def duplicates(self) -> int:
        """Number of records that were written again."""
        return self.repeats.total()

    @property
    def events(self) -> int:
        """Number of records of the events' topic."""
        return self.outcomes.total()

    def add(self, verdict: "Verdict") -> None:
        """Add the counts of another verdict."""
        self.outcomes += verdict.outcomes
        self.users += verdict.users
        self.closed_sessions += verdict.closed_sessions
        self.joined += verdict.joined
        self.charged += verdict.charged
        self.snapshots += verdict.snapshots
        self.repeats += verdict.repeats
        self.faults += verdict.faults
        self.examples += verdict.examples

    def note(self, kind: str, example: str) -> None:
        """Count a difference."""
        self.faults[kind] += 1
        if self.faults[kind] <= MAX_EXAMPLES:
            self.examples.append(f"{kind}: {example}")


def judge(topics: Topics, rules: Rules, *, with_ads: bool, with_money: bool = True) -> Verdict:
    """Compare everything that was written with the model, and return the counts.

    Args:
        topics: Records of all topics, after every event was committed.
        rules: Settings of the sessions.
        with_ads: Whether there were campaigns from the first event on, so that each decision has its ad.
        with_money: Whether each worker was of a release that writes outcomes and charges.
    """
    verdict = Verdict()
    truth = _recompute(topics, rules)
    for partition, model in truth.sessions.items():
        verdict.outcomes += model.outcomes
        verdict.closed_sessions += len(model.closed)
        _judge_decisions(verdict, topics.recommendations.get(partition, ()), model)
        if with_ads:
            _judge_ads(verdict, topics.ads.get(partition, ()), model)
        _judge_closed_sessions(verdict, topics.closed_sessions.get(partition, ()), model)
        _judge_receipts(verdict, topics.receipts.get(partition, ()), model)
        _judge_handovers(verdict, topics, partition, truth, with_money=with_money)
        _judge_dead_letters(verdict, topics, partition, model, rules)
        _judge_snapshots(verdict, topics.snapshots.get(partition, ()), model)
    if with_money:
        _judge_money(verdict, topics, truth)
    return verdict


class _Truth(NamedTuple):
    """What must follow from the log of events and the published decisions."""

    sessions: Mapping[int, PartitionModel]
    ledgers: Mapping[int, LedgerModel]
    outcomes: Mapping[str, JsonObject]
    charges: Mapping[str, JsonObject]


def _recompute(topics: Topics, rules: Rules) -> _Truth:
    """Pass the logs of all partitions through the models; a hand-over comes after its source."""
    pages = read_pages(_newest(topics.recommendations), _newest(topics.ads))
    outcomes: dict[str, JsonObject] = {}
    charges: dict[str, JsonObject] = {}
    sources = {partition: f"{topics.source}-{partition}" for partition in topics.events}
    sessions = {partition: PartitionModel(source, rules) for partition, source in sources.items()}
    ledgers = {partition: LedgerModel(source, pages, outcomes, charges) for partition, source in sources.items()}
    waiting = {partition: deque(records) for partition, records in topics.events.items()}
    is_stuck = False  # a hand-over from nowhere waits for nothing
    while any(waiting.values()):
        before = sum(map(len, waiting.values()))
        for partition, records in waiting.items():
            while records and (is_stuck or _may_follow(records[0], sessions)):
                record, is_stuck = records.popleft(), False
                sessions[partition].add(record.offset, record.timestamp, record.value)
                ledgers[partition].add(sessions[partition])
        is_stuck = before == sum(map(len, waiting.values()))
    return _Truth(sessions, ledgers, outcomes, charges)


def _may_follow(record: Record, sessions: Mapping[int, PartitionModel]) -> bool:
    """Return whether the `identify` event behind a hand-over was passed; every other record may come at any time."""
    if not (record.value or b"").startswith(HANDOVER):
        return True
    handover = json.loads(record.value or b"")
    source = sessions.get(handover["partition"])
    return source is None or source.offset >= handover["offset"]


def _newest(records: Records) -> dict[str, JsonObject]:
    """Return the records of all partitions by decision."""
    values = [json.loads(record.value or b"{}") for of_partition in records.values() for record in of_partition]
    return {value["decision_id"]: value for value in values if "decision_id" in value}


def _judge_money(verdict: Verdict, topics: Topics, truth: _Truth) -> None:
    """Compare outcomes and charges of all partitions with the truth: a hand-over moves an open decision."""
    outcomes: dict[str, list[Record]] = defaultdict(list)
    for record in itertools.chain.from_iterable(topics.decision_outcomes.values()):
        value = json.loads(record.value or b"{}")
        outcomes[f"{value['decision_id']}/{value.get('revision', 0)}"].append(record)
    charges = _by_field(itertools.chain.from_iterable(topics.ad_charges.values()), "charge_id")

    def differs(key: str, expected: Mapping[str, JsonObject]) -> Callable[[Record, str], bool]:
        return lambda record, identity: (
            record.key != expected[identity][key].encode()
            or _without_zeros(json.loads(record.value or b"null")) != _without_zeros(expected[identity])
        )

    _judge_written(verdict, "outcome", outcomes, truth.outcomes, differs("user_id", truth.outcomes))
    _judge_written(verdict, "charge", charges, truth.charges, differs("campaign_id", truth.charges))
    verdict.joined += sum("lines" in outcome for outcome in truth.outcomes.values())
    verdict.charged += sum(charge["net"] for charge in truth.charges.values())


def _judge_decisions(verdict: Verdict, records: Iterable[Record], model: PartitionModel) -> None:
    def differs(record: Record, identity: str) -> bool:
        value, expectation = json.loads(record.value or b"null"), model.decided[identity]
        items = [choice["item_id"] for choice in value["items"]]
        return (
            record.key != expectation.user_id.encode()
            or value["type"] != "recommendation"
            or any(value[name] != getattr(expectation, name) for name in DECISION_FIELDS)
            or value.get("withheld", []) != list(expectation.withheld)
            or len(items) != len(set(items))
        )

    _judge_written(verdict, "decision", _by_field(records, "decision_id"), model.decided, differs)


def _judge_ads(verdict: Verdict, records: Iterable[Record], model: PartitionModel) -> None:
    expected = {f"{identity}-ad": due for identity, due in model.decided.items()}

    def differs(record: Record, identity: str) -> bool:
        value, expectation = json.loads(record.value or b"null"), expected[identity]
        names = ("user_id", "event_id", "ts", "session_id")
        return record.key != expectation.user_id.encode() or any(
            value[name] != getattr(expectation, name) for name in names
        )

    _judge_written(verdict, "ad", _by_field(records, "decision_id"), expected, differs)


def _judge_closed_sessions(verdict: Verdict, records: Iterable[Record], model: PartitionModel) -> None:
    def differs(record: Record, identity: str) -> bool:
        expectation = model.closed[identity]
        return record.key != expectation["user_id"].encode() or json.loads(record.value or b"null") != expectation

    _judge_written(verdict, "closed session", _by_field(records, "id"), model.closed, differs)


def _judge_receipts(verdict: Verdict, records: Iterable[Record], model: PartitionModel) -> None:
    def differs(record: Record, identity: str) -> bool:
        expectation = model.receipts[identity]
        return record.key != expectation["user_id"].encode() or json.loads(record.value or b"null") != expectation

    _judge_written(verdict, "receipt", _by_field(records, "record_id"), model.receipts, differs)


def _without_zeros(value: Any) -> Any:
    """Return JSON without fields that are 0: a record may say 0 or nothing."""
    if isinstance(value, dict):
        return {name: _without_zeros(content) for name, content in value.items() if content != 0 or name == "position"}
    return [_without_zeros(content) for content in value] if isinstance(value, list) else value


def _judge_handovers(verdict: Verdict, topics: Topics, partition: int, truth: _Truth, *, with_money: bool) -> None:
    """Compare the hand-overs from a partition, which lie in all partitions of the events.

    Args:
        verdict: Receives the differences.
        topics: All topics.
        partition: Partition of the `identify` events.
        truth: What must follow.
        with_money: Whether open decisions are handed over, too.
    """
    model, handed = truth.sessions[partition], truth.ledgers[partition].handed
    expected = dict(model.handovers)
    for offset in (offset for offset, user in handed.items() if user.pages and with_money):
        expected.setdefault(f"{model.source}-{offset}", {"partition": partition, "offset": offset})
    handovers: dict[str, list[Record]] = defaultdict(list)
    for records in topics.events.values():
        for record in records:
            if (record.value or b"").startswith(HANDOVER):
                value = json.loads(record.value or b"")
                if value["partition"] == partition and not _has_ads_alone(value):
                    handovers[f"{model.source}-{value['offset']}"].append(record)

    def differs(record: Record, identity: str) -> bool:
        value = json.loads(record.value or b"null")
        return (
            record.key != value["user_id"].encode()
            or any(value[name] != content for name, content in expected[identity].items())
            or (with_money and not carries(value, handed[value["offset"]]))
        )

    _judge_written(verdict, "hand-over", handovers, expected, differs)


def _has_ads_alone(handover: JsonObject) -> bool:
    """Return whether a hand-over has counts of ad impressions and nothing else.

    The models do not count impressions for caps. An impression that comes after its user was identified, as late as a
    stalled worker makes it, is counted for the anonymous id, and a second `identify` event hands the count over.
    """
    content = ("session", "bought", "last_ts", "consent", "ledger")
    return bool(handover.get("ads")) and not any(handover.get(name) for name in content)


def _judge_dead_letters(verdict: Verdict, topics: Topics, partition: int, model: PartitionModel, rules: Rules) -> None:
    originals = {record.offset: record for record in topics.events[partition]}
    letters: dict[str, list[Record]] = defaultdict(list)
    for record in topics.dead_letters.get(partition, ()):
        letters[f"{_header(record, 'topic')}-{_header(record, 'partition')}-{_header(record, 'offset')}"].append(record)

    def differs(record: Record, identity: str) -> bool:
        original = originals[int(identity.rpartition("-")[2])]
        value = original.value and original.value[: rules.max_event_bytes]
        return (record.key, record.value) != (original.key, value) or not _header(record, "error")

    expected = {f"{model.source}-{offset}": offset for offset in model.dead}
    _judge_written(verdict, "dead letter", letters, expected, differs)


def _judge_written(
    verdict: Verdict,
    kind: str,
    written: Mapping[str, Sequence[Record]],
    expected: Mapping[str, Any],
    differs: Callable[[Record, str], bool],
) -> None:
    """Compare the records of an output topic with those that are due, by id."""
    for identity in expected.keys() - written.keys():
        verdict.note("missing", f"{kind} {identity}")
    for identity, records in written.items():
        verdict.repeats[kind] += len(records) - 1
        if identity not in expected:
            verdict.note("unexpected", f"{kind} {identity}")
        elif differs(records[0], identity):
            verdict.note("wrong", f"{kind} {identity}: {records[0].value!r}, expected is {expected[identity]}")
        for record in records[1:]:
            if _content(record) != _content(records[0]):
                verdict.note("unequal duplicate", f"{kind} {identity}: {records[0].value!r} and {record.value!r}")


def _judge_snapshots(verdict: Verdict, records: Iterable[Record], model: PartitionModel) -> None:
    """Compare each record of the changelog with the model's state at its offset, and the newest with the end."""
    newest: dict[bytes, tuple[int, Any]] = {}
    last: dict[bytes, int] = {}
    tombstones: dict[bytes, list[bool]] = defaultdict(
        list
    )  # of the newest and the last record: whether it is a tombstone
    for record in records:
        verdict.snapshots += 1
        key = record.key or b""
        offset, facts = _read_snapshot(record)
        if not key.startswith(LEDGER_PREFIX) and not model.matches(key.decode(), offset, facts):
            verdict.note("wrong state", f"{model.source}, user {key!r} at offset {offset}: {facts}")
        last[key] = offset
        is_newest = key not in newest or offset >= newest[key][0]
        if is_newest:
            newest[key] = (offset, facts)
        tombstones[key] = [not record.value] * 2 if is_newest else [tombstones[key][0], not record.value]
    for key, offset in last.items():
        if offset < newest[key][0] and not all(tombstones[key]):  # an older tombstone over a tombstone hides nothing
            verdict.note(
                "stale key", f"{model.source}, user {key!r}: the last record is of {offset}, not {newest[key][0]}"
            )
    _judge_final_state(verdict, newest, model)


def _judge_final_state(verdict: Verdict, newest: Mapping[bytes, tuple[int, Any]], model: PartitionModel) -> None:
    users = model.users()
    verdict.users += len(users)
    for user_id, facts in users.items():
        if newest.get(user_id.encode(), (-1, None))[1] != facts:
            verdict.note("wrong state", f"{model.source}, user {user_id} at the end is not {facts}")
    for key, (_, facts) in newest.items():
        if key and not key.startswith(LEDGER_PREFIX) and facts is not None and key.decode() not in users:
            verdict.note("wrong state", f"{model.source}, user {key!r} is remembered at the end")
    if newest and newest[b""][0] != model.offset:
        verdict.note("missing", f"{model.source}: the state ends at {newest[b''][0]}, not at {model.offset}")
    if not newest and model.offset >= 0:
        verdict.note("missing", f"{model.source}: no state")


def _read_snapshot(record: Record) -> tuple[int, UserFacts | PartitionFacts | None]:
    """Return the source offset of a snapshot, and the facts in it; a tombstone has its offset in a header."""
    if not record.value:
        return int(_header(record, "offset") or -1), None
    fields: list[Any] = msgspec.msgpack.decode(record.value)
    if not record.key:
        offset, max_ts, popular = fields[:3]
        return offset, PartitionFacts(max_ts, tuple(popular))
    offset, first_offset, name, opened_at, newest_ts, length, purchased, *events_fields = fields
    ages, actions, items, hashes, bought, *rest = events_fields
    events = tuple(
        (opened_at + age, ACTIONS[action], item, hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES])
        for index, (age, action, item) in enumerate(zip(ages, actions, items, strict=True))
    )
    session = (first_offset, name, opened_at, length, purchased) if length else None
    newest_ts = newest_ts if length or bought else 0
    facts = UserFacts(newest_ts, tuple(bought), session, events, _read_consent(rest[0] if rest else None))
    return offset, None if facts == NOTHING else facts  # counts of seen ads may be left, which no model knows


def _read_consent(fields: list[Any] | None) -> Any:
    if fields is None:
        return None
    granted, withdrawn, newest_ts, newest_withdrawal, hashes, is_session_withheld, *rest = fields
    times = newest_ts, newest_withdrawal
    return _purposes(granted), _purposes(withdrawn), *times, hashes, is_session_withheld, rest[0] if rest else b""


def _purposes(bits: int) -> frozenset[str]:
    return frozenset(purpose for index, purpose in enumerate(PURPOSES) if bits >> index & 1)


def _by_field(records: Iterable[Record], name: str) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[json.loads(record.value or b"{}").get(name, "")].append(record)
    return groups


def _content(record: Record) -> tuple[bytes | None, bytes | None, str]:
    return record.key, record.value, _header(record, "error")


def _header(record: Record, name: str) -> str:
    return dict(record.headers).get(name, b"").decode()
