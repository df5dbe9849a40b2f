"""App: its pages, its credentials, and how a worker that cannot start or stop ends; nothing here needs a broker."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import faust
from aiokafka.errors import KafkaConnectionError
from faust.auth import SASLCredentials, SSLCredentials

from clickscore.schemas.topics import EVENTS
from clickscore.stream.errors import BrokerError
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import ScoringSettings, Settings
from clickscore.stream.worker.app import BoundedWorker, create_app, credentials, describe_bundle, pages
from clickscore.stream.worker.engine import Engine
from clickscore.stream.worker.web import Page, WebServer
from tests.stream.worker.test_faust_group import Event
from tests.stream.worker.test_transport_contract import messages

NOWHERE = "127.0.0.1:1"
"""Address of a broker that refuses every connection: nothing listens at port 1."""


def in_app(use: Callable[[faust.App, Engine], Awaitable[Any]], **changes: Any) -> Any:
    """Return what `use` makes of a worker's app that is not started."""

    async def run() -> Any:
        settings = Settings.of(**{"bootstrap_servers": NOWHERE, **changes})
        pipeline = Pipeline(settings.sessions, settings.policy, EVENTS.name, Catalogue())
        return await use(*create_app(settings, pipeline)[:2])

    return asyncio.run(run())


def test_health_of_a_worker_that_has_not_joined_is_503_with_the_report():
    async def use(app: faust.App, engine: Engine) -> tuple[int, str]:
        del app
        page = pages(engine)["/health"]()
        return page.status, page.body.decode()

    status, text = in_app(use)
    assert status == 503
    assert text == (
        '{"alive":true,"restored":false,"rebalancing":false,"lag":0,"last_batch_age_s":null,"partitions":[],'
        '"open_sessions":0,"users":0,"unserved":[],"lost":0,"fallback_share":null,"bundles":[],"refused_bundles":{}}'
    )


def test_worker_lives_until_an_error_stops_it():
    async def use(app: faust.App, engine: Engine) -> list[int]:
        del app
        live = pages(engine)["/live"]
        before = live()
        engine.fail(ValueError("a bug"))
        return [before.status, live().status]

    assert in_app(use) == [200, 503]


def test_first_page_of_a_worker_that_has_not_joined_is_503_in_one_line():
    async def use(app: faust.App, engine: Engine) -> Page:
        del app
        return pages(engine)["/"]()

    assert in_app(use) == (503, b"not ready: partitions [], lag 0\n", "text/plain")


def test_worker_says_which_bundle_decides():
    popular = "none, so recommendations are the popular items"
    champion = "the champion of the rollout shop; without a rollout "
    assert describe_bundle(ScoringSettings()) == popular
    assert describe_bundle(ScoringSettings(bundle="demo")) == "demo"
    assert describe_bundle(ScoringSettings(bundle_store="store", rollout="shop")) == champion + popular
    assert describe_bundle(ScoringSettings(bundle="demo", bundle_store="store", rollout="shop")) == champion + "demo"


def test_no_page_of_faust_is_served():
    async def use(app: faust.App, engine: Engine) -> tuple[bool, set[str]]:
        return app.conf.web_enabled, set(pages(engine))

    assert in_app(use) == (False, {"/", "/health", "/live", "/metrics"})


def test_metrics_are_those_of_the_engine():
    async def use(app: faust.App, engine: Engine) -> tuple[int, str]:
        del app
        page = pages(engine)["/metrics"]()
        return page.status, page.body.decode()

    status, text = in_app(use)
    assert status == 200
    assert "clickscore_open_sessions 0.0" in text


def test_assignment_restores_and_a_broker_that_is_gone_stops_the_worker():
    async def use(app: faust.App, engine: Engine) -> BaseException | None:
        await app.on_rebalance_complete.send()
        assert app.crashed
        return engine.failure

    assert isinstance(in_app(use), KafkaConnectionError)


class Stream:
    """A Faust stream that hands out events and ends."""

    def __init__(self, *events: Event) -> None:
        self._events = events

    def noack(self) -> "Stream":
        return self

    async def events(self) -> AsyncGenerator[Event]:
        for event in self._events:
            yield event
            await asyncio.sleep(0.02)  # the engine runs while Faust waits for the next fetch


def test_agent_hands_each_batch_to_the_engine_which_releases_what_is_not_assigned():
    async def use(app: faust.App, engine: Engine) -> int:
        del engine
        (agent,) = app.agents.values()
        event = Event(messages(app.consumer, (0, 1))[0])
        await agent.fun(Stream(event))
        return event.acks

    assert in_app(use) == 1


def test_worker_that_finds_no_broker_as_it_starts_says_so():
    async def use(app: faust.App, engine: Engine) -> BaseException | None:
        worker = BoundedWorker(app, engine, WebServer({}, "127.0.0.1", 0), stop_s=60.0)
        worker.loop.close()
        worker.loop = asyncio.get_running_loop()
        try:
            await worker.start()
        except KafkaConnectionError:
            await faust.Worker.stop(worker)  # the worker's own stop would bound the life of this process
        return engine.failure

    failure = in_app(use)
    assert isinstance(failure, BrokerError)
    assert "Kafka is gone again as the worker starts" in str(failure)


def test_limit_of_a_stop_ends_with_the_stop():
    async def use(app: faust.App, engine: Engine) -> bool:
        worker = BoundedWorker(app, engine, WebServer({}, "127.0.0.1", 0), stop_s=600.0)
        worker.loop.close()
        worker.loop = asyncio.get_running_loop()
        await worker.stop()
        assert worker._timer.is_alive()
        worker.lift_limit()
        worker._timer.join(timeout=10)
        return worker._timer.is_alive()

    assert in_app(use) is False


def test_plain_connection_has_no_credentials():
    assert credentials(Settings().kafka) is None


def test_tls_has_a_context():
    assert isinstance(credentials(Settings.of(security_protocol="SSL").kafka), SSLCredentials)


def test_sasl_has_user_password_and_mechanism():
    kafka = Settings.of(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-256", sasl_username="ann", sasl_password="secret"
    ).kafka
    login = credentials(kafka)
    assert isinstance(login, SASLCredentials)
    assert (login.username, login.password, login.mechanism.value) == ("ann", "secret", "SCRAM-SHA-256")
    assert login.ssl_context is not None
