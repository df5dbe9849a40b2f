"""Record decoding: the event of a record, or the reason why the record is a dead letter."""

import msgspec

from clickscore.schemas.events import AnyEvent, AnyRecord, Epoch, PrivacyRecord, Tick, decode_record
from clickscore.schemas.handover import Handover
from clickscore.schemas.leases import BudgetLease, SpendReport, time_fault
from clickscore.schemas.open_decisions import LEDGER_PREFIX
from clickscore.schemas.record_faults import describe_record_fault
from clickscore.stream.cut_bytes import full_size
from clickscore.stream.pipeline_records import DeadLetter, Record
from clickscore.stream.settings import SessionSettings


def read_event(record: Record, settings: SessionSettings) -> AnyRecord | DeadLetter:
    """Return the event of a record, or a dead letter for a record without a usable event.

    Args:
        record: A record of `clickstream-events`.
        settings: Bounds of sizes and times.
    """
    value = record.value
    if value is None:
        return DeadLetter(record, "the value is null, where an event is expected")
    if len(value) > settings.max_event_bytes:
        return DeadLetter(
            record,
            f"{full_size(value)} bytes, more than max_event_bytes ({settings.max_event_bytes})",
        )
    try:
        event = decode_record(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        return DeadLetter(record, describe_record_fault(exc, value))
    if isinstance(event, Epoch):
        return event
    if isinstance(event, (BudgetLease, SpendReport)):
        fault = time_fault(event, record.timestamp, settings.future_ms)
    elif not isinstance(event, Tick) and event.user_id.startswith(LEDGER_PREFIX):
        fault = "user_id begins with the character U+0000, which keys of the state begin with"
    else:
        fault = _time_fault(event, record.timestamp, settings) if record.timestamp >= 0 else None
    return DeadLetter(record, fault) if fault else event


def _time_fault(
    event: AnyEvent | PrivacyRecord | Handover | Tick, appended_at: int, settings: SessionSettings
) -> str | None:
    """Return in words why an event time and an append time (ms) do not fit; None where both fit."""
    ahead_ms = (event.newest_ts if isinstance(event, Handover) else event.ts) - appended_at
    if ahead_ms > settings.future_ms:
        return f"ts is {ahead_ms} ms after the append time, more than future_ms"
    # A hand-over is as old as its worker is behind, and the events in it were accepted before.
    if settings.past_ms and -ahead_ms > settings.past_ms and not isinstance(event, Handover):
        return f"ts is {-ahead_ms} ms before the append time, more than past_ms"
    return None
