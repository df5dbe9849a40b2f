"""OpenAPI: the operations of the gateway, for the routes and for the OpenAPI 3.1 description."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

import msgspec

from clickscore.schemas.decisions import Ad, Recommendation
from clickscore.schemas.events import (
    AnyEvent,
    Cart,
    Click,
    Consent,
    Erase,
    Favourite,
    Identify,
    Impression,
    PrivacyRecord,
    Purchase,
    RemoveFromCart,
    Search,
    View,
)
from clickscore.schemas.explanations import Explanation
from clickscore.stream.gateway.answers import EventsAnswer, HealthAnswer, PlacementAnswer, Problem
from clickscore.stream.gateway.api_keys import Scope
from clickscore.stream.trace_headers import TRACEPARENT, TRACESTATE

JSON, PROBLEM_JSON = "application/json", "application/problem+json"
JAVASCRIPT = "text/javascript"
_EVENTS: tuple[type[msgspec.Struct], ...] = (
    View,
    Cart,
    RemoveFromCart,
    Favourite,
    Purchase,
    Click,
    Search,
    Impression,
    Consent,
    Erase,
    Identify,
)
_REFERENCE = "#/components/schemas/{name}"


class Operation(NamedTuple):
    """An operation of the gateway."""

    name: str
    """Operation id; the app has a handler of this name."""
    method: str
    path: str
    summary: str
    description: str
    scope: Scope | None
    """Right for the operation; absent where no key is needed."""
    answer: Mapping[str, Any]
    """Media types of a successful answer."""
    failures: Mapping[int, str]
    """Reason of each failure, by status."""
    parameters: tuple[Mapping[str, Any], ...] = ()
    body: Mapping[str, Any] | None = None


def _json(schema: Mapping[str, Any], media_type: str = JSON) -> dict[str, Any]:
    return {media_type: {"schema": schema}}


def _reference(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(name=struct.__name__)}


def _path_parameter(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _header_parameter(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


_KEY_FAILURES = {
    401: "The API key is missing, wrong or expired.",
    403: "The API key lacks the scope, or is the key of another user.",
    429: "The API key is over its rate; `Retry-After` says how long to wait.",
}
_NOT_STORED = "Kafka did not answer in time: send the request again, with the same event ids."

OPERATIONS = (
    Operation(
        name="send_events",
        method="POST",
        path="/v1/events",
        summary="Send one event or a list of events",
        description="Answers when Kafka has stored all events. A fault of any event refuses all. A request may be sent "
        "again: an event whose id has been seen lately counts once. "
        "An `erase` needs the scope `admin` as well.",
        scope="events",
        parameters=(
            {
                "name": "decide",
                "in": "query",
                "required": False,
                "description": "With `true`, the answer has the decision of a worker on the last event. This needs the "
                "scope `read` as well.",
                "schema": {"type": "boolean", "default": False},
            },
            _header_parameter(TRACEPARENT, "Trace of the request (W3C Trace Context), for the records of the events."),
            _header_parameter(TRACESTATE, "State of the trace."),
        ),
        body=_json(
            {
                "anyOf": [
                    {"$ref": "#/components/schemas/Event"},
                    {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Event"}},
                ]
            }
        ),
        answer=_json(_reference(EventsAnswer)),
        failures={
            400: "The body or an event has a fault; no event is stored.",
            **_KEY_FAILURES,
            413: "The body is too large.",
            415: "The body is no `application/json`.",
            503: _NOT_STORED,
            504: "The events are stored, but no worker has decided in time.",
        },
    ),
    Operation(
        name="read_recommendations",
        method="GET",
        path="/v1/users/{user_id}/recommendations",
        summary="Read the newest decision for a user, or a placement of it",
        description="Without `placement`, the answer has the bytes that the worker published.",
        scope="read",
        parameters=(
            _path_parameter("user_id", "Id of the user, percent-encoded."),
            {
                "name": "placement",
                "in": "query",
                "required": False,
                "description": "Name of a shelf, or of an ad placement of the policy; `list` is a page's only list.",
                "schema": {"type": "string", "minLength": 1},
            },
        ),
        answer=_json({"anyOf": [_reference(Recommendation), _reference(PlacementAnswer)]}),
        failures={
            400: "The id is not UTF-8.",
            **_KEY_FAILURES,
            404: "No recent decision of this user is known, or it has no such placement.",
            503: "The shared memory of decisions does not answer.",
        },
    ),
    Operation(
        name="read_decision",
        method="GET",
        path="/v1/decisions/{decision_id}",
        summary="Read a decision by its id",
        description="The answer has the bytes that the worker published, from memory or else from Kafka.",
        scope="read",
        parameters=(_path_parameter("decision_id", "Id of a recommendation or of an ad, percent-encoded."),),
        answer=_json({"anyOf": [_reference(Recommendation), _reference(Ad)]}),
        failures={
            400: "The id is not UTF-8.",
            **_KEY_FAILURES,
            404: "No such decision.",
            503: "Kafka did not answer in time.",
        },
    ),
    Operation(
        name="explain_decision",
        method="GET",
        path="/v1/decisions/{decision_id}/explain",
        summary="Explain a decision by its id",
        description="Makes the decision again from the topics, compares it with the published record, and says why it "
        "came out so: the result of `clickscore explain --json`. A child process reads the partition's events, which "
        "takes seconds.",
        scope="read",
        parameters=(_path_parameter("decision_id", "Id of a recommendation or of an ad, percent-encoded."),),
        answer=_json(_reference(Explanation)),
        failures={
            400: "The id is not UTF-8.",
            **_KEY_FAILURES,
            404: "No such decision, or retention has deleted its event.",
            503: "The log cannot be read, or other explanations are under way: try again later.",
            504: "The explanation takes longer than a request may wait.",
        },
    ),
    Operation(
        name="read_health",
        method="GET",
        path="/health",
        summary="Say whether the gateway is ready",
        description="The status is 503 while the gateway is not ready.",
        scope=None,
        answer=_json(_reference(HealthAnswer)),
        failures={},
    ),
    Operation(
        name="read_metrics",
        method="GET",
        path="/metrics",
        summary="Read the metrics of the gateway for Prometheus",
        description="With API keys, the scope `admin` is needed.",
        scope="admin",
        answer=_json({"type": "string"}, "text/plain"),
        failures=_KEY_FAILURES,
    ),
    Operation(
        name="read_snippet",
        method="GET",
        path="/snippet.js",
        summary="Read the script for web pages",
        description="Sends views, impressions and clicks of a page, and reads decisions.",
        scope=None,
        answer={JAVASCRIPT: {"schema": {"type": "string"}}},
        failures={},
    ),
    Operation(
        name="read_openapi",
        method="GET",
        path="/openapi.json",
        summary="Read this description",
        description="OpenAPI 3.1.",
        scope=None,
        answer=_json({"type": "object"}),
        failures={},
    ),
)


def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of the gateway."""
    structs = (*_EVENTS, Recommendation, Ad, Explanation, EventsAnswer, PlacementAnswer, HealthAnswer, Problem)
    _, schemas = msgspec.json.schema_components(structs, ref_template=_REFERENCE)
    ((event,), _) = msgspec.json.schema_components((AnyEvent | PrivacyRecord,), ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation)
    description = {
        "openapi": "3.1.0",
        "info": {
            "title": "Clickscore gateway",
            "version": version("clickscore"),
            "description": "HTTP beside the topics of Clickscore: events in, decisions out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {"Event": event, **dict(sorted(schemas.items()))},
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of `clickscore gateway key create`. Without a file of keys, the gateway "
                    "listens on loopback only and needs no key.",
                }
            },
        },
    }
    return msgspec.json.decode(msgspec.json.encode(description))  # as JSON has it: lists for tuples


def _describe(operation: Operation) -> dict[str, Any]:
    """Return the description of an operation."""
    responses: dict[str, Any] = {"200": {"description": "Success.", "content": operation.answer}}
    if operation.name == "read_health":
        responses["503"] = {"description": "Not ready.", "content": operation.answer}
    problem = _json(_reference(Problem), PROBLEM_JSON)
    for status, reason in sorted(operation.failures.items()):
        responses[str(status)] = {"description": reason, "content": problem}
    description: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": operation.description,
        "security": [] if operation.scope is None else [{"key": [operation.scope]}, {}],
        "parameters": list(operation.parameters),
        "responses": responses,
    }
    if operation.body:
        description["requestBody"] = {"required": True, "content": operation.body}
    return description
