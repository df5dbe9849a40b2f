"""Contracts: JSON Schemas of the records and an AsyncAPI 3 file of the topics, made from the structs of `schemas`."""

import ast
import inspect
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import orjson
import yaml

from clickscore.schemas import topics
from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.decisions import Ad, Recommendation
from clickscore.schemas.erasure import AnyReceipt, Erased, Remains
from clickscore.schemas.events import AnyRecord, Cart, Consent, Epoch, Erase, Identify, Purchase, Search, Tick, View
from clickscore.schemas.handover import Handover
from clickscore.schemas.leases import BudgetLease, SpendReport
from clickscore.schemas.manifest import Manifest
from clickscore.schemas.outcomes import AdCharge, DecisionOutcome, LineOutcome
from clickscore.schemas.rollouts import Rollout
from clickscore.schemas.sessions import ClosedSession
from clickscore.schemas.snapshots import OFFSET_HEADER
from clickscore.schemas.topics import Topic

ROOT = Path(__file__).resolve().parent.parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"

SCHEMAS: dict[str, Any] = {
    "clickstream-events": AnyRecord,
    "catalogue-items": Item,
    "ad-campaigns": Campaign,
    "rollouts": Rollout,
    "recommendation-decisions": Recommendation,
    "ad-decisions": Ad,
    "decision-outcomes": DecisionOutcome,
    "ad-charges": AdCharge,
    "closed-sessions": ClosedSession,
    "erasure-receipts": AnyReceipt,
    "bundle-manifest": Manifest,
}
"""Struct of each file of `docs/schemas`. The schema of a topic's records has the name of the topic."""

_TIMESTAMP = 1_767_605_400_000  # 2026-01-05 09:30 UTC, ms: the time of the examples
_EXAMPLES: dict[type[msgspec.Struct], msgspec.Struct] = {
    View: View(event_id="e-1", user_id="u-1", ts=_TIMESTAMP, item_id="birch-kettle", price=24.95, category="Tea"),
    Cart: Cart(event_id="e-2", user_id="u-1", ts=_TIMESTAMP + 40_000, item_id="birch-kettle", price=24.95),
    Purchase: Purchase(
        event_id="e-3", user_id="u-1", ts=_TIMESTAMP + 90_000, item_id="birch-kettle", price=24.95, quantity=1
    ),
    Search: Search(event_id="e-4", user_id="u-1", ts=_TIMESTAMP + 95_000, query="teapot"),
    Consent: Consent(
        event_id="e-5",
        user_id="u-1",
        ts=_TIMESTAMP + 99_000,
        granted=("personalisation",),
        withdrawn=("ads", "training"),
    ),
    Erase: Erase(event_id="e-6", user_id="u-1", ts=_TIMESTAMP + 120_000),
    Identify: Identify(event_id="e-7", user_id="cookie-81f", ts=_TIMESTAMP + 60_000, identified_as="u-1"),
    Erased: Erased(event_id="e-6", user_id="u-1", record_id="clickstream-events-0-7", ts=_TIMESTAMP + 120_000),
    Remains: Remains(
        event_id="e-6",
        user_id="u-1",
        part=1,
        parts=1,
        decisions=("clickstream-events-0-2", "clickstream-events-0-4"),
        sessions=("clickstream-events-0-2",),
    ),
    DecisionOutcome: DecisionOutcome(
        decision_id="clickstream-events-0-1",
        user_id="u-1",
        ts=_TIMESTAMP,
        variant="model",
        revision=1,
        lines=(
            LineOutcome(
                item_id="birch-kettle",
                placement="list",
                position=2,
                impressions=1,
                clicks=1,
                valid_clicks=1,
                purchases=1,
                revenue=24.95,
            ),
            LineOutcome(
                item_id="linen-teapot",
                placement="beside",
                campaign_id="tea-week",
                impressions=1,
                clicks=2,
                valid_clicks=1,
                gross=0.62,
                net=0.31,
            ),
        ),
    ),
    AdCharge: AdCharge(
        charge_id="clickstream-events-0-1/1/0",
        campaign_id="tea-week",
        decision_id="clickstream-events-0-1",
        slot=1,
        placement="beside",
        bid_per="click",
        ts=_TIMESTAMP + 20_000,
        gross=0.31,
        net=0.31,
        reason="charged",
    ),
    Item: Item(item_id="birch-kettle", title="Birch kettle", category="Tea", price=24.95, stock=12),
    Campaign: Campaign(
        campaign_id="tea-week",
        item_id="linen-teapot",
        bid=0.4,
        target_categories=frozenset({"Tea"}),
        starts_at=_TIMESTAMP,
    ),
    Rollout: Rollout(
        name="default",
        champion=f"{0x3F9AC2:064x}",
        challenger=f"{0x8D01FE:064x}",
        share=0.05,
        policy="autumn-3@1a2b3c4d",
        changed_at=_TIMESTAMP,
        reason="set: canary",
    ),
}

_SCORED_HEADER = {
    "type": "string",
    "description": "JSON with facts of the wall clock, which bodies never hold: `worker` (host and process), `at` "
    "(when the batch was computed, ms since the epoch), and `took_ms`. A repeat may carry other values.",
}
_DEAD_LETTER_HEADERS = {
    "topic": "Topic of the unusable record.",
    "partition": "Partition of the unusable record (decimal digits).",
    "offset": "Offset of the unusable record (decimal digits).",
    "error": "Reason in words (UTF-8).",
}


class _Channel(msgspec.Struct, frozen=True, kw_only=True):
    """Description of a topic in the AsyncAPI file."""

    topic: Topic
    description: str
    key: str
    payload: Any = None
    """Struct or union of structs; None if the payload is opaque bytes."""
    headers: dict[str, Any] = {}
    receives: bool = False
    """True if workers read the topic."""
    sends: Any = None
    """Struct or union of structs that workers write to the topic, `bytes` for opaque payloads, or None."""


_CHANNELS = (
    _Channel(
        topic=topics.EVENTS,
        description="Actions of shoppers, in the order of sending. Unknown fields are skipped. A record that is no "
        "event becomes a dead letter. A `tick` moves the time of an idle partition: workers write ticks; you may, too. "
        "`consent` and `erase` say what may be done with a user's data: they hold from the next record on. "
        "`identify` says that an anonymous id is a user; a worker then writes a `handover` with the session into the "
        "user's partition. An `epoch` says which catalogue, campaigns and bundle later decisions use. A "
        "`spend_report` says what a partition has spent of the campaigns' budgets, and a `lease` what a partition may "
        "spend. Only workers write epochs, hand-overs, reports and leases.",
        key="The user's id. All events of a user must lie in one partition; other records have no key.",
        payload=AnyRecord,
        receives=True,
        sends=Tick | Epoch | Handover | SpendReport | BudgetLease,
    ),
    _Channel(
        topic=topics.CATALOGUE,
        description="Newest state of every item. A record without a value removes the item, which is then never "
        "recommended.",
        key="The item's id, the same as in the value.",
        payload=Item,
        receives=True,
    ),
    _Channel(
        topic=topics.CAMPAIGNS,
        description="Newest state of every campaign. A record without a value ends the campaign. A record with an "
        "unknown field is ignored, and so is a `pacing` without a budget.",
        key="The campaign's id, the same as in the value.",
        payload=Campaign,
        receives=True,
    ),
    _Channel(
        topic=topics.ROLLOUTS,
        description="Newest state of every rollout: which bundles of the bundle store decide, and for whom. Workers "
        "with a bundle store read it; `clickscore rollout` writes it. A record without a value ends the rollout.",
        key="The rollout's name, the same as in the value.",
        payload=Rollout,
        receives=True,
    ),
    _Channel(
        topic=topics.RECOMMENDATIONS,
        description="One recommendation for each event that needs one, on the partition of the event. Delivery is at "
        "least once: drop a repeat by `decision_id`.",
        key="The user's id.",
        payload=Recommendation,
        headers={"scored": _SCORED_HEADER},
        sends=Recommendation,
    ),
    _Channel(
        topic=topics.ADS,
        description="One ad decision for each event that needs one, while there are campaigns: winner and price of "
        "each slot of the page. The decision may be to show no ad. Delivery is at least once: drop a repeat by "
        "`decision_id`.",
        key="The user's id.",
        payload=Ad,
        headers={"scored": _SCORED_HEADER},
        sends=Ad,
    ),
    _Channel(
        topic=topics.DECISION_OUTCOMES,
        description="What became of each decision, apart from those on impressions: one record when its click window "
        "of 30 minutes closes, and corrections. The record of a `decision_id` with the largest `revision` counts. "
        "Delivery is at least once: a repeat has the same bytes.",
        key="The user's id.",
        payload=DecisionOutcome,
        sends=DecisionOutcome,
    ),
    _Channel(
        topic=topics.AD_CHARGES,
        description="What campaigns pay, and credits for what was found to be invalid later. Delivery is at least "
        "once: drop a repeat by `charge_id`.",
        key="The campaign's id. The partition is that of the event behind the charge.",
        payload=AdCharge,
        sends=AdCharge,
    ),
    _Channel(
        topic=topics.CLOSED_SESSIONS,
        description="Sessions that have ended, with their outcome. Delivery is at least once: drop a repeat by `id`.",
        key="The user's id.",
        payload=ClosedSession,
        headers={"scored": _SCORED_HEADER},
        sends=ClosedSession,
    ),
    _Channel(
        topic=topics.ERASURE_RECEIPTS,
        description="What became of each `erase` event: a worker writes `erased`, and `clickscore erase` writes "
        "`remains`, the ids of the user's records that still lie in topics. Delivery is at least once: a repeat has "
        "the same bytes.",
        key="The user's id.",
        payload=AnyReceipt,
        sends=Erased,
    ),
    _Channel(
        topic=topics.SNAPSHOTS,
        description="State of the workers, as MessagePack: see `schemas/snapshots.py`. Only workers write here.",
        key="The user's id; U+0000 and `u` before the id for the user's open decisions; empty for the partition's own "
        "record.",
        headers={OFFSET_HEADER: {"type": "string", "description": "Source offset of a tombstone (decimal digits)."}},
        receives=True,
        sends=bytes,
    ),
    _Channel(
        topic=topics.DEAD_LETTERS,
        description="Unusable records of `clickstream-events`, byte for byte, on the same partition. Delivery is at "
        "least once: a repeat has the same `topic`, `partition` and `offset`.",
        key="The key of the unusable record.",
        headers={name: {"type": "string", "description": sentence} for name, sentence in _DEAD_LETTER_HEADERS.items()},
        sends=bytes,
    ),
)


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of one of `SCHEMAS`, with the docstrings of the fields as descriptions."""
    schema: dict[str, Any] = msgspec.json.schema(SCHEMAS[name])
    _describe(schema["$defs"])
    return {"$schema": DIALECT, "title": name, **schema}


def schema_files() -> dict[str, str]:
    """Return the text of each file of `docs/schemas`, by file name."""
    texts = {name: orjson.dumps(json_schema(name), option=orjson.OPT_INDENT_2).decode() for name in SCHEMAS}
    return {f"{name}.json": text + "\n" for name, text in texts.items()}


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI document: topics, keys, headers, payloads, and the operations of a worker."""
    structs = [struct for channel in _CHANNELS for struct in _members(channel.payload)]
    _, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    _describe(components)
    messages = {name: message for channel in _CHANNELS for name, message in _messages(channel).items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Clickscore",
            "version": tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"],
            "description": "Records that Clickscore's workers receive and send. To feed the workers, send what they "
            "receive. Topic names are shown without `topic_prefix`. Generated by `make docs` from the structs of "
            "`schemas/`; do not edit this file.",
        },
        "defaultContentType": "application/json",
        "channels": {channel.topic.name: _channel(channel) for channel in _CHANNELS},
        "operations": _operations(),
        "components": {"messages": messages, "schemas": dict(sorted(components.items()))},
    }


def asyncapi_text() -> str:
    """Return `docs/asyncapi.yaml`."""
    return yaml.dump(asyncapi(), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=100)


class _PlainDumper(yaml.SafeDumper):
    """YAML dumper without anchors: a repeated object is written again."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401 (PyYAML's signature)
        del data
        return True


def _channel(channel: _Channel) -> dict[str, Any]:
    topic, names = channel.topic, list(_messages(channel))
    config: dict[str, Any] = {
        name: int(value) if value.isdigit() else value
        for name, value in topic.config.items()
        if name != "cleanup.policy"
    }
    binding: dict[str, Any] = {
        "topic": topic.name,
        "topicConfiguration": {"cleanup.policy": [topic.config["cleanup.policy"]], **config},
        "bindingVersion": "0.5.0",
    }
    if not topic.per_user:
        binding["partitions"] = 1
    return {
        "address": topic.name,
        "description": channel.description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": binding},
    }


def _operations() -> dict[str, dict[str, Any]]:
    operations: dict[str, dict[str, Any]] = {}
    for channel in _CHANNELS:
        name = channel.topic.name
        if channel.receives:
            operations[f"receive-{name}"] = {"action": "receive", "channel": {"$ref": f"#/channels/{name}"}}
        if channel.sends:
            names = {struct.__name__ for struct in _members(channel.sends)} | {_message_name(channel)}
            messages = [message for message in _messages(channel) if message in names]
            operations[f"send-{name}"] = {
                "action": "send",
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{message}"} for message in messages],
            }
    return operations


def _message_name(channel: _Channel) -> str:
    """Return the message name of a topic whose payload is opaque bytes."""
    return channel.topic.name.removesuffix("s")


def _messages(channel: _Channel) -> dict[str, dict[str, Any]]:
    """Return the messages of a topic by name: one for each struct, or one for opaque bytes."""
    binding = {"key": {"type": "string", "description": channel.key}, "bindingVersion": "0.5.0"}
    common: dict[str, Any] = {"bindings": {"kafka": binding}}
    if channel.headers:
        common["headers"] = {"type": "object", "properties": channel.headers}
    if channel.payload is None:
        opaque = {"summary": channel.description, "contentType": "application/octet-stream"}
        return {_message_name(channel): {**opaque, **common, "payload": {}}}
    messages: dict[str, dict[str, Any]] = {}
    for struct in _members(channel.payload):
        reference = {"$ref": f"#/components/schemas/{struct.__name__}"}
        messages[struct.__name__] = {"summary": _first_line(struct), **common, "payload": reference}
        if struct in _EXAMPLES:
            values = msgspec.json.decode(msgspec.json.encode(_EXAMPLES[struct]))  # lists, where structs have tuples
            default = {field.encode_name: field.default for field in msgspec.structs.fields(struct)}
            payload = {name: value for name, value in values.items() if value and value != default.get(name)}
            messages[struct.__name__]["examples"] = [{"payload": payload}]
    return messages


def _members(payload: Any) -> list[type[msgspec.Struct]]:  # noqa: ANN401 (a struct or a union of structs)
    if payload is None:
        return []
    return list(getattr(payload, "__args__", (payload,)))


def _first_line(struct: type[msgspec.Struct]) -> str:
    return (inspect.getdoc(struct) or struct.__name__).splitlines()[0]


def _describe(schemas: dict[str, Any]) -> None:
    """Add the docstring of each field to the properties of its struct."""
    for name, schema in schemas.items():
        sentences = _sentences(_struct(name))
        for field, described in schema.get("properties", {}).items():
            if field in sentences:
                described["description"] = sentences[field]


def _struct(name: str) -> type[msgspec.Struct]:
    pending = [msgspec.Struct]
    while pending:
        for struct in pending.pop().__subclasses__():
            if struct.__name__ == name and struct.__module__.startswith("clickscore.schemas."):
                return struct
            pending.append(struct)
    raise LookupError(name)


def _sentences(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the docstrings of a struct's fields, inherited fields included.

    Python does not keep docstrings of attributes, so they are read from the source.
    """
    docstrings: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if not base.__module__.startswith("clickscore.schemas."):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, docstring in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant):
                docstrings[field.target.id] = " ".join(str(docstring.value.value).split())
    return docstrings
