"""Record faults: describe a refused record of `clickstream-events` in a sentence with the name of the field."""

from typing import Any, get_args

import msgspec

from clickscore.schemas.events import AnyEvent, AnyRecord, PrivacyRecord
from clickscore.schemas.value_faults import describe_fault, show_value

_KINDS: dict[str, Any] = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyRecord)}
"""Class of each type of record."""
_EVENT_TYPES = ", ".join(str(kind.__struct_config__.tag) for kind in get_args(AnyEvent | PrivacyRecord))
"""Types of the records that a producer sends; workers write the others."""


def describe_record_fault(fault: Exception, text: bytes) -> str:
    """Return a sentence about a record refused by `decode_record`; the words of the decoder for text that is no JSON.

    Args:
        fault: The refusal.
        text: The refused record.
    """
    if not isinstance(fault, msgspec.ValidationError):
        return str(fault)
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return str(fault)  # the fault comes before the place where the text is no JSON
    if not isinstance(value, dict):
        return "the value is no JSON object, where an event is expected"
    if "type" not in value:
        return f"type is missing: it must be one of {_EVENT_TYPES}"
    tag = value["type"]
    if not isinstance(tag, str) or tag not in _KINDS:
        return f"type must be one of {_EVENT_TYPES}, not {show_value(tag)}"
    return describe_fault(fault, value, _KINDS[tag])
