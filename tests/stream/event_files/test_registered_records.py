"""Registered records: what becomes of Avro and Protobuf records, whole, broken and hostile."""

import asyncio
import io
import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import fastavro
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from clickscore.schemas.events import Purchase, View, decode_record
from clickscore.schemas.topics import DEAD_LETTERS, EVENTS, MAX_ERROR_CHARACTERS
from clickscore.stream.errors import BrokerError, SettingsError
from clickscore.stream.event_files.formats.mapping_files import read_mapping
from clickscore.stream.event_files.protobuf_records import read_indexes
from clickscore.stream.event_files.registered_records import MAX_MISSES, RecordDecoder
from clickscore.stream.event_files.relay import RecordMapper, RelayedRecord, RelayTally, open_decoder
from clickscore.stream.settings import Settings
from tests.memory_kafka import StoredRecord
from tests.registry_stub import RegistryStub

TS = 1_772_352_000_123
AVRO = {
    "type": "record",
    "name": "Event",
    "namespace": "shop",
    "fields": [
        {"name": "type", "type": {"type": "enum", "name": "Kind", "symbols": ["view", "purchase"]}},
        {"name": "event_id", "type": "string"},
        {"name": "user_id", "type": "string"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "item_id", "type": "string"},
        {"name": "price", "type": ["null", "double"], "default": None},
    ],
}
EVENT = {"type": "view", "event_id": "e1", "user_id": "anna", "ts": TS, "item_id": "mug", "price": None}


@pytest.fixture
def registry() -> Iterator[RegistryStub]:
    stub = RegistryStub()
    yield stub
    stub.close()


def framed(schema_id: int, payload: bytes) -> bytes:
    return struct.pack(">bI", 0, schema_id) + payload


def avro(schema: Any, value: object) -> bytes:
    target = io.BytesIO()
    fastavro.schemaless_writer(target, fastavro.parse_schema(schema), value)
    return target.getvalue()


def mapped(registry: RegistryStub | None, *values: bytes, **changes: object) -> list[RelayedRecord]:
    """Return what a relay makes of the records of a topic."""

    async def run() -> list[RelayedRecord]:
        url = registry.url if registry else ""
        kafka = Settings.of(**{"schema_registry": url, "broker_wait_ms": 0, **changes}).kafka
        async with open_decoder(kafka) as decoder:
            mapper = RecordMapper(read_mapping("shop-events"), RelayTally(), 65_536, decoder)
            if decoder:
                await decoder.prepare(values)
            records = [StoredRecord("shop", 0, offset, -1, None, value, ()) for offset, value in enumerate(values)]
            return [found for record in records for found in mapper.outgoing(record)]  # type: ignore[arg-type]

    return asyncio.run(run())


def error(made: Sequence[RelayedRecord]) -> str:
    """Return the reason of the only dead letter."""
    (letter,) = made
    assert letter.topic == DEAD_LETTERS.name
    return dict(letter.headers)["error"].decode()


# Avro


def test_avro_record_becomes_an_event(registry: RegistryStub) -> None:
    registry.add_avro(7, AVRO)
    (view, purchase) = mapped(
        registry,
        framed(7, avro(AVRO, EVENT)),
        framed(7, avro(AVRO, EVENT | {"type": "purchase", "event_id": "e2", "price": 24.5})),
    )
    assert (view.topic, view.key) == (EVENTS.name, b"anna")
    assert decode_record(view.value) == View(event_id="e1", user_id="anna", ts=TS, item_id="mug")
    bought = decode_record(purchase.value)
    assert isinstance(bought, Purchase)
    assert bought.price == 24.5
    assert registry.requests == ["/schemas/ids/7"]  # once for both


def test_record_without_a_schema_id_stays_json(registry: RegistryStub) -> None:
    (event,) = mapped(registry, json.dumps(EVENT).encode())
    assert decode_record(event.value) == View(event_id="e1", user_id="anna", ts=TS, item_id="mug")
    assert registry.requests == []


def test_json_schema_has_json_behind_the_id(registry: RegistryStub) -> None:
    registry.schemas[3] = {"schemaType": "JSON", "schema": "{}"}
    (event,) = mapped(registry, framed(3, json.dumps(EVENT).encode()))
    assert decode_record(event.value) == View(event_id="e1", user_id="anna", ts=TS, item_id="mug")


def test_type_of_another_schema_is_found_by_its_reference(registry: RegistryStub) -> None:
    kind = {"type": "enum", "name": "shop.Kind", "symbols": ["view"]}
    fields = [{"name": "type", "type": "shop.Kind"}, *AVRO["fields"][1:]]
    registry.versions["shop.Kind", 2] = {"schema": json.dumps(kind)}
    references = [{"name": "shop.Kind", "subject": "shop.Kind", "version": 2}]
    registry.add_avro(7, {**AVRO, "fields": fields}, references=references)
    (event,) = mapped(registry, framed(7, avro(AVRO, EVENT)))
    assert event.topic == EVENTS.name
    assert registry.requests == ["/schemas/ids/7", "/subjects/shop.Kind/versions/2"]


def test_record_with_a_schema_id_needs_a_registry() -> None:
    assert "set schema_registry" in error(mapped(None, framed(7, b"")))


NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
EMPTY = {"type": "record", "name": "Nothing", "fields": []}
DEEP: Any = "int"
for _ in range(40):
    DEEP = {"type": "array", "items": DEEP}
WIDE: Any = {"type": "record", "name": "R0", "fields": [{"name": "a", "type": "int"}]}
for number in range(1, 12):  # each type has the one before twice: 2 ** 12 places
    fields = [{"name": "a", "type": WIDE}, {"name": "b", "type": f"R{number - 1}"}]
    WIDE = {"type": "record", "name": f"R{number}", "fields": fields}

NULLS = {
    "type": "record",
    "name": "Nulls",
    "fields": [{"name": "a", "type": "boolean"}, *({"name": f"n{number}", "type": "null"} for number in range(1_900))],
}
LONG_NAMES = {
    "type": "record",
    "name": "Many",
    "fields": [
        {"name": "f", "type": {"type": "record", "name": "L", "fields": [{"name": "a" * 500_000, "type": "int"}]}},
        *({"name": f"f{number}", "type": "L"} for number in range(600)),
    ],
}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (NODE, "contains itself"),
        ({"type": "array", "items": "null"}, "characters for each byte"),
        ({"type": "array", "items": EMPTY}, "characters for each byte"),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, "characters for each byte"),
        ({"type": "array", "items": NULLS}, "characters for each byte"),
        ({"type": "map", "values": NULLS}, "characters for each byte"),
        ({"type": "array", "items": {"type": "enum", "name": "E", "symbols": ["S" * 900_000]}}, "for each byte"),
        (LONG_NAMES, "characters without bytes"),
        (DEEP, "nested too deeply"),
        (WIDE, "too many types"),
        ({"type": "rekord", "name": "x"}, "cannot be used"),
        ({"type": "record", "name": "x", "fields": [{"name": "a", "type": "Missing"}]}, "cannot be used"),
        ({"no": "type"}, "cannot be used"),
        (17, "cannot be used"),
        ({"type": "rekord", "name": "x", "__fastavro_parsed": True, "__named_schemas": {}}, "cannot be used"),
        (
            {"type": "array", "items": "N", "__fastavro_parsed": True, "__named_schemas": {"N": "null"}},
            "cannot be used",
        ),
    ],
)
def test_schema_without_bounds_or_sense_is_refused(registry: RegistryStub, schema: object, reason: str) -> None:
    registry.add_avro(7, schema)
    assert reason in error(mapped(registry, framed(7, b"\x02\x02\x02\x00")))


def test_deep_json_of_a_schema_is_refused(registry: RegistryStub) -> None:
    registry.schemas[7] = {"schema": '{"type":"array","items":' * 2_000 + '"int"' + "}" * 2_000}
    assert "nested too deeply" in error(mapped(registry, framed(7, b"")))


def test_list_of_wide_records_that_may_be_null_is_read(registry: RegistryStub) -> None:
    wide = [{"name": f"attribute_of_the_item_{number}", "type": ["null", "double"]} for number in range(60)]
    items = {"type": "array", "items": ["null", {"type": "record", "name": "Item", "fields": wide}]}
    schema = {**AVRO, "fields": [*AVRO["fields"], {"name": "items", "type": items}]}
    registry.add_avro(7, schema)
    item = {field["name"]: None for field in wide}
    (event,) = mapped(registry, framed(7, avro(schema, EVENT | {"items": [None, item, item]})))
    assert event.topic == EVENTS.name


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00", avro(AVRO, EVENT)[:-3], avro(AVRO, EVENT) + b"x", b"\xff" * 40, b"\x00\xfe\xff\xff\xff\x0f"],
)
def test_bytes_that_do_not_fit_the_schema_are_a_dead_letter(registry: RegistryStub, payload: bytes) -> None:
    registry.add_avro(7, AVRO)
    assert error(mapped(registry, framed(7, payload))).startswith("schema id 7: ")


def test_record_that_fits_the_schema_and_is_no_event_is_a_dead_letter(registry: RegistryStub) -> None:
    registry.add_avro(7, AVRO)
    assert "year 2000" in error(mapped(registry, framed(7, avro(AVRO, EVENT | {"ts": 17}))))


def test_values_that_json_does_not_have_are_text(registry: RegistryStub) -> None:
    fields = [
        *AVRO["fields"][:4],
        {"name": "item_id", "type": "bytes"},
        {"name": "category", "type": {"type": "int", "logicalType": "date"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
    ]
    schema = {**AVRO, "fields": fields}
    registry.add_avro(7, schema)
    value = avro(
        {
            **AVRO,
            "fields": [*fields[:4], fields[4], {"name": "category", "type": "int"}, {"name": "price", "type": "bytes"}],
        },
        EVENT | {"type": "purchase", "item_id": b"mug", "category": 20_000, "price": (2450).to_bytes(2, "big")},
    )
    (made,) = mapped(registry, framed(7, value))
    event = decode_record(made.value)
    assert isinstance(event, Purchase)
    assert (event.item_id, event.price) == ("bXVn", 24.5)


@pytest.mark.parametrize("value", [b"\x00", b"\x00\x00\x00\x01"])
def test_record_too_short_for_an_id_is_a_dead_letter(registry: RegistryStub, value: bytes) -> None:
    assert "too few for a schema id" in error(mapped(registry, value))


def test_record_that_is_too_large_is_not_decoded(registry: RegistryStub) -> None:
    registry.add_avro(7, AVRO)
    assert "max_event_bytes" in error(mapped(registry, framed(7, bytes(70_000))))


@settings(max_examples=50)
@given(payload=st.binary(max_size=80))
def test_no_bytes_stop_the_decoder(payload: bytes) -> None:
    decoder = DECODERS["both"]
    for schema_id in (1, 2):
        try:
            json.loads(decoder.decode(framed(schema_id, payload)))
        except ValueError as exc:
            assert str(exc).startswith(f"schema id {schema_id}: ")  # noqa: PT017 (both outcomes are right)


# Protobuf


def shop_file() -> descriptor_pb2.FileDescriptorProto:
    """Return the descriptor of a file with an envelope, and an event within another message."""
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    file.message_type.add(name="Other")
    outer = file.message_type.add(name="Outer")
    event = outer.nested_type.add(name="Event")
    text, number = descriptor_pb2.FieldDescriptorProto.TYPE_STRING, descriptor_pb2.FieldDescriptorProto.TYPE_INT64
    for index, (name, kind) in enumerate(
        (("type", text), ("event_id", text), ("user_id", text), ("ts", number), ("item_id", text)), start=1
    ):
        event.field.add(name=name, number=index, type=kind, label=1)
    event.field.add(name="sent", number=6, type=11, label=1, type_name=".google.protobuf.Timestamp")
    event.field.add(name="child", number=7, type=11, label=1, type_name=".shop.Outer.Event")
    return file


def message_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(shop_file().SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Outer.Event"))


def protobuf_payload(**changes: object) -> bytes:
    """Return an event of Protobuf behind the path to its message: the first message of the second one."""
    event = {name: value for name, value in EVENT.items() if name != "price"} | changes
    return b"\x04\x02\x00" + message_class()(**event).SerializeToString()


def test_protobuf_record_becomes_an_event(registry: RegistryStub) -> None:
    registry.add_protobuf(9, "syntax = ...", shop_file().SerializeToString())
    (event,) = mapped(registry, framed(9, protobuf_payload()))
    assert decode_record(event.value) == View(event_id="e1", user_id="anna", ts=TS, item_id="mug")
    assert registry.requests == ["/schemas/ids/9", "/schemas/ids/9?format=serialized"]


def test_file_that_protobuf_imports_is_found_by_its_reference(registry: RegistryStub) -> None:
    file = shop_file()
    file.dependency.append("money.proto")
    money = descriptor_pb2.FileDescriptorProto(name="default", package="shop", syntax="proto3")
    money.message_type.add(name="Money")
    registry.add_protobuf(8, "money", money.SerializeToString())
    registry.versions["money", 1] = registry.schemas[8]
    references = [{"name": "money.proto", "subject": "money", "version": 1}]
    registry.add_protobuf(9, "shop", file.SerializeToString(), references=references)
    (event,) = mapped(registry, framed(9, protobuf_payload()))
    assert event.topic == EVENTS.name
    assert registry.requests[-1] == "/subjects/money/versions/1?format=serialized"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "path to the message is broken"),
        (b"\x04\x02", "path to the message is broken"),
        (b"\xff" * 10, "path to the message is broken"),
        (b"\x40" + bytes(40), "has 32 numbers"),
        (b"\x01\x00", "has -1 numbers"),
        (b"\x02\x0e", "no message of the path [7]"),
        (b"\x02\x01", "no message of the path [-1]"),
        (b"\x04\x02\x00\x0a\xff", "are no message shop.Outer.Event"),
        (b"\x00\x08\x01", "type is missing"),  # the first message has no fields, so the record has no type
    ],
)
def test_broken_protobuf_is_a_dead_letter(registry: RegistryStub, payload: bytes, reason: str) -> None:
    registry.add_protobuf(9, "shop", shop_file().SerializeToString())
    assert reason in error(mapped(registry, framed(9, payload)))


def test_message_that_nests_without_end_is_a_dead_letter(registry: RegistryStub) -> None:
    registry.add_protobuf(9, "shop", shop_file().SerializeToString())
    nested = b""
    for _ in range(2_000):
        nested = b"\x3a" + varint(len(nested)) + nested
    assert "are no message" in error(mapped(registry, framed(9, b"\x04\x02\x00" + nested)))


@pytest.mark.parametrize("descriptor", [b"", b"\xff\xff", shop_file().SerializeToString()[:-9]])
def test_broken_descriptor_is_a_dead_letter(registry: RegistryStub, descriptor: bytes) -> None:
    registry.add_protobuf(9, "shop", descriptor)
    assert error(mapped(registry, framed(9, protobuf_payload()))).startswith("schema id 9: ")


@pytest.mark.parametrize("part", ["field", "enum_type", "nested_type", "extension"])
def test_long_name_of_protobuf_is_a_dead_letter(registry: RegistryStub, part: str) -> None:
    file = shop_file()
    event = file.message_type[1].nested_type[0]
    if part == "enum_type":
        event.enum_type.add(name="Kind").value.add(name="V" * 300, number=0)
    else:
        getattr(event, part).add(name="n" * 300)
    registry.add_protobuf(9, "shop", file.SerializeToString())
    assert "has more than 256 characters" in error(mapped(registry, framed(9, protobuf_payload())))


def test_missing_import_is_a_dead_letter(registry: RegistryStub) -> None:
    file = shop_file()
    file.dependency.append("missing.proto")
    registry.add_protobuf(9, "shop", file.SerializeToString())
    assert "cannot be used" in error(mapped(registry, framed(9, protobuf_payload())))


def test_path_of_the_first_message_may_be_a_single_zero() -> None:
    assert read_indexes(b"\x00rest") == ((0,), 1)
    assert read_indexes(b"\x02\x00rest") == ((0,), 2)


def varint(value: int) -> bytes:
    found = b""
    while value >= 0x80:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def both() -> RecordDecoder:
    """Return a decoder that knows an Avro schema as 1 and a Protobuf schema as 2."""

    async def run(stub: RegistryStub) -> RecordDecoder:
        async with open_decoder(Settings.of(schema_registry=stub.url).kafka) as decoder:
            assert decoder
            await decoder.prepare([framed(1, b""), framed(2, b"")])
            return decoder

    stub = RegistryStub()
    stub.add_avro(1, AVRO)
    stub.add_protobuf(2, "shop", shop_file().SerializeToString())
    try:
        return asyncio.run(run(stub))
    finally:
        stub.close()


DECODERS = {"both": both()}


# The registry


def test_unknown_id_is_a_dead_letter(registry: RegistryStub) -> None:
    assert error(mapped(registry, framed(7, b""))) == "schema id 7: the registry does not know the schema id"


def test_random_ids_cost_a_bounded_number_of_requests(registry: RegistryStub) -> None:
    registry.add_avro(7, AVRO)
    values = [framed(number, b"") for number in range(1_000, 2_000)]
    made = mapped(registry, framed(7, avro(AVRO, EVENT)), *values)
    assert len(registry.requests) == 1 + MAX_MISSES
    assert made[0].topic == EVENTS.name
    assert b"too many unknown ids" in dict(made[-1].headers)["error"]


def test_random_ids_leave_no_frequent_schema_without_a_request(registry: RegistryStub) -> None:
    registry.add_avro(7, AVRO)
    event = framed(7, avro(AVRO, EVENT))
    made = mapped(registry, *[framed(number, b"") for number in range(1_000, 1_000 + MAX_MISSES)], event, event)
    assert [record.topic for record in made[-2:]] == [EVENTS.name] * 2


def test_negative_id_is_a_dead_letter_without_a_request(registry: RegistryStub) -> None:
    assert "not negative" in error(mapped(registry, b"\x00\xff\xff\xff\xff{}"))
    assert registry.requests == []


@pytest.mark.parametrize("status", [400, 422])
def test_id_that_the_registry_refuses_is_a_dead_letter(registry: RegistryStub, status: int) -> None:
    registry.failures = [(status, b'{"error_code": 42202, "message": "The version is not valid"}')]
    assert error(mapped(registry, framed(7, b""))) == "schema id 7: The version is not valid"


def test_long_texts_of_the_registry_are_cut(registry: RegistryStub) -> None:
    registry.failures = [(404, json.dumps({"error_code": 1, "message": "m" * 900_000}).encode())]
    assert len(error(mapped(registry, framed(7, b"")))) == MAX_ERROR_CHARACTERS
    registry.add_avro(7, "T" * 900_000)
    assert len(error(mapped(registry, framed(7, b"")))) == MAX_ERROR_CHARACTERS

    async def run() -> int:
        async with open_decoder(Settings.of(schema_registry=registry.url).kafka) as decoder:
            assert decoder
            await decoder.prepare([framed(7, b"")])
            return len(decoder._refused[7][1])

    assert asyncio.run(run()) == MAX_ERROR_CHARACTERS


def test_refused_id_is_asked_for_again_after_a_minute(registry: RegistryStub) -> None:
    async def run() -> list[bool]:
        now = 0.0
        async with open_decoder(Settings.of(schema_registry=registry.url).kafka) as opened:
            assert opened
            decoder = RecordDecoder(opened._registry, lambda: now)
            known: list[bool] = []
            for now in (0.0, 59.0, 61.0):  # noqa: B007 (the clock of the decoder)
                await decoder.prepare([framed(7, b"")])
                known.append(7 in decoder._readers)
                registry.add_avro(7, AVRO)
            return known

    assert asyncio.run(run()) == [False, False, True]


def test_registry_that_fails_for_a_while_is_asked_again(registry: RegistryStub) -> None:
    registry.add_avro(7, AVRO)
    registry.failures = [(503, b"busy"), (429, b"")]
    (event,) = mapped(registry, framed(7, avro(AVRO, EVENT)), broker_wait_ms=5_000)
    assert event.topic == EVENTS.name


@pytest.mark.parametrize(
    ("answer", "failure", "message"),
    [
        ((500, b""), BrokerError, "does not answer"),
        ((403, b""), SettingsError, "schema_registry_password"),
        ((404, b"<html>"), SettingsError, "is no schema registry"),
        ((302, b""), SettingsError, "is no schema registry"),
    ],
)
def test_registry_that_cannot_be_asked_stops_the_relay(
    registry: RegistryStub, answer: tuple[int, bytes], failure: type[Exception], message: str
) -> None:
    registry.failures = [answer]
    with pytest.raises(failure, match=message):
        mapped(registry, framed(7, b""))


def test_registry_that_is_gone_stops_the_relay() -> None:
    stub = RegistryStub()
    stub.close()
    with pytest.raises(BrokerError, match="does not answer"):
        mapped(stub, framed(7, b""))


def test_registry_with_a_login(registry: RegistryStub) -> None:
    registry.login = "shop:secret"
    registry.add_avro(7, AVRO)
    value = framed(7, avro(AVRO, EVENT))
    login = {"schema_registry_username": "shop", "schema_registry_password": "secret"}
    assert mapped(registry, value, **login)[0].topic == EVENTS.name
    with pytest.raises(SettingsError):
        mapped(registry, value)


def test_login_in_the_address_is_used_and_not_printed(registry: RegistryStub) -> None:
    registry.login = "shop:sec@ret"
    registry.add_avro(7, AVRO)
    value = framed(7, avro(AVRO, EVENT))
    address = registry.url.replace("http://", "http://shop:sec%40ret@")
    assert mapped(None, value, schema_registry=address)[0].topic == EVENTS.name
    with pytest.raises(SettingsError, match="remove one of them"):
        mapped(None, value, schema_registry=address, schema_registry_username="shop")
    failures = {(500, b""): BrokerError, (403, b""): SettingsError, (405, b""): SettingsError}
    for answer, failure in failures.items():
        registry.failures = [answer]
        with pytest.raises(failure) as caught:
            mapped(None, value, schema_registry=address)
        assert "ret" not in str(caught.value).replace("registry", "")
        assert registry.url in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"{}", "cannot be used"),
        (b'{"schema": 5}', "cannot be used"),
        (b'{"schema": "x", "schemaType": "XML"}', "cannot be used"),
        (b" " * 2_000_000, "larger than"),
        (b'{"schema": "\xff"}', "cannot be used"),
        (b'{"schema": "x", "metadata": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "cannot be used"),
    ],
)
def test_answer_without_a_schema_is_a_dead_letter(registry: RegistryStub, answer: bytes, reason: str) -> None:
    registry.failures = [(200, answer)]
    assert reason in error(mapped(registry, framed(7, b"")))


def test_references_in_a_circle_are_a_dead_letter(registry: RegistryStub) -> None:
    references = [{"name": "a", "subject": "a", "version": 1}]
    registry.versions["a", 1] = {"schema": "{}", "references": references}
    registry.add_avro(7, AVRO, references=references)
    assert "form a circle" in error(mapped(registry, framed(7, b"")))


def test_missing_reference_is_a_dead_letter(registry: RegistryStub) -> None:
    registry.add_avro(7, AVRO, references=[{"name": "a", "subject": "a/../b", "version": 1}])
    assert "Version not found" in error(mapped(registry, framed(7, b"")))
    assert registry.requests[-1] == "/subjects/a%2F..%2Fb/versions/1"


@pytest.mark.parametrize("address", ["localhost:8081", "ftp://shop:secret@registry", "http://", "http://[::1"])
def test_address_must_be_a_url(address: str) -> None:
    async def run() -> None:
        async with open_decoder(Settings.of(schema_registry=address).kafka):
            pass

    with pytest.raises(SettingsError, match="must be an http or https URL"):
        asyncio.run(run())
