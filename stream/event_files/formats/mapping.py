"""Mapping: make events of the records of any JSON or CSV source, as a description in TOML says.

A mapping is data: paths to the fields of an event (JMESPath), the unit of the times, and the event type of each value
of the source. `EventMapping` compiles a mapping once. A record may hold several events, such as the items of an order:
`each` names the lists, and every element gives an event with the record's id and the position as event id.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
import xxhash

from clickscore.schemas.events import (
    YEAR_2000_MS,
    YEAR_9999_MS,
    AnyEvent,
    Consent,
    Erase,
    PrivacyRecord,
    decode_record,
    encode_event,
)
from clickscore.schemas.purposes import PURPOSES
from clickscore.schemas.toml_text import parse_toml
from clickscore.schemas.value_faults import describe_fault
from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.formats.mapping_values import (
    Paths,
    TimeParser,
    TimeSource,
    missing_value,
    path_list,
    to_float,
    to_int,
    to_text,
    value_getter,
)
from clickscore.stream.event_files.lines import Line

EventType = Literal[
    "view",
    "cart",
    "remove_from_cart",
    "favourite",
    "purchase",
    "impression",
    "click",
    "search",
    "consent",
    "erase",
    "ignore",
]
"""Type of an event in `types`; `ignore` drops the record."""

_ANSWERS: dict[str, bool] = {
    **dict.fromkeys(("true", "granted", "yes", "1"), True),
    **dict.fromkeys(("false", "denied", "withdrawn", "no", "0"), False),
}
"""Answers to a request for consent, in lower case; `granted` and `denied` are the words of Google's consent mode."""

MAX_EVENTS = 10_000
"""Limit of events of a record. A longer list is a wrong path or an attack, not an order or a session."""


class MappingError(InputFileError):
    """A mapping is wrong; the message names the mapping, the key and the remedy."""


class FieldPaths(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths to the fields of an event."""

    user_id: Paths
    type: Paths
    """Value of the source that tells the event type; `types` translates the value."""
    item_id: Paths | None = None
    event_id: Paths | None = None
    """Stable id of the record. A record without an id gets an id of the reader: see `EventMapping.lines`."""
    session_id: Paths | None = None
    decision_id: Paths | None = None
    position: Paths | None = None
    price: Paths | None = None
    category: Paths | None = None
    quantity: Paths | None = None
    query: Paths | None = None
    client: Paths | None = None
    """Class of the user: `shopper`, `bot` or `agent`."""
    user_agent: Paths | None = None


class ConsentPaths(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths to the answer for each purpose, in a record of the type `consent`. An absent answer changes nothing."""

    personalisation: Paths | None = None
    ads: Paths | None = None
    training: Paths | None = None


class Each(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A list in the record: every element gives an event. A record without the list gives one event."""

    path: Paths
    name: str
    """Name of the element in the paths; `NAME_position` is the element's position in the list, from 0."""


class RowLayout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Layout of the rows of a text file. Without a layout all lines are JSON."""

    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] = ","
    columns: list[list[str]] = []
    """Names of the columns of a file without a header. Of several lists, the number of cells of a row decides."""
    name_end: str = ""
    """A column's name in the header ends before this text: `:` turns `user_id:token` into `user_id`."""
    missing: list[str] = []
    """Cells without a value, besides empty cells: for example `NA`."""


class SourceMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping: the content of a TOML file."""

    description: Annotated[str, msgspec.Meta(max_length=100)]
    """Source and files in a line, for `clickscore events formats`."""
    fields: FieldPaths
    time: Annotated[list[TimeSource], msgspec.Meta(min_length=1)]
    """Sources of the event time: the first with a value counts."""
    types: dict[str, EventType]
    """Event type of each value of `fields.type`."""
    other_types: Literal["error", "ignore"] = "error"
    """Fate of a record with another type, or without a type."""
    consent: ConsentPaths = ConsentPaths()
    """Answers of a `consent` record: true or false, `granted`, `denied` or `withdrawn`, `yes` or `no`, 1 or 0."""
    each: list[Each] = []
    """Lists in the record, from the outer list to the inner list."""
    rows: RowLayout | None = None
    json_text: list[str] = []
    """Names of the fields of a record that hold JSON as text."""
    distinct_rows: bool = False
    """Whether equal rows are separate events. Then the event id of a row without an id has the row's number, too."""


def decode_mapping(text: bytes, name: str) -> "EventMapping":
    """Return the compiled mapping of a TOML text.

    Args:
        text: Content of the TOML file.
        name: Name or path of the mapping, for messages.

    Raises:
        MappingError: The text is no mapping; the message says why.
    """
    tables = None
    try:
        tables = parse_toml(text)
        return EventMapping(msgspec.convert(tables, SourceMapping), name)
    except msgspec.ValidationError as exc:
        message = f"the mapping {name} cannot be used: {describe_fault(exc, tables, SourceMapping)}"
        raise MappingError(message) from exc
    except ValueError as exc:  # errors of msgspec, of TOML, of UTF-8 and of JMESPath are ValueErrors
        message = f"the mapping {name} cannot be used: {exc}"
        raise MappingError(message) from exc


class EventMapping:
    """A compiled mapping: makes events of records."""

    def __init__(self, mapping: SourceMapping, name: str) -> None:
        """Compile the paths.

        Args:
            mapping: Content of the TOML file.
            name: Name or path of the mapping, for messages.

        Raises:
            ValueError: A path or a unit is wrong.
        """
        self.name = name
        self.mapping = mapping
        fields = mapping.fields
        self._type = value_getter(fields.type, "fields.type")
        self._user = value_getter(fields.user_id, "fields.user_id")
        self._item = value_getter(fields.item_id, "fields.item_id")
        self._event_id = value_getter(fields.event_id, "fields.event_id")
        self._texts = [
            (field, value_getter(getattr(fields, field), f"fields.{field}"))
            for field in ("session_id", "decision_id", "category", "query", "client", "user_agent")
            if getattr(fields, field)
        ]
        self._numbers = [
            (field, value_getter(getattr(fields, field), f"fields.{field}"), to_number)
            for field, to_number in (("price", to_float), ("quantity", to_int), ("position", to_int))
            if getattr(fields, field)
        ]
        self._answers = [
            (purpose, value_getter(paths, f"consent.{purpose}"))
            for purpose in PURPOSES
            if (paths := getattr(mapping.consent, purpose))
        ]
        self._times = [TimeParser(source, f"time[{index}]") for index, source in enumerate(mapping.time)]
        self._lists = [
            (each.name, value_getter(each.path, f"each[{index}]")) for index, each in enumerate(mapping.each)
        ]
        if len({each.name for each in mapping.each}) < len(mapping.each):
            message = "two lists of `each` have the same name"
            raise ValueError(message)

    def events(self, record: Mapping[str, Any], fallback_id: str) -> list[AnyEvent | PrivacyRecord]:
        """Return the events of a record; no event if the mapping ignores the record's type.

        Args:
            record: A decoded JSON object, or the cells of a row by column.
            fallback_id: Event id of a record without an id.

        Raises:
            ValueError: The record cannot be mapped; the message says why.
        """
        record = self._decode_json_fields(record)
        events: list[AnyEvent | PrivacyRecord] = []
        for scope, positions in self._scopes(record, 0, ""):
            if len(events) >= MAX_EVENTS:
                message = f"more than {MAX_EVENTS} events in a record"
                raise ValueError(message)
            event = self._event(scope, positions, fallback_id)
            if event is not None:
                events.append(event)
        return events

    def lines(self, number: int, record: Mapping[str, Any], text: bytes, record_id: str | None = None) -> list[Line]:
        """Return the events of a record as lines of the same number, or one line with the error.

        Args:
            number: Number of the line, from 1.
            record: A decoded JSON object, or the cells of a row by column.
            text: Text of the line: its hash is the event id of a record without an id.
            record_id: Id of the record at its source, instead of the hash.
        """
        if record_id is None:
            record_id = xxhash.xxh3_128_hexdigest(text)
            if self.mapping.distinct_rows:
                record_id = f"{record_id}-{number}"
        try:
            return [_event_line(number, event) for event in self.events(record, record_id)]
        except (ValueError, RecursionError) as exc:
            return [Line(number, error=str(exc) or type(exc).__name__)]

    def json_lines(self, number: int, text: bytes, record_id: str | None = None) -> list[Line]:
        """Return the events of a JSON object in a line of text, or one line with the error.

        Args:
            number: Number of the line, from 1.
            text: The JSON.
            record_id: Id of the record at its source; the hash of the text if None.
        """
        try:
            record = _decode_object(text)
        except (ValueError, RecursionError) as exc:
            return [Line(number, error=f"the line is no JSON object: {exc or type(exc).__name__}")]
        return self.lines(number, record, text, record_id)

    def _decode_json_fields(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the record with the fields of `json_text` decoded."""
        decoded: dict[str, Any] = {}
        for name in self.mapping.json_text:
            value = record.get(name)
            if isinstance(value, str) and value:
                try:
                    decoded[name] = msgspec.json.decode(value)
                except (ValueError, RecursionError) as exc:
                    message = f"{name} is no JSON: {exc or type(exc).__name__}"
                    raise ValueError(message) from None
        return {**record, **decoded} if decoded else record

    def _scopes(self, record: Mapping[str, Any], depth: int, positions: str) -> Iterator[tuple[Mapping[str, Any], str]]:
        """Yield the record with the elements of each list, and the positions in the lists, as the end of an id.

        Args:
            record: The record, with the elements of the outer lists by name.
            depth: Number of outer lists.
            positions: Positions in the outer lists, as `-0-2`.
        """
        if depth == len(self._lists):
            yield record, positions
            return
        name, get = self._lists[depth]
        elements = get(record)
        if not elements:
            yield from self._scopes(record, depth + 1, positions)
            return
        if not isinstance(elements, list):
            message = f"the value for each {name} is no list"
            raise ValueError(message)  # noqa: TRY004 (the errors of a record are ValueErrors)
        for position, element in enumerate(elements):
            scope = {**record, name: element, f"{name}_position": position}
            yield from self._scopes(scope, depth + 1, f"{positions}-{position}")

    def _event(self, scope: Mapping[str, Any], positions: str, fallback_id: str) -> AnyEvent | PrivacyRecord | None:
        """Return the event of a scope of `_scopes`; None if the mapping ignores the event's type.

        Args:
            scope: The record, with the elements of the lists by name.
            positions: Positions in the lists, as `-0-2`.
            fallback_id: Event id of a record without an id.

        Raises:
            ValueError: The record cannot be mapped; the message says why.
        """
        event_type = self._event_type(self._type(scope))
        if event_type == "ignore":
            return None
        fields = self.mapping.fields
        event: dict[str, Any] = {
            "type": event_type,
            "event_id": (to_text(self._event_id(scope), "event_id") or fallback_id) + positions,
            "user_id": _required(self._user(scope), "user_id", fields.user_id),
            "ts": self._time(scope),
        }
        if event_type == "consent":
            return msgspec.convert(event | self._statement(scope), Consent)
        if event_type == "erase":
            return msgspec.convert(event, Erase)
        if event_type != "search":
            event["item_id"] = _required(self._item(scope), "item_id", fields.item_id)
        for field, get in self._texts:
            value = to_text(get(scope), field)
            if value is not None:
                event[field] = value
        for field, get, to_number in self._numbers:
            value = get(scope)
            if value is not None:
                event[field] = to_number(value, field)
        return msgspec.convert(event, AnyEvent)

    def _statement(self, scope: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return the granted and the withdrawn purposes of a `consent` record."""
        statement: dict[str, list[str]] = {"granted": [], "withdrawn": []}
        for purpose, get in self._answers:
            value = get(scope)
            if value is not None:
                statement["granted" if _is_consent(value, purpose) else "withdrawn"].append(purpose)
        return statement

    def _event_type(self, value: Any) -> str:  # noqa: ANN401 (a value of JSON)
        key = to_text(value, "type")
        event_type = None if key is None else self.mapping.types.get(key)
        if event_type is not None:
            return event_type
        if self.mapping.other_types == "ignore":
            return "ignore"
        message = (
            missing_value("type", self.mapping.fields.type) if key is None else f"the type {key!r} is not in `types`"
        )
        raise ValueError(message)

    def _time(self, scope: Mapping[str, Any]) -> int:
        for parser in self._times:
            ts = parser.parse(scope)
            if ts is None:
                continue
            if not YEAR_2000_MS <= ts <= YEAR_9999_MS:
                message = (
                    f"the time is {ts} ms, which is not from the year 2000 to 9999: check `unit` of the mapping's time"
                )
                raise ValueError(message)
            return ts
        message = missing_value("time", [path for source in self.mapping.time for path in path_list(source.path)])
        raise ValueError(message)


def _decode_object(text: bytes) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, Any])


def _is_consent(value: Any, purpose: str) -> bool:  # noqa: ANN401 (a value of JSON)
    """Return whether the answer for a purpose grants consent.

    Raises:
        ValueError: The value is no answer.
    """
    answer = _ANSWERS.get(str(value).strip().lower())
    if answer is None:
        message = f"the consent to {purpose} is {value!r}, which is neither true nor false"
        raise ValueError(message)
    return answer


def _event_line(number: int, event: AnyEvent | PrivacyRecord) -> Line:
    value = encode_event(event)
    decode_record(value)  # the checks of the worker
    return Line(number, value, event.user_id.encode(), event.ts)


def _required(value: Any, field: str, paths: Paths | None) -> str:  # noqa: ANN401
    text = to_text(value, field)
    if text is None:
        raise ValueError(missing_value(field, paths))
    return text
