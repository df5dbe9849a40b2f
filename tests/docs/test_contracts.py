import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.decisions import Ad, Recommendation
from clickscore.schemas.erasure import Remains, encode_receipt
from clickscore.schemas.events import (
    ACTION_OF,
    Click,
    Consent,
    Epoch,
    Erase,
    Event,
    Identify,
    Impression,
    ItemEvent,
    Search,
    Tick,
    encode_event,
    read_epoch,
)
from clickscore.schemas.handover import HandedConsent, Handover
from clickscore.schemas.leases import BudgetLease, SpendReport
from clickscore.schemas.manifest import Tensor, encode_manifest
from clickscore.schemas.purposes import PURPOSES
from clickscore.schemas.topics import TOPICS
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import KafkaSettings, PolicySettings, SessionSettings
from clickscore.stream.worker.outgoing import dead_letter
from docs.contracts import SCHEMAS, asyncapi, json_schema
from tests.docs.conforms import KEYWORDS, KINDS, faults, resolved
from tests.events import (
    START,
    erase,
    grant,
    handed_session,
    handover,
    identify,
    impression,
    purchase,
    records,
    search,
    view,
    withdraw,
)
from tests.manifests import MANIFEST


def structs() -> list[type[Event]]:
    return [*ACTION_OF, Impression]


def least(struct: type[Event]) -> Event:
    fields = {"event_id": "e", "user_id": "u", "ts": START}
    return struct(**fields, item_id="i") if issubclass(struct, ItemEvent) else struct(**fields)


def most(struct: type[Event]) -> Event:
    fields: dict[str, Any] = {"session_id": "s", "decision_id": "d", "position": 0}
    if issubclass(struct, ItemEvent):
        fields |= {"price": 1.5, "category": "Tea"}
    return msgspec.structs.replace(least(struct), **fields)


def decided() -> Output:
    """What a shop with a catalogue and a campaign comes to, a session that ends included."""
    catalogue = Catalogue()
    catalogue.update_item(b"sold-out", msgspec.json.encode(Item(item_id="sold-out", stock=0)))
    catalogue.update_campaign(b"c", msgspec.json.encode(Campaign(campaign_id="c", item_id="cup", bid=0.5)))
    events = [view("ann", 0, "sold-out"), view("ann", 1, "pan"), purchase("ann", 2, "pan"), search("ann", 3)]
    events += [impression("ann", 4, "cup"), view("bob", 120), view("ann", 0)]
    return Pipeline(SessionSettings(), PolicySettings(), "clickstream-events", catalogue).process(
        0, records(*events, b"no event")
    )


def check(topic: str, value: bytes | None) -> None:
    schema = json_schema(topic)
    assert faults(json.loads(value or b""), schema, schema) == []


# Schemas


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and all schemas in it."""
    yield schema
    below = [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    below += schema.get("anyOf", []) + schema.get("prefixItems", [])
    below += [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    for each in below:
        yield from parts(each)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_one(name: str) -> None:
    schema = json_schema(name)
    for part in parts(schema):
        assert set(part) <= KEYWORDS
        assert part.get("type", "object") in KINDS
        assert set(part.get("required", [])) <= set(part.get("properties", {}))
        if "$ref" in part:
            assert resolved(part["$ref"], schema)
        if "enum" in part:
            assert part["enum"]


@pytest.mark.parametrize("struct", structs())
def test_event_is_what_the_schema_says(struct: type[Event]) -> None:
    check("clickstream-events", encode_event(least(struct)))
    check("clickstream-events", encode_event(most(struct)))


def test_consent_and_erasure_are_what_the_schema_says() -> None:
    check("clickstream-events", encode_event(grant("ann", 0, *PURPOSES)))
    check("clickstream-events", encode_event(withdraw("ann", 0, *PURPOSES)))
    check("clickstream-events", encode_event(erase("ann", 0)))


def test_identification_and_handover_are_what_the_schema_says() -> None:
    check("clickstream-events", encode_event(identify("cookie", 0, "ann")))
    check("clickstream-events", encode_event(handover("ann", 1)))
    said = HandedConsent(granted=("ads",), withdrawn=("training",), said_at=START, withdrawn_at=START)
    full = handover("ann", 1, handed_session(0, 1), bought=("kettle",), consent=said, withheld=("training",), client=2)
    check("clickstream-events", encode_event(full))


def test_decision_without_consent_and_receipts_are_what_the_schema_says() -> None:
    log = records(withdraw("ann", 0, *PURPOSES), view("ann", 1), erase("ann", 2))
    output = Pipeline(SessionSettings(), PolicySettings(), "clickstream-events", Catalogue()).process(0, log)
    check("recommendation-decisions", output.recommendations[0].value)
    check("erasure-receipts", output.receipts[0].value)
    remains = Remains(event_id="e", user_id="ann", part=1, parts=1, decisions=("d",), ads=("a",), sessions=("s",))
    check("erasure-receipts", encode_receipt(remains))


def test_tick_is_what_the_schema_says() -> None:
    check("clickstream-events", encode_event(Tick(ts=START)))


def test_epoch_is_what_the_schema_says() -> None:
    check("clickstream-events", encode_event(Epoch(number=1, catalogue=2, campaigns=3)))
    check("clickstream-events", encode_event(Epoch(number=1, catalogue=0, campaigns=0, bundle="b", settings="s")))


def test_epoch_that_cannot_be_decoded_is_read_as_any_other_record() -> None:
    assert read_epoch(b'{"type":"epoch","number":"one"}') is None
    assert read_epoch(encode_event(Epoch(number=1, catalogue=2, campaigns=3))) is not None


def test_event_types_are_all_documented() -> None:
    documented = json_schema("clickstream-events")["discriminator"]["mapping"]
    assert set(documented) == {
        str(each.__struct_config__.tag)
        for each in (*structs(), Consent, Erase, Identify, Handover, Tick, Epoch, SpendReport, BudgetLease)
    }


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        ({"type": "view", "event_id": "e", "user_id": "u", "ts": -1, "item_id": "i"}, "$.ts: -1 is out of bounds"),
        ({"type": "view", "event_id": "e", "user_id": "u", "ts": "1", "item_id": "i"}, "$.ts: '1' is no integer"),
        ({"type": "view", "event_id": "e", "user_id": "u", "ts": START}, "$.item_id is missing"),
        (
            {"type": "view", "event_id": "", "user_id": "u", "ts": START, "item_id": "i"},
            "$.event_id: '' is out of bounds",
        ),
    ],
)
def test_what_the_worker_refuses_the_schema_refuses(event: dict[str, Any], fault: str) -> None:
    schema = json_schema("clickstream-events")
    assert faults(event, schema, schema) == [fault]
    output = Pipeline(SessionSettings(), PolicySettings(), "t", Catalogue()).process(
        0, records(json.dumps(event).encode())
    )
    assert len(output.dead_letters) == 1


def test_decisions_are_what_the_schema_says() -> None:
    output = decided()
    assert len(output.recommendations) == len(output.ads) == 7
    for message in output.recommendations:
        check("recommendation-decisions", message.value)
    for message in output.ads:
        check("ad-decisions", message.value)


def test_decision_of_a_model_is_what_the_schema_says() -> None:
    message = decided().recommendations[0]
    decision = msgspec.json.decode(message.value or b"", type=Recommendation)
    scored = msgspec.structs.replace(decision, bundle="b", actions={"view": 0.5, "leave": 0.5}, purchase=0.1)
    check("recommendation-decisions", msgspec.json.encode(scored))


def test_closed_session_is_what_the_schema_says() -> None:
    (message,) = decided().closed_sessions
    check("closed-sessions", message.value)


def test_catalogue_and_campaign_are_what_the_schema_says() -> None:
    item = Item(item_id="i", title="t", category="c", brand="b", price=1.0, stock=0, hidden=True)
    campaign = Campaign(campaign_id="c", item_id="i", bid=1.0, target_items=frozenset({"j"}), daily_budget=1.0)
    for small in (Item(item_id="i"), item):
        check("catalogue-items", msgspec.json.encode(small))
    for small in (Campaign(campaign_id="c", item_id="i", bid=1.0), campaign):
        check("ad-campaigns", msgspec.json.encode(small))


def test_manifest_is_what_the_schema_says() -> None:
    tensor = Tensor(name="items", dtype="int64", shape=("batch", 50))
    manifest = msgspec.structs.replace(MANIFEST, inputs=(tensor,), metrics={"recall": 0.5})
    schema = json_schema("bundle-manifest")
    assert faults(json.loads(encode_manifest(manifest)), schema, schema) == []


def test_fields_that_a_struct_explains_are_explained() -> None:
    described = json_schema("recommendation-decisions")["$defs"]["Recommendation"]["properties"]
    assert (
        described["session_length"]["description"]
        == "Number of events of the session so far, the answered event included."
    )
    inherited = json_schema("clickstream-events")["$defs"]["Click"]["properties"]
    assert inherited["decision_id"]["description"] == "Id of the decision behind this interaction."


# AsyncAPI


def test_every_topic_has_a_channel_with_its_settings() -> None:
    channels = asyncapi()["channels"]
    assert set(channels) == {topic.name for topic in TOPICS}
    for topic in TOPICS:
        binding = channels[topic.name]["bindings"]["kafka"]
        assert binding["topicConfiguration"]["cleanup.policy"] == [topic.config["cleanup.policy"]]
        assert binding["topicConfiguration"]["max.message.bytes"] == int(topic.config["max.message.bytes"])
        assert ("partitions" in binding) != topic.per_user


def test_references_of_the_document_lead_somewhere() -> None:
    document = asyncapi()

    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            yield from (value for name, value in part.items() if name == "$ref")
            for value in part.values():
                yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    found = list(references(document))
    assert found
    for reference in found:
        assert resolved(reference, document)


def test_every_message_says_its_key() -> None:
    for message in asyncapi()["components"]["messages"].values():
        assert message["bindings"]["kafka"]["key"]["description"]


def test_workers_send_only_control_records_of_the_events() -> None:
    sent = asyncapi()["operations"]["send-clickstream-events"]["messages"]
    assert [message["$ref"].rpartition("/")[2] for message in sent] == [
        "Handover",
        "Tick",
        "Epoch",
        "BudgetLease",
        "SpendReport",
    ]


def test_examples_are_what_the_schema_says() -> None:
    document = asyncapi()
    examples = 0
    for message in document["components"]["messages"].values():
        for example in message.get("examples", []):
            assert faults(example["payload"], message["payload"], document) == []
            examples += 1
    assert examples >= 5


def test_headers_of_a_dead_letter_are_documented() -> None:
    (letter,) = decided().dead_letters
    _, _, headers = dead_letter(KafkaSettings(), 0, letter, 65_536)
    documented = asyncapi()["components"]["messages"]["dead-letter"]["headers"]["properties"]
    assert {name for name, _ in headers} == set(documented)


def test_every_decision_class_has_a_message() -> None:
    messages = asyncapi()["components"]["messages"]
    for struct in (Recommendation, Ad, Click, Search):
        assert struct.__name__ in messages
