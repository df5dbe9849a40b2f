"""Contracts: JSON Schemas of what travels and an AsyncAPI 3 file of the topics, made from the structs themselves."""

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
from clickscore.schemas.events import AnyRecord, Cart, Purchase, Search, Tick, View
from clickscore.schemas.manifest import Manifest
from clickscore.schemas.sessions import ClosedSession
from clickscore.schemas.snapshots import OFFSET_HEADER
from clickscore.schemas.topics import Topic

ROOT = Path(__file__).resolve().parent.parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"

SCHEMAS: dict[str, Any] = {
    "clickstream-events": AnyRecord,
    "catalogue-items": Item,
    "ad-campaigns": Campaign,
    "recommendation-decisions": Recommendation,
    "ad-decisions": Ad,
    "closed-sessions": ClosedSession,
    "bundle-manifest": Manifest,
}
"""What each file of `docs/schemas` describes. A topic's JSON has the topic's name."""

_AT = 1_767_605_400_000
_EXAMPLES: dict[type[msgspec.Struct], msgspec.Struct] = {
    View: View(event_id="e-1", user_id="u-1", ts=_AT, item_id="birch-kettle", price=24.95, category="Tea"),
    Cart: Cart(event_id="e-2", user_id="u-1", ts=_AT + 40_000, item_id="birch-kettle", price=24.95),
    Purchase: Purchase(event_id="e-3", user_id="u-1", ts=_AT + 90_000, item_id="birch-kettle", price=24.95, quantity=1),
    Search: Search(event_id="e-4", user_id="u-1", ts=_AT + 95_000, query="teapot"),
    Item: Item(item_id="birch-kettle", title="Birch kettle", category="Tea", price=24.95, stock=12),
    Campaign: Campaign(
        campaign_id="tea-week", item_id="linen-teapot", bid=0.4, target_categories=frozenset({"Tea"}), starts_at=_AT
    ),
}

_SCORED = {
    "type": "string",
    "description": "JSON, wall-clock facts that a body never holds: `worker` (host and process), `at` (ms since the "
    "epoch, when its batch was computed), `took_ms`. A repeat may carry others.",
}
_LETTER = {
    "topic": "Where it came from: topic,",
    "partition": "partition (decimal digits),",
    "offset": "and offset (decimal digits).",
    "error": "What is wrong with it, in words (UTF-8).",
}


class _Channel(msgspec.Struct, frozen=True, kw_only=True):
    """What a topic's entry says beside its settings."""

    topic: Topic
    what: str
    key: str
    payload: Any = None
    """Struct or union of structs; none where the payload is not ours to describe."""
    headers: dict[str, Any] = {}
    receives: bool = False
    """Whether workers read it."""
    sends: Any = None
    """What workers write to it; none where they do not."""


_CHANNELS = (
    _Channel(
        topic=topics.EVENTS,
        what="What shoppers did, in the order sent. Unknown fields are skipped; a record that is no event becomes a "
        "dead letter. A `tick` is time that passes in an idle partition: workers write it, and so may you.",
        key="The user's id. All events of a user must lie in one partition; a tick has no key.",
        payload=AnyRecord,
        receives=True,
        sends=Tick,
    ),
    _Channel(
        topic=topics.CATALOGUE,
        what="Every item's newest state. A record without a value removes the item, which is then never recommended.",
        key="The item's id, the same as in the value.",
        payload=Item,
        receives=True,
    ),
    _Channel(
        topic=topics.CAMPAIGNS,
        what="Every campaign's newest state. A record without a value ends it. `daily_budget` and `frequency_cap` are "
        "kept, but not applied yet.",
        key="The campaign's id, the same as in the value.",
        payload=Campaign,
        receives=True,
    ),
    _Channel(
        topic=topics.RECOMMENDATIONS,
        what="One for each event that is due one, on the partition of its event. At least once: drop a repeat by "
        "`decision_id`.",
        key="The user's id.",
        payload=Recommendation,
        headers={"scored": _SCORED},
        sends=Recommendation,
    ),
    _Channel(
        topic=topics.ADS,
        what="One for each event that is due one, while there are campaigns; it may say that no ad is shown. At least "
        "once: drop a repeat by `decision_id`.",
        key="The user's id.",
        payload=Ad,
        headers={"scored": _SCORED},
        sends=Ad,
    ),
    _Channel(
        topic=topics.CLOSED_SESSIONS,
        what="A session once it has ended, with its outcome. At least once: drop a repeat by `id`.",
        key="The user's id.",
        payload=ClosedSession,
        headers={"scored": _SCORED},
        sends=ClosedSession,
    ),
    _Channel(
        topic=topics.SNAPSHOTS,
        what="The workers' own state, MessagePack: see `schemas/snapshots.py`. Nobody else writes here.",
        key="The user's id; empty for the partition's own record.",
        headers={
            OFFSET_HEADER: {"type": "string", "description": "Of a tombstone: its source offset (decimal digits)."}
        },
        receives=True,
        sends=bytes,
    ),
    _Channel(
        topic=topics.DEAD_LETTERS,
        what="Records of `clickstream-events` that could not be used, byte for byte, on their own partition. At least "
        "once: a repeat has the same `topic`, `partition` and `offset`.",
        key="As it came.",
        headers={name: {"type": "string", "description": words} for name, words in _LETTER.items()},
        sends=bytes,
    ),
)


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of one of `SCHEMAS`, with what the structs say of their fields."""
    schema: dict[str, Any] = msgspec.json.schema(SCHEMAS[name])
    _describe(schema["$defs"])
    return {"$schema": DIALECT, "title": name, **schema}


def schema_files() -> dict[str, str]:
    """Return the text of each file of `docs/schemas`, by its name."""
    texts = {name: orjson.dumps(json_schema(name), option=orjson.OPT_INDENT_2).decode() for name in SCHEMAS}
    return {f"{name}.json": text + "\n" for name, text in texts.items()}


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI document: topics, keys, headers and payloads. `receive` and `send` are the worker's."""
    structs = [struct for channel in _CHANNELS for struct in _members(channel.payload)]
    _, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    _describe(components)
    messages = {name: message for channel in _CHANNELS for name, message in _messages(channel).items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Clickscore",
            "version": tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"],
            "description": "What flows into and out of Clickscore's workers. `receive` and `send` are said from the "
            "workers' side: to feed them, send what they receive. Topic names are those without `topic_prefix`. "
            "Generated by `make docs` from the structs of `schemas/`; not to be edited.",
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
    """Writes what occurs twice twice, without anchors."""

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
        "description": channel.what,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": binding},
    }


def _operations() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for channel in _CHANNELS:
        name = channel.topic.name
        if channel.receives:
            found[f"receive-{name}"] = {"action": "receive", "channel": {"$ref": f"#/channels/{name}"}}
        if channel.sends:
            sent = [message for message in _messages(channel) if message in (channel.sends.__name__, _bare(channel))]
            found[f"send-{name}"] = {
                "action": "send",
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{message}"} for message in sent],
            }
    return found


def _bare(channel: _Channel) -> str:
    """Return the name of the message of a topic whose payload is not ours to describe."""
    return channel.topic.name.removesuffix("s")


def _messages(channel: _Channel) -> dict[str, dict[str, Any]]:
    """Return a topic's messages by name: one a struct, or one for what is not ours to describe."""
    binding = {"key": {"type": "string", "description": channel.key}, "bindingVersion": "0.5.0"}
    common: dict[str, Any] = {"bindings": {"kafka": binding}}
    if channel.headers:
        common["headers"] = {"type": "object", "properties": channel.headers}
    if channel.payload is None:
        words = {"summary": channel.what, "contentType": "application/octet-stream"}
        return {_bare(channel): {**words, **common, "payload": {}}}
    found: dict[str, dict[str, Any]] = {}
    for struct in _members(channel.payload):
        reference = {"$ref": f"#/components/schemas/{struct.__name__}"}
        found[struct.__name__] = {"summary": _first_line(struct), **common, "payload": reference}
        if struct in _EXAMPLES:
            said = msgspec.to_builtins(_EXAMPLES[struct])
            default = {field.encode_name: field.default for field in msgspec.structs.fields(struct)}
            payload = {name: value for name, value in said.items() if value and value != default.get(name)}
            found[struct.__name__]["examples"] = [{"payload": payload}]
    return found


def _members(payload: Any) -> list[type[msgspec.Struct]]:  # noqa: ANN401 (a struct or a union of some)
    if payload is None:
        return []
    return list(getattr(payload, "__args__", (payload,)))


def _first_line(struct: type[msgspec.Struct]) -> str:
    return (inspect.getdoc(struct) or struct.__name__).splitlines()[0]


def _describe(schemas: dict[str, Any]) -> None:
    """Add to each struct's properties the sentence that stands below the field in its source."""
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
    """Return the docstrings of a struct's fields, inherited ones included: Python itself does not keep them."""
    found: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if not base.__module__.startswith("clickscore.schemas."):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[field.target.id] = " ".join(str(below.value.value).split())
    return found
