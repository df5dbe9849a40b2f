"""Traces: the trace of an event goes on to its decisions, and to a collector where there is one."""

import asyncio
import json
import logging
import socket
from typing import Any

import pytest

from clickscore.schemas.catalogue import Campaign, encode
from clickscore.schemas.events import AnyEvent, encode_event
from clickscore.schemas.topics import ADS, EVENTS, RECOMMENDATIONS
from clickscore.stream.settings import Settings
from clickscore.stream.worker.app import open_tracer
from clickscore.stream.worker.batches import BatchLoop
from clickscore.stream.worker.group import Headers
from clickscore.stream.worker.logs import user_hash
from clickscore.stream.worker.otlp_traces import OtlpTracer
from clickscore.stream.worker.ticks import IdleTicks
from clickscore.stream.worker.traces import Tracer
from tests.collector import Collector
from tests.events import START, view
from tests.stream.worker.stage import Stage, background, until

TRACE = b"0af7651916cd43dd8448eb211c80319c"
PARENT = b"00-" + TRACE + b"-b7ad6b7169203331-01"


def sent(stage: Stage, event: AnyEvent, headers: Headers = ()) -> None:
    """Append an event with headers to the log, as a producer does."""
    stage.log.append(EVENTS.name, 0, event.user_id.encode(), encode_event(event), headers=headers, timestamp=event.ts)


def decide(stage: Stage, tracer: Tracer | None = None) -> None:
    """Compute and publish what the log holds."""
    ticks = IdleTicks(
        stage.pipeline, stage.group, topic=EVENTS.name, tick_after_ms=0, clock=stage.clock, metrics=stage.metrics
    )
    loop = BatchLoop(
        pipeline=stage.pipeline,
        ownership=stage.ownership,
        publisher=stage.publisher,
        ticks=ticks,
        compute=stage.compute,
        metrics=stage.metrics,
        max_batch=100,
        clock=stage.clock,
        tracer=tracer,
    )

    async def run() -> None:
        async with background(*stage.publisher.loops, loop.run):
            batch = stage.group.fetch(0)
            await loop.put(batch)
            await until(lambda: batch.acked)

    asyncio.run(run())


def owning(**changes: object) -> Stage:
    stage = Stage(**changes)
    stage.own()
    return stage


def headers_of(stage: Stage, topic: str = RECOMMENDATIONS.name) -> list[dict[str, bytes]]:
    """Return the headers of each record of a topic, without what every decision has."""
    found = [dict(record.headers) for record in stage.log.records(topic)]
    assert all(headers.pop("scored") for headers in found)
    return found


# Passed on


def test_trace_of_an_event_is_passed_on_to_its_recommendation_and_its_ad():
    stage = owning()
    campaign = Campaign(campaign_id="c", item_id="mug", bid=1.0)
    stage.pipeline.catalogue.update_campaign(b"c", encode(campaign))
    state = (("traceparent", PARENT), ("tracestate", b"shop=7"), ("other", b"x"))
    sent(stage, view("ann", 0), state)
    sent(stage, view("bob", 1))
    decide(stage)
    assert headers_of(stage) == [{"traceparent": PARENT, "tracestate": b"shop=7"}, {}]
    assert headers_of(stage, ADS.name) == headers_of(stage)


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        b"\xff\xfe",
        PARENT[:-1],
        PARENT + b"\n",
        PARENT.upper(),
        b"ff" + PARENT[2:],
        b"00-" + b"0" * 32 + PARENT[35:],
        PARENT[:36] + b"0" * 16 + b"-01",
    ],
)
def test_header_that_is_no_trace_is_left_out(parent: bytes):
    stage = owning()
    sent(stage, view("ann", 0), [("traceparent", parent), ("tracestate", b"shop=7")])
    decide(stage)
    assert headers_of(stage) == [{}]


def test_state_that_is_too_long_is_left_out():
    stage = owning()
    sent(stage, view("ann", 0), [("traceparent", PARENT), ("tracestate", b"a" * 513)])
    decide(stage)
    assert headers_of(stage) == [{"traceparent": PARENT}]


# Written


def traced(collector: Collector, stage: Stage, **changes: object) -> dict[str, Any]:
    """Decide on what the log holds; return the spans by name."""
    tracer = open_tracer(Settings.of(otlp_endpoint=collector.endpoint, **changes).worker)
    decide(stage, tracer)
    tracer.close()
    return {span.name: span for span in collector.spans}


def test_span_of_a_decision_goes_from_the_event_to_the_decision_within_the_trace_of_the_event(collector: Collector):
    stage = owning()
    stage.clock.now = START / 1000 + 0.004
    stage.group.producer.append_time = START + 9
    sent(stage, view("ann", 0), [("traceparent", PARENT)])
    sent(stage, view("bob", 0))
    spans = traced(collector, stage)
    assert len(collector.spans) == 4  # one decision with its three parts
    whole = spans["event to decision"]
    assert whole.trace_id == bytes.fromhex(TRACE.decode())
    assert whole.parent_span_id == bytes.fromhex("b7ad6b7169203331")
    assert (whole.start_time_unix_nano, whole.end_time_unix_nano) == (START * 1_000_000, (START + 9) * 1_000_000)
    assert {attribute.key for attribute in whole.attributes} >= {"messaging.kafka.offset", "clickscore.user_hash"}
    assert b"ann" not in whole.SerializeToString()
    times = [
        (spans[name].start_time_unix_nano, spans[name].end_time_unix_nano) for name in ("wait", "decide", "publish")
    ]
    assert times[0][0] == whole.start_time_unix_nano
    assert times[2][1] == whole.end_time_unix_nano
    assert [end for _, end in times[:2]] == [start for start, _ in times[1:]]
    assert {spans[name].parent_span_id for name in ("wait", "decide", "publish")} == {whole.span_id}
    assert headers_of(stage) == [{"traceparent": b"00-%b-%b-01" % (TRACE, whole.span_id.hex().encode())}, {}]


def test_event_whose_producer_does_not_sample_is_not_written(collector: Collector):
    stage = owning()
    sent(stage, view("ann", 0), [("traceparent", PARENT[:-1] + b"0")])
    assert traced(collector, stage, trace_share=1.0) == {}
    assert [headers["traceparent"][:35] for headers in headers_of(stage)] == [b"00-" + TRACE]
    assert headers_of(stage)[0]["traceparent"].endswith(b"-00")


def test_share_of_the_events_without_a_trace_begins_one(collector: Collector):
    stage = owning()
    stage.send(encode_event(view("ann", 0)))  # no append time
    spans = traced(collector, stage, trace_share=1.0)
    assert not spans["event to decision"].parent_span_id
    assert headers_of(stage)[0]["traceparent"][3:35] == spans["wait"].trace_id.hex().encode()


def test_collector_that_is_gone_costs_no_decision(collector: Collector):
    collector.close()
    stage = owning()
    sent(stage, view("ann", 0), [("traceparent", PARENT)])
    collector.spans.clear()
    tracer = open_tracer(Settings.of(otlp_endpoint="http://127.0.0.1:9/v1/traces").worker)
    decide(stage, tracer)
    assert len(headers_of(stage)) == 1


def test_collector_that_never_answers_gets_no_second_request_at_the_end():
    stage = owning()
    for number in range(150):
        sent(stage, view(f"user-{number}", number))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracer = OtlpTracer(f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces", share=1.0, close_s=0.05)
        decide(stage, tracer)  # 600 spans, and a request has at most 512
        tracer.close()
        assert len(headers_of(stage)) == 150
        silent.settimeout(10.0)
        request, _ = silent.accept()
        silent.setblocking(False)
        with request, pytest.raises(BlockingIOError):
            silent.accept()


# Lines of decisions


def test_line_of_a_decision_names_it_by_id_and_the_user_by_a_hash(caplog: pytest.LogCaptureFixture):
    stage = owning(log_decisions=1.0)
    sent(stage, view("ann", 0), [("traceparent", PARENT)])
    with caplog.at_level(logging.INFO):
        decide(stage)
    (record,) = [record for record in caplog.records if record.name.endswith("decision_lines")]
    fields = record.clickscore_fields
    assert fields["decision_id"] == f"{EVENTS.name}-0-0"
    assert fields["user"] == user_hash(b"ann")
    assert fields["traceparent"] == PARENT.decode()
    assert (fields["variant"], fields["items"]) == ("model", 0)
    assert "ann" not in record.getMessage() + json.dumps(fields)


def test_share_of_the_decisions_has_lines(caplog: pytest.LogCaptureFixture):
    stage = owning(log_decisions=0.5)
    for number in range(100):
        sent(stage, view(f"user-{number}", number))
    with caplog.at_level(logging.INFO):
        decide(stage)
    lines = [record for record in caplog.records if record.name.endswith("decision_lines")]
    assert 30 < len(lines) < 70
