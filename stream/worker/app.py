# pyright: basic
"""App: the Faust app with an agent, the web pages, and the worker process."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import faust
import msgspec
import uvloop
from aiokafka.errors import KafkaError
from faust.auth import SASLCredentials, SSLCredentials
from prometheus_client import generate_latest

from clickscore.schemas.errors import ClickscoreError
from clickscore.schemas.topics import EVENTS, MAX_RECORD_BYTES
from clickscore.stream.errors import BrokerError, ExtraMissingError, SettingsError
from clickscore.stream.gc_tuning import tune_gc
from clickscore.stream.kafka.client import MAX_REQUEST_BYTES, ssl_context
from clickscore.stream.kafka.log_reader import open_reader
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.settings import KafkaSettings, ScoringSettings, Settings, WorkerSettings
from clickscore.stream.terminal_text import safe_text
from clickscore.stream.worker import transport
from clickscore.stream.worker.engine import Engine
from clickscore.stream.worker.faust_group import FaustBatch, FaustGroup
from clickscore.stream.worker.logs import write_logs
from clickscore.stream.worker.prometheus_metrics import Metrics
from clickscore.stream.worker.rollouts import RolloutParts
from clickscore.stream.worker.traces import PassOn, Tracer
from clickscore.stream.worker.transactions import KafkaTransactions
from clickscore.stream.worker.web import Page, WebServer

log = logging.getLogger(__name__)


def create_app(
    settings: Settings, pipeline: Pipeline, rollout_parts: RolloutParts | None = None, tracer: Tracer | None = None
) -> tuple[faust.App, Engine, WebServer]:
    """Return the app, ready to run, the engine under it, and the server of its pages.

    Args:
        settings: All settings.
        pipeline: Turns records into outputs.
        rollout_parts: Loads bundles and policies of the rollout; None for a worker without a bundle store.
        tracer: Follows events to their decisions; by default their traces are passed on.
    """
    app = faust_app(settings)
    metrics = Metrics()
    events = settings.kafka.topic(EVENTS.name)
    engine = Engine(
        group=FaustGroup(app, events),
        settings=settings,
        pipeline=pipeline,
        metrics=metrics,
        open_reader=partial(open_reader, settings.kafka, rollouts=rollout_parts is not None),
        transactions=KafkaTransactions(settings) if settings.worker.delivery == "exactly_once" else None,
        rollout_parts=rollout_parts,
        tracer=tracer,
    )

    server = WebServer(pages(engine), settings.worker.web_host, settings.worker.web_port)
    ready = asyncio.Event()

    async def on_assigned(app: faust.App, **_: Any) -> None:
        """Restore the assigned partitions before Faust reads their first event."""
        del app
        await engine.on_assigned()
        if engine.failure is None and not ready.is_set():
            ready.set()
            log.info("ready: http://%s/health and http://%s/metrics", server.address, server.address)

    app.on_rebalance_complete.connect(on_assigned)  # pyright: ignore[reportArgumentType]

    @app.agent(app.topic(events, schema=transport.BatchSchema()), name="decide")
    async def decide(stream: Any) -> None:
        """Decide on every event, batch by batch.

        The engine computes each batch (decode, sessions, scores, policy), publishes the decisions and then the state,
        and acknowledges the batch, so Faust may commit the batch. Meanwhile the engine computes the next batch.
        """
        async with engine.running():
            async for event in stream.noack().events():
                await engine.put(FaustBatch(event))

    return app, engine, server


class FolderlessApp(faust.App):
    """Faust's app without folders for tables in the working directory."""

    def _create_directories(self) -> None:
        """Create nothing: this app has no tables."""


def faust_app(settings: Settings) -> faust.App:
    """Return a Faust app for batches, without topics, tables or state of Faust."""

    class Scheduler(transport.BatchScheduler):
        max_batch = settings.worker.max_batch

    class Consumer(transport.BatchConsumer):
        fetch_wait_ms = settings.worker.fetch_wait_ms
        isolation_level = settings.kafka.isolation_level
        max_event_bytes = settings.sessions.max_event_bytes

    class Transport(transport.BatchTransport):
        pass

    Transport.Consumer = Consumer
    session_s = settings.worker.session_timeout_ms / 1000
    app = FolderlessApp(
        settings.worker.group,
        broker=[f"kafka://{server.strip()}" for server in settings.kafka.bootstrap_servers.split(",")],
        broker_credentials=credentials(settings.kafka),
        autodiscover=False,
        consumer_group_instance_id=settings.worker.instance_id or None,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=1024 * 1024,
        broker_max_poll_records=4 * settings.worker.max_batch,
        broker_commit_interval=settings.worker.commit_interval_ms / 1000,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 6,
        broker_rebalance_timeout=10.0,
        broker_request_timeout=max(30.0, session_s),
        stream_buffer_maxsize=4,  # counts batches, not events: the short queue is the back-pressure
        producer_linger=0,
        producer_max_batch_size=MAX_RECORD_BYTES,
        producer_max_request_size=MAX_REQUEST_BYTES,
        # The publisher gives up earlier, with a better message.
        producer_request_timeout=settings.kafka.broker_wait_ms / 1000 + 5,
        # Without tables Faust needs neither its own assignor nor its leader topic.
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        store="memory://",
        web_enabled=False,  # Faust's own pages would be open beside ours
        worker_redirect_stdouts=False,
        ConsumerScheduler=Scheduler,
        TableManager=transport.PromptTableManager,
    )
    app.transport = Transport(app.conf.broker_consumer, app)
    return app


def credentials(kafka: KafkaSettings) -> SASLCredentials | SSLCredentials | None:
    """Return Faust's credentials for the TLS and SASL settings, or no credentials for a plain connection."""
    context = ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        return SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password,
            ssl_context=context,
            mechanism=kafka.sasl_mechanism,
        )
    return SSLCredentials(context=context) if context else None


def pages(engine: Engine) -> dict[str, Callable[[], Page]]:
    """Return what makes each page of the worker's web server."""

    def summary() -> Page:
        report = engine.health()
        state = f"partitions {report.partitions}, lag {report.lag}"
        return Page(200, f"ready: {state}\n".encode()) if report.ready else Page(503, f"not ready: {state}\n".encode())

    def health() -> Page:
        report = engine.health()
        return Page(200 if report.ready else 503, msgspec.json.encode(report), "application/json")

    def live() -> Page:
        return Page(200, b"alive\n") if engine.failure is None else Page(503, b"stopping after an error\n")

    def scrape() -> Page:
        engine.health()  # sets the gauges
        return Page(200, generate_latest(engine.metrics.registry))

    return {"/": summary, "/health": health, "/live": live, "/metrics": scrape}


class BoundedWorker(faust.Worker):
    """Faust's worker with a bounded stop: a lost broker, or a bug, must not keep a process alive for ever."""

    def __init__(self, app: faust.App, engine: Engine, server: WebServer, stop_s: float) -> None:
        """Build the worker.

        Args:
            app: App to run.
            engine: Engine of the app; keeps the reason of a failure.
            server: Serves the pages from the start on.
            stop_s: Time limit of a stop, s.
        """
        super().__init__(app, override_logging=False, redirect_stdouts=False, loop=asyncio.new_event_loop())
        self.spinner = None  # Faust's progress spinner has no place in a log
        self._engine = engine
        self._server = server
        self._stop_s = stop_s
        self._timer = threading.Timer(stop_s, self._cut_off)
        self._timer.daemon = True

    async def start(self) -> None:
        """Start, and return when the worker is to stop; a failure to start is explained in plain words.

        Raises:
            KafkaError: Kafka is gone again after the first checks.
            OSError: The web server cannot listen at its address.
        """
        try:
            await self._server.start()
            await self._engine.prepare()
            await super().start()
        except KafkaError as exc:
            self._engine.fail(BrokerError(f"Kafka is gone again as the worker starts ({exc}): start it again"))
            raise
        except OSError as exc:
            address, reason = self._server.address, os.strerror(exc.errno) if exc.errno else exc
            self._engine.fail(
                SettingsError(f"/health and /metrics cannot be at {address} ({reason}): choose --web-port")
            )
            raise

    def _on_sigint(self) -> None:
        """Stop on Ctrl-C.

        Faust would print a line first, and fail when the log goes into a pipe that has died: Ctrl-C ends a `tee`, too.
        """
        self._limit_stop()
        self._schedule_shutdown(signal.SIGINT)

    async def stop(self) -> None:
        """Stop within the time limit; an overdue stop ends the process, as safely as `kill -9`."""
        self._limit_stop()
        await super().stop()
        await self._server.stop()

    def _limit_stop(self) -> None:
        """Start the time limit of the stop, once."""
        if not self._timer.is_alive():
            self._timer.start()

    def lift_limit(self) -> None:
        """End the time limit of the stop: everything is committed, and the process ends by itself."""
        self._timer.cancel()

    def _cut_off(self) -> None:
        """End the process at once, with the reason of the failure, or with the overdue stop as the reason."""
        overdue = (
            f"the worker did not finish within {self._stop_s:.0f} s (stop_ms) and ends at once; "
            "what is not committed is decided on at the next start"
        )
        with contextlib.suppress(OSError):  # the log may go into a pipe that has died
            sys.stderr.write(safe_text(f"clickscore: {self._engine.failure or overdue}\n", lines=True))
        os._exit(1)


def open_tracer(settings: WorkerSettings) -> Tracer:
    """Return what follows events to their decisions; without `otlp_endpoint` their traces are passed on.

    Raises:
        ExtraMissingError: The OpenTelemetry packages are not installed.
    """
    if not settings.otlp_endpoint:
        return PassOn()
    try:
        # Imported where they are used: most workers have no collector.
        from clickscore.stream.worker.otlp_traces import OtlpTracer  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        message = f"otlp_endpoint needs the otel extra ({exc.name} is missing): pip install '.[otel]'"
        raise ExtraMissingError(message) from exc
    return OtlpTracer(settings.otlp_endpoint, settings.trace_share)


def describe_bundle(settings: ScoringSettings) -> str:
    """Return in words which bundle decides."""
    bundle = settings.bundle or "none, so recommendations are the popular items"
    if not settings.bundle_store:
        return bundle
    return f"the champion of the rollout {settings.rollout}; without a rollout {bundle}"


def run_worker(settings: Settings, pipeline: Pipeline, rollout_parts: RolloutParts | None = None) -> None:
    """Run a worker until a signal; return after a clean stop, and end the process when the stop takes too long.

    Args:
        settings: All settings.
        pipeline: Turns records into outputs.
        rollout_parts: Loads bundles and policies of the rollout; None for a worker without a bundle store.

    Raises:
        ClickscoreError: The worker stopped because of a known error.
        SystemExit: The worker stopped because of an unknown error; the log has the traceback.
    """
    write_logs(settings.worker.log_format)
    kafka = settings.kafka
    log.info("bundle: %s", describe_bundle(settings.scoring))
    log.info("topics: %s and the others, at %s", kafka.topic(EVENTS.name), kafka.bootstrap_servers)
    uvloop.install()
    tracer = open_tracer(settings.worker)
    app, engine, server = create_app(settings, pipeline, rollout_parts, tracer)
    tune_gc()
    worker = BoundedWorker(app, engine, server, settings.worker.stop_ms / 1000)
    try:
        worker.execute_from_commandline()
    except SystemExit as exc:
        if isinstance(engine.failure, ClickscoreError):
            raise engine.failure from None
        if exc.code or engine.failure is not None:
            raise
    except Exception:
        if isinstance(engine.failure, ClickscoreError):
            raise engine.failure from None
        raise
    finally:
        worker.lift_limit()
        tracer.close()
