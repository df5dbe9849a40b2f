"""Tail: read the records of a topic as they arrive, and describe each record in words."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from clickscore.schemas.catalogue import decode_campaign, decode_item
from clickscore.schemas.decisions import Ad, BidUnit, Recommendation, decode_decision
from clickscore.schemas.erasure import Erased, decode_receipt
from clickscore.schemas.events import (
    AnyEvent,
    AnyRecord,
    Consent,
    Epoch,
    Erase,
    Identify,
    PrivacyRecord,
    Search,
    Tick,
    decode_record,
)
from clickscore.schemas.handover import Handover
from clickscore.schemas.leases import BudgetLease, SpendReport
from clickscore.schemas.open_decisions import LEDGER_PREFIX, ledger_user
from clickscore.schemas.outcomes import decode_charge, decode_outcome
from clickscore.schemas.sessions import ClosedSession, decode_session
from clickscore.schemas.topics import (
    AD_CHARGES,
    ADS,
    CAMPAIGNS,
    CATALOGUE,
    CLOSED_SESSIONS,
    DEAD_LETTERS,
    DECISION_OUTCOMES,
    ERASURE_RECEIPTS,
    EVENTS,
    MAX_RECORD_BYTES,
    RECOMMENDATIONS,
    SNAPSHOTS,
)
from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.bounded_fetch import bound_unpacking
from clickscore.stream.kafka.client import consumer_arguments, stop_client
from clickscore.stream.kafka.topics import count_partitions
from clickscore.stream.settings import KafkaSettings
from clickscore.stream.terminal_text import safe_text

Record = ConsumerRecord[bytes | None, bytes | None]

ITEMS_SHOWN = 5
"""Number of shown items of a recommendation: a line has room for five."""
DEAD_BYTES_SHOWN = 200
"""Number of shown bytes of an unreadable value."""

ACTION_WORDS = {
    "view": "viewed",
    "cart": "put into the cart",
    "remove_from_cart": "took out of the cart",
    "favourite": "put on the wish list",
    "purchase": "bought",
    "impression": "was shown",
    "click": "clicked",
}


async def tail(
    settings: KafkaSettings,
    topic: str,
    *,
    from_beginning: bool = False,
    since_ms: int | None = None,
    until_end: bool = False,
    key: bytes | None = None,
    count: int | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> AsyncGenerator[Record]:
    """Yield the records of a topic, in order within each partition.

    The reader joins no consumer group, so workers do not notice.

    Args:
        settings: Connection, and names of topics.
        topic: Name of the topic without the prefix.
        from_beginning: Begin with the oldest record instead of the next.
        since_ms: Begin with the first record that Kafka received at this time or later, ms since the epoch.
        until_end: End at the end that each partition has at the start.
        key: Yield only the records with this key; by default all.
        count: Number of records after which the generator ends; by default it has no end.
        on_ready: Called once the position is fixed: every later record is yielded.

    Raises:
        TopicMissingError: The topic is missing.
        BrokerError: The broker cannot be reached.
    """
    name = settings.topic(topic)
    partitions = await count_partitions(settings, name)
    consumer = bound_unpacking(
        AIOKafkaConsumer(
            **consumer_arguments(settings),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # also if retention has deleted the next record
            max_partition_fetch_bytes=MAX_RECORD_BYTES,
        )
    )
    try:
        await consumer.start()
        assigned = [TopicPartition(name, partition) for partition in range(partitions)]
        consumer.assign(assigned)
        ends = await consumer.end_offsets(assigned)
        if since_ms is not None:
            first_records = await consumer.offsets_for_times(dict.fromkeys(assigned, since_ms))
            for partition, end in ends.items():
                first_record = first_records.get(partition)
                consumer.seek(partition, first_record.offset if first_record else end)
        elif not from_beginning:
            # `seek_to_end` would accept the answer to a reset to the oldest record that is still under way.
            for partition, end in ends.items():
                consumer.seek(partition, end)
        on_ready()
        yielded = 0
        async for record in _read(consumer, ends if until_end else {}):
            if key is None or record.key == key:
                yield record
                yielded += 1
                if yielded == count:
                    break
    except KafkaError as exc:
        message = f"Kafka at {settings.bootstrap_servers}: {str(exc) or type(exc).__name__}"
        raise BrokerError(message) from exc
    finally:
        await asyncio.shield(stop_client(consumer))


async def _read(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> AsyncGenerator[Record]:
    """Yield the records of a reader's partitions as they arrive.

    Args:
        consumer: A reader that stands at its first record.
        ends: Offset at which to end, by partition; empty to read on for ever.
    """
    unfinished = set(ends)
    while True:
        for partition in list(unfinished):
            if await consumer.position(partition) >= ends[partition]:
                unfinished.discard(partition)
                consumer.pause(partition)
        if ends and not unfinished:
            return
        fetched = await consumer.getmany(timeout_ms=500)
        for partition, records in fetched.items():
            for record in records:
                if not ends or record.offset < ends[partition]:
                    yield record


def describe(topic: str, record: Record) -> str:
    """Return a description of a record in a line of safe text. An unexpected value is shown without a description.

    Args:
        topic: Name of the topic without the prefix.
        record: Record to describe.
    """
    return safe_text(_describe(topic, record))


def _describe(topic: str, record: Record) -> str:
    key = (record.key or b"").decode(errors="replace")
    if record.value is None and topic != DEAD_LETTERS.name:
        return f"{key or 'a record without a key'} was removed"
    value = record.value or b""
    describe_value = _DESCRIPTIONS.get(topic)
    try:
        return describe_value(record, key, value) if describe_value else _raw(value)
    except (
        ValueError,
        RecursionError,
    ):  # the errors of msgspec and of UTF-8 are ValueErrors; JSON may be nested deeply
        return f"not readable: {_raw(value)}"


def _event(_: Record, __: str, value: bytes) -> str:
    event: AnyRecord = decode_record(value)
    if isinstance(event, Epoch):
        return (
            f"epoch {event.number} begins: catalogue up to offset {event.catalogue}, "
            f"campaigns up to {event.campaigns}, {f'bundle {event.bundle}' if event.bundle else 'no bundle'}"
        )
    if isinstance(event, Tick):
        return f"{_utc(event.ts)}  time passed, nobody came"
    if isinstance(event, SpendReport):
        return f"{_utc(event.ts)}  partition {event.partition} reports its spend for {len(event.campaigns)} campaigns"
    if isinstance(event, BudgetLease):
        return (
            f"{_utc(event.ts)}  lease {event.number}: what the partition may spend for {len(event.campaigns)} campaigns"
        )
    return f"{_utc(event.ts)}  user {event.user_id} {_deed(event)}"


def _deed(event: AnyEvent | PrivacyRecord | Handover) -> str:
    """Return in words what the user of a record did, or what is done about the user."""
    match event:
        case Consent():
            return _statement(event)
        case Erase():
            return "is to be forgotten"
        case Identify():
            return f"is the user {event.identified_as}"
        case Handover():
            return f"takes over {event.session.length if event.session else 0} events of {event.anonymous_id}"
        case Search():
            return f"searched for {event.query!r}"
        case _:
            return f"{ACTION_WORDS[str(event.__struct_config__.tag)]} item {event.item_id}"


def _statement(event: Consent) -> str:
    said = (("granted", event.granted), ("withdrew", event.withdrawn))
    return " and ".join(f"{verb} consent to {', '.join(purposes)}" for verb, purposes in said if purposes)


def _receipt(_: Record, __: str, value: bytes) -> str:
    receipt = decode_receipt(value)
    if isinstance(receipt, Erased):
        return f"{_utc(receipt.ts)}  user {receipt.user_id} is forgotten, by the event {receipt.record_id}"
    counts = f"{len(receipt.decisions)} decisions, {len(receipt.ads)} ads and {len(receipt.sessions)} closed sessions"
    part = f" (part {receipt.part} of {receipt.parts})" if receipt.parts > 1 else ""
    return f"{counts} of user {receipt.user_id} still lie in topics, from before the event {receipt.event_id!r}{part}"


def _decision(_: Record, __: str, value: bytes) -> str:
    decision = decode_decision(value)
    return _recommendation(decision) if isinstance(decision, Recommendation) else _ad(decision)


def _recommendation(decision: Recommendation) -> str:
    shown = ", ".join(choice.item_id for choice in decision.items[:ITEMS_SHOWN])
    more = f" and {len(decision.items) - ITEMS_SHOWN} more" if len(decision.items) > ITEMS_SHOWN else ""
    by_model = any(choice.reason == "model" for choice in decision.items)
    parts = [
        f"{_utc(decision.ts)}  user {decision.user_id}, event {decision.session_length} of the session",
        f"show {shown}{more} ({f'by model {decision.bundle}' if by_model else 'what is popular'})"
        if decision.items
        else "nothing to show",
    ]
    parts += [
        f"on {shelf.name} {', '.join(choice.item_id for choice in shelf.items[:ITEMS_SHOWN]) or 'nothing'}"
        for shelf in decision.shelves or ()
    ]
    if decision.actions:
        likely = max(decision.actions, key=lambda action: decision.actions[action] if decision.actions else 0)
        parts.append(f"next most likely: {likely} ({decision.actions[likely]:.0%})")
    if decision.purchase is not None:
        parts.append(f"buys in this session: {decision.purchase:.1%}")
    if decision.late:
        parts.append("the event came late")
    if decision.client:
        parts.append(f"for a {decision.client} ({decision.client_reason})")
    if decision.withheld:
        parts.append(f"no consent to {', '.join(decision.withheld)}")
    return "; ".join(parts)


_BID_UNITS: dict[BidUnit, str] = {
    "click": "a click",
    "thousand_impressions": "a thousand impressions",
    "order": "an order",
}


def _ad(decision: Ad) -> str:
    user = f"{_utc(decision.ts)}  user {decision.user_id}"
    if decision.campaign_id is None:
        return f"{user}; no ad: {decision.reason}"
    shown = [
        f"{slot.item_id} of campaign {slot.campaign_id} at {slot.price:.2f} {_BID_UNITS[slot.bid_per]}"
        for slot in decision.slots
    ] or [f"{decision.item_id} of campaign {decision.campaign_id}"]
    return f"{user}; ad for item {', '.join(shown)}: {decision.reason}"


def _session(_: Record, __: str, value: bytes) -> str:
    session: ClosedSession = decode_session(value)
    minutes, seconds = divmod((session.closed_at - session.opened_at) // 1000, 60)
    outcome = "bought" if session.purchased else "bought nothing"
    events = f"{session.length} event{'s' if session.length > 1 else ''}"
    return f"{_utc(session.opened_at)}  user {session.user_id}; {events} in {minutes} min {seconds} s; {outcome}"


def _outcome(_: Record, __: str, value: bytes) -> str:
    outcome = decode_outcome(value)
    counts = ("impressions", "clicks", "carts", "purchases")
    sums = [(sum(getattr(line, name) for line in outcome.lines), name) for name in counts]
    words = ", ".join(f"{count} {name}" for count, name in sums if count) or "no reaction"
    correction = f", correction {outcome.revision}" if outcome.revision else ""
    return f"{_utc(outcome.ts)}  user {outcome.user_id}; decision {outcome.decision_id}{correction}: {words}"


def _charge(_: Record, __: str, value: bytes) -> str:
    charge = decode_charge(value)
    amount = f"pays {charge.net:g} of {charge.gross:g}" if charge.net >= 0 else f"gets {-charge.net:g} back"
    return (
        f"{_utc(charge.ts)}  campaign {charge.campaign_id} {amount} ({charge.reason}); decision "
        f"{charge.decision_id}, slot {charge.slot}"
    )


def _item(_: Record, __: str, value: bytes) -> str:
    item = decode_item(value)
    stock = "stock unknown" if item.stock is None else f"{item.stock} in stock"
    price = "no price" if item.price is None else f"price {item.price:.2f}"
    hidden = "; hidden" if item.hidden else ""
    return f"item {item.item_id} {item.title!r}; {item.category or 'no category'}; {price}; {stock}{hidden}"


def _campaign(_: Record, __: str, value: bytes) -> str:
    campaign = decode_campaign(value)
    targets = campaign.target_items | campaign.target_categories | campaign.target_brands | campaign.target_queries
    bid = f"{campaign.bid:.2f} {_BID_UNITS[campaign.bid_per]}"
    where = ", ".join(sorted(targets)) or "everywhere"
    return f"campaign {campaign.campaign_id} for item {campaign.item_id}; bids {bid}; on {where}"


def _snapshot(_: Record, key: str, value: bytes) -> str:
    if key.startswith(LEDGER_PREFIX):
        return f"open decisions of user {ledger_user(key)}: {len(value)} bytes"
    return f"what is remembered of {f'user {key}' if key else 'the partition'}: {len(value)} bytes"


def _dead_letter(record: Record, key: str, value: bytes) -> str:
    headers = {name: (content or b"").decode(errors="replace") for name, content in record.headers}
    source = f"{headers.get('topic', '?')}-{headers.get('partition', '?')} offset {headers.get('offset', '?')}"
    return f"{source}; {headers.get('error', 'no reason given')}; key {key!r}; {_raw(value)}"


_DESCRIPTIONS: dict[str, Callable[[Record, str, bytes], str]] = {
    EVENTS.name: _event,
    CATALOGUE.name: _item,
    CAMPAIGNS.name: _campaign,
    RECOMMENDATIONS.name: _decision,
    ADS.name: _decision,
    DECISION_OUTCOMES.name: _outcome,
    AD_CHARGES.name: _charge,
    CLOSED_SESSIONS.name: _session,
    ERASURE_RECEIPTS.name: _receipt,
    SNAPSHOTS.name: _snapshot,
    DEAD_LETTERS.name: _dead_letter,
}


def _raw(value: bytes) -> str:
    text = value[:DEAD_BYTES_SHOWN].decode(errors="replace")
    return text + (" ..." if len(value) > DEAD_BYTES_SHOWN else "")


def _utc(ts: int) -> str:
    try:
        return datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # before year 1 or after year 9999
        return f"at {ts} ms"
