# pyright: basic
"""App: the Faust app and its one agent. With the transport and the engine beside it, all that knows Faust."""

import asyncio
import logging
import os
import threading
from typing import Any

import click
import faust
import uvloop
from aiokafka.errors import KafkaError
from faust.auth import SASLCredentials, SSLCredentials
from faust.web import Request, Response, View
from prometheus_client import generate_latest

from clickscore.schemas.topics import EVENTS, MAX_RECORD_BYTES
from clickscore.stream.errors import BrokerError, ClickscoreError, SettingsError
from clickscore.stream.gc_tuning import tune_gc
from clickscore.stream.kafka.client import MAX_REQUEST_BYTES, ssl_context
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.settings import Settings
from clickscore.stream.worker import transport
from clickscore.stream.worker.engine import Engine
from clickscore.stream.worker.logs import write_logs
from clickscore.stream.worker.metrics import Metrics

log = logging.getLogger(__name__)


def create_app(settings: Settings, pipeline: Pipeline) -> tuple[faust.App, Engine]:
    """Return the app, ready to run, and the engine under it."""
    app = faust_app(settings)
    metrics = Metrics()
    engine = Engine(app, settings, pipeline, metrics)
    app.on_rebalance_complete.connect(engine.on_assigned)  # pyright: ignore[reportArgumentType]

    @app.agent(app.topic(settings.topic(EVENTS.name), schema=transport.BatchSchema()), name="decide")
    async def decide(stream: Any) -> None:
        """Decide on every event, a partition's batch at a time.

        The engine computes each batch (decode, sessions, scores, policy), publishes its decisions and then its state,
        acknowledges it, and so lets Faust commit it; it computes the next one meanwhile.
        """
        async with engine.running():
            async for batch in stream.noack().events():
                await engine.take(batch)

    add_pages(app, engine, metrics)
    return app, engine


class FolderlessApp(faust.App):
    """Faust's app without the folders that it makes in the working one for tables, which we have none of."""

    def _create_directories(self) -> None:
        pass


def faust_app(settings: Settings) -> faust.App:
    """Return a Faust app that hands over batches and leaves topics, tables and state to us."""

    class Scheduler(transport.BatchScheduler):
        max_batch = settings.max_batch

    class Consumer(transport.BatchConsumer):
        gather_ms = settings.gather_ms

    class Transport(transport.BatchTransport):
        pass

    Transport.Consumer = Consumer
    session_s = settings.session_timeout_ms / 1000
    app = FolderlessApp(
        settings.group,
        broker=[f"kafka://{server.strip()}" for server in settings.bootstrap_servers.split(",")],
        broker_credentials=credentials(settings),
        autodiscover=False,
        consumer_group_instance_id=settings.instance_id or None,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=1024 * 1024,
        broker_max_poll_records=4 * settings.max_batch,
        broker_commit_interval=settings.commit_interval_ms / 1000,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 6,
        broker_rebalance_timeout=10.0,
        broker_request_timeout=max(30.0, session_s),
        stream_buffer_maxsize=4,  # batches, not events: the short queue is the back-pressure
        producer_linger=0,
        producer_max_batch_size=MAX_RECORD_BYTES,
        producer_max_request_size=MAX_REQUEST_BYTES,
        producer_request_timeout=settings.broker_wait_ms / 1000 + 5,  # the publisher's bound comes first
        # No tables: Faust then leaves its own assignor and its leader topic alone.
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        store="memory://",
        web_host=settings.web_host,
        web_bind=settings.web_host,
        web_port=settings.web_port,
        worker_redirect_stdouts=False,
        ConsumerScheduler=Scheduler,
        TableManager=transport.PromptTableManager,
    )
    app.transport = Transport(app.conf.broker_consumer, app)
    return app


def credentials(settings: Settings) -> SASLCredentials | SSLCredentials | None:
    """Return the settings' TLS and SASL in Faust's terms."""
    context = ssl_context(settings)
    if settings.security_protocol.startswith("SASL"):
        return SASLCredentials(
            username=settings.sasl_username,
            password=settings.sasl_password,
            ssl_context=context,
            mechanism=settings.sasl_mechanism,
        )
    return SSLCredentials(context=context) if context else None


def add_pages(app: faust.App, engine: Engine, metrics: Metrics) -> None:
    """Put /health and /metrics on Faust's web server."""

    @app.page("/health")
    async def health(view: View, request: Request) -> Response:
        del request
        report = engine.health()
        return view.json(report, status=200 if report["alive"] and report["restored"] else 503)

    @app.page("/metrics")
    async def scrape(view: View, request: Request) -> Response:
        del request
        engine.health()  # brings the gauges up to date
        return view.bytes(generate_latest(metrics.registry), content_type="text/plain")


class BoundedWorker(faust.Worker):
    """Faust's worker, whose stop has an end: a broker that is gone, or a bug, must not hold a process for ever."""

    engine: Engine
    stop_s: float

    async def start(self) -> None:
        """Start, and return once it is to stop; what it cannot start without is said in words."""
        try:
            await super().start()
        except KafkaError as exc:
            self.engine.fail(BrokerError(f"Kafka is gone again as the worker starts ({exc}): start it again"))
            raise
        except OSError as exc:
            conf = self.app.conf
            where, why = f"{conf.web_bind}:{conf.web_port}", os.strerror(exc.errno) if exc.errno else exc
            self.engine.fail(SettingsError(f"/health and /metrics cannot be at {where} ({why}): choose --web-port"))
            raise

    async def stop(self) -> None:
        """Stop; what takes longer than it may is cut off, as by `kill -9`, which loses nothing."""
        timer = threading.Timer(self.stop_s, self._cut_off)
        timer.daemon = True
        timer.start()
        await super().stop()

    def _cut_off(self) -> None:
        late = (
            f"the worker did not finish within {self.stop_s:.0f} s (stop_ms) and ends at once; "
            "what is not committed is decided on at the next start"
        )
        click.echo(f"clickscore: {self.engine.failure or late}", err=True)
        os._exit(1)


def run_worker(settings: Settings, pipeline: Pipeline) -> None:
    """Run until a signal; returns after a clean stop, and ends the process where that takes longer than it may.

    Raises:
        ClickscoreError: What stopped the worker, if we know it.
        SystemExit: Something else did; its traceback is in the log.
    """
    write_logs()
    uvloop.install()
    app, engine = create_app(settings, pipeline)
    tune_gc()
    worker = BoundedWorker(app, override_logging=False, redirect_stdouts=False, loop=asyncio.new_event_loop())
    worker.engine, worker.stop_s = engine, settings.stop_ms / 1000
    worker.spinner = None  # a log is no terminal
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
