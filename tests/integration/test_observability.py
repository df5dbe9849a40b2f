"""Observability on a real broker: append times, traces and logs of a worker's decisions."""

import asyncio
import json
import time
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest
from aiokafka import AIOKafkaProducer

from clickscore.schemas.events import View, encode_event
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS
from clickscore.stream.worker.logs import user_hash
from tests.collector import Collector
from tests.integration.live import Installation, Worker, installation

pytestmark = pytest.mark.kafka

TRACE = "0af7651916cd43dd8448eb211c80319c"
EVENTS_SENT = 20


async def produce(live: Installation) -> None:
    """Send views of a user, each with a trace."""
    kafka, parent = live.settings.kafka, f"00-{TRACE}-b7ad6b7169203331-01".encode()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        for number in range(EVENTS_SENT):
            view = View(event_id=f"e{number}", user_id="anna", ts=int(time.time() * 1000), item_id="mug")
            await producer.send_and_wait(
                kafka.topic(EVENTS.name), encode_event(view), b"anna", headers=[("traceparent", parent)]
            )


def scrape(worker: Worker) -> dict[str, float]:
    """Return the samples of a worker's /metrics that have no labels."""
    settings = worker.settings.worker
    with build_opener(ProxyHandler({})).open(f"http://{settings.web_host}:{settings.web_port}/metrics") as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines if line[0] != "#") if "{" not in name}


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_decision_has_a_latency_a_span_and_a_line(
    broker: str, tmp_path: Path, collector: Collector, delivery: str
) -> None:
    with installation(broker, tmp_path, partitions=1, delivery=delivery) as live:
        worker = live.start_worker(otlp_endpoint=collector.endpoint, log_format="json", log_decisions=1.0)
        worker.wait_restored()
        asyncio.run(produce(live))
        live.wait_finished()
        samples = scrape(worker)
        assert samples["clickscore_event_to_decision_seconds_count"] == EVENTS_SENT
        live.stop_workers()  # sends the spans that wait

        (decisions,) = live.read(RECOMMENDATIONS).values()
        traces = [dict(record.headers)["traceparent"].decode().split("-") for record in decisions]
        assert {trace for _, trace, _, _ in traces} == {TRACE}
        whole = [span for span in collector.spans if span.name == "event to decision"]
        assert sorted(span.span_id.hex() for span in whole) == sorted(span for _, _, span, _ in traces)
        append_times = [event.timestamp for event in live.events()]
        assert [span.start_time_unix_nano for span in whole] == [time_ms * 1_000_000 for time_ms in append_times]
        stored = sum(record.timestamp - append for record, append in zip(decisions, append_times, strict=True))
        # Batches that are published together share the last one's append time.
        assert stored / 1000 <= round(samples["clickscore_event_to_decision_seconds_sum"], 3)

        lines = [json.loads(line) for line in worker.output.splitlines()]
        decided = [line for line in lines if line["logger"].endswith("decision_lines")]
        assert [line["decision_id"] for line in decided] == [json.loads(d.value)["decision_id"] for d in decisions]
        assert {line["user"] for line in decided} == {user_hash(b"anna")}
        assert "anna" not in worker.output
