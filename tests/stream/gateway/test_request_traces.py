"""Request traces: the trace of a request goes on to the records of its events, and to a collector if there is one."""

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clickscore.stream.gateway.api_keys import Scope, make_key, make_user_key, write_keys
from clickscore.stream.gateway.request_traces import PassOnRequests, open_request_tracer
from clickscore.stream.settings import Settings
from clickscore.stream.trace_headers import Headers
from tests.collector import Collector
from tests.stream.gateway.running import JSON, event, running_gateway

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def stored(
    *requests: Sequence[tuple[str, str]], is_storing: bool = True, decide: bool = True, **changes: Any
) -> list[Headers]:
    """Send an event in each request, with these headers; return the headers of the records."""

    async def run() -> list[Headers]:
        async with running_gateway(**changes) as gateway:
            gateway.log.is_storing = is_storing
            for number, headers in enumerate(requests):
                await gateway.client.post(
                    gateway.address + f"/v1/events?decide={str(decide).lower()}",
                    data=json.dumps(event(event_id=f"e{number}")),
                    headers=[*JSON.items(), *headers],
                )
            return gateway.log.headers

    return asyncio.run(run())


def test_trace_of_a_request_is_passed_on_to_its_records() -> None:
    assert stored(
        (),
        [("traceparent", PARENT)],
        [("Traceparent", PARENT), ("tracestate", "shop=7"), ("tracestate", "other=8")],
        [("tracestate", "shop=7")],
    ) == [
        (),
        (("traceparent", PARENT.encode()),),
        (("traceparent", PARENT.encode()), ("tracestate", b"shop=7,other=8")),
        (),
    ]


@pytest.mark.parametrize("headers", [[("traceparent", PARENT)] * 2, [("traceparent", PARENT[:-1])]])
def test_trace_that_breaks_the_standard_is_left_out(headers: list[tuple[str, str]]) -> None:
    assert stored(headers) == [()]


def test_span_of_a_request_lies_between_the_client_and_the_worker(collector: Collector) -> None:
    records = stored((), [("traceparent", PARENT)], otlp_endpoint=collector.endpoint)
    (span,) = collector.spans
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("send events", TRACE, PARENT[36:52])
    assert b"anna" not in span.SerializeToString()
    assert records == [(), (("traceparent", f"00-{TRACE}-{span.span_id.hex()}-01".encode()),)]


def test_share_of_the_requests_without_a_trace_begins_one(collector: Collector) -> None:
    records = stored((), otlp_endpoint=collector.endpoint, trace_share=1.0)
    (span,) = collector.spans
    assert not span.parent_span_id
    ((name, parent),) = records[0]
    assert (name, parent[3:52].decode()) == ("traceparent", f"{span.trace_id.hex()}-{span.span_id.hex()}")


def test_span_of_a_refused_request_says_why(collector: Collector) -> None:
    assert stored([("traceparent", PARENT)], is_storing=False, otlp_endpoint=collector.endpoint) == []
    (span,) = collector.spans
    assert span.status.message == "RequestError: the log is away"


@pytest.mark.parametrize(
    ("scopes", "is_of_user", "is_sampled"),
    [
        (["events"], False, False),
        (["events", "read"], True, False),
        (["events", "read"], False, True),
    ],
)
def test_sampled_flag_counts_from_keys_that_no_web_page_holds(
    collector: Collector, tmp_path: Path, scopes: list[Scope], is_of_user: bool, is_sampled: bool
) -> None:
    new = make_key("shop", scopes, "2026-03-01T08:00:00+00:00")
    write_keys(tmp_path / "keys.json", [new.stored])
    key = make_user_key(new.text, "anna", int(time.time()) + 60) if is_of_user else new.text
    headers = [("Authorization", f"Bearer {key}"), ("traceparent", PARENT[:-2] + "03"), ("tracestate", "shop=7")]
    settings: dict[str, Any] = {"gateway_keys_file": str(tmp_path / "keys.json"), "trace_share": 1.0}
    passed_on = stored(headers, decide=False, **settings)
    assert passed_on == [
        (("traceparent", f"{PARENT[:-2]}{'03' if is_sampled else '02'}".encode()), ("tracestate", b"shop=7"))
    ]
    ((name, parent), state) = stored(headers, decide=False, otlp_endpoint=collector.endpoint, **settings)[0]
    assert (name, parent[3:35].decode(), state) == ("traceparent", TRACE, ("tracestate", b"shop=7"))
    assert len(collector.spans) == is_sampled


def test_gateway_without_a_collector_needs_no_extra() -> None:
    assert isinstance(open_request_tracer(Settings.of().worker), PassOnRequests)
