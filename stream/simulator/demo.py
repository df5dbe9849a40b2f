"""Demo: run Kafka, the synthetic shop, a worker and a live view, and end all of them together."""

import asyncio
import contextlib
import dataclasses
import secrets
import signal
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from rich.console import Console
from rich.live import Live

from clickscore.schemas.manifest import REASONS, decode_manifest
from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.topics import create_topics, delete_topics
from clickscore.stream.settings import PolicySettings, Settings
from clickscore.stream.simulator.demo_metrics import DemoMetrics, Summary
from clickscore.stream.simulator.live_view import Frame, line, render, sentence
from clickscore.stream.simulator.shop.live import PACE, LiveShop
from clickscore.stream.simulator.shop.shoppers import Shop, make_shop
from clickscore.stream.simulator.traffic import publish_assortment, race, run_shop
from clickscore.stream.simulator.worker_process import WorkerProcess, free_port

if TYPE_CHECKING:
    from clickscore.stream.kafka.embedded import EmbeddedBroker

SHELVES = "shelves"
"""Policy of a demo whose settings name none: it shows shelves below the list."""
SEED = 7
"""Seed of the demo's shop. The packaged bundle was trained on sessions of the same shop."""
SHOWN_REASONS = 2
"""Session events that the pages of the demo name as reasons of an item."""

_FRAME_SECONDS = 0.5
_LINE_SECONDS = 5.0  # between two plain lines, if the output is no terminal
_RATE_SECONDS = 5.0  # time window of the rates
_SENTENCES = 8


class WebPages(Protocol):
    """Web pages beside the demo."""

    @property
    def address(self) -> str:
        """Address of the server."""
        ...

    @property
    def works(self) -> tuple[Callable[[], Awaitable[Any]], ...]:
        """Background work to run while the pages are served."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of one demo."""

    settings: Settings | None
    """Settings of an existing Kafka. Without settings the demo starts an embedded Kafka and ends it afterwards."""
    bundle: Path | None
    """Folder of the bundle. Without a bundle the worker recommends by popularity alone."""
    seconds: float | None
    """Opening time of the shop in seconds. Without a limit the shop stays open until a signal arrives."""
    rate: float
    """Average number of records a second."""
    open_web: Callable[[Settings], contextlib.AbstractAsyncContextManager[WebPages]] | None = None
    """Serves the console and the shop for a block; absent where the packages of the gateway are missing."""
    web_port: int = 0
    """Port of these pages; 0 takes any free port."""


def run_demo(options: DemoOptions, console: Console, began_at: int) -> Summary:
    """Run the demo until its time is over, or until SIGINT, SIGTERM or SIGHUP arrives, and end every started process.

    Args:
        options: Options of the demo.
        console: Terminal for the live view. Other outputs get a plain line every few seconds.
        began_at: Start of the command, ms since the epoch.

    Returns:
        Counts and latencies of the whole demo.

    Raises:
        BrokerError: Kafka could not be started or reached.
        WorkerDiedError: The worker ended without being asked to.
    """
    shop = make_shop(SEED, shoppers=max(5_000, int(50 * options.rate)))
    live = LiveShop(shop, f"s{SEED}", rate=options.rate)
    counts = DemoMetrics(began_at, live.variants, live.shelves)
    with _Signals() as signals, contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clickscore-demo-")))
        try:
            settings, broker = options.settings, None
            if settings is None:
                from clickscore.stream.kafka.embedded import EmbeddedBroker  # noqa: PLC0415 (needs the `broker` extra)

                stack.callback(_stop_broker, folder / "kafka")
                broker = EmbeddedBroker.start(folder / "kafka", report=lambda step: console.print(f"{step} ..."))
                settings = Settings.of(bootstrap_servers=broker.bootstrap_servers)
            settings = demo_settings(settings, options.bundle, options.web_port)
            signals.run(_Demo(options, settings, shop, live, counts, console, folder, broker).run)
        except KeyboardInterrupt:
            console.print("Interrupted before the shop opened.")
        finally:
            signals.ignore()  # a signal must not interrupt the cleanup
    return counts.summary


def demo_settings(settings: Settings, bundle: Path | None, web_port: int) -> Settings:
    """Return settings of one demo: its own topics and group, two variants, shelves, and a gap at the shop's pace.

    Args:
        settings: Settings of the Kafka.
        bundle: Folder of the bundle; None for popularity alone.
        web_port: Port of the web pages; 0 takes any free port.
    """
    name = f"demo-{secrets.token_hex(4)}"
    return settings.replace(
        topic_prefix=f"{name}-",
        group=name,
        instance_id="",
        policy=SHELVES if settings.policy.policy == PolicySettings().policy else settings.policy.policy,
        experiment="demo",
        control_share=0.5,
        reasons=SHOWN_REASONS if bundle and _gives_reasons(bundle) else 0,
        bundle=str(bundle) if bundle else "",
        gap_ms=settings.sessions.gap_ms // PACE,
        lateness_ms=settings.sessions.lateness_ms // PACE,
        popularity_refresh_ms=settings.sessions.popularity_refresh_ms // PACE,
        web_host="127.0.0.1",
        web_port=free_port("127.0.0.1"),
        gateway_host="127.0.0.1",
        gateway_port=web_port,
        gateway_keys_file="",
        gateway_tls_certfile="",
        gateway_tls_keyfile="",
        gateway_cors_origins="",
        gateway_redis_url="",
        gateway_console="on",
        gateway_decide_ms=5_000,  # a person rather waits than reads of a timeout
    )


def _gives_reasons(bundle: Path) -> bool:
    """Return whether the graph of a bundle can say which events raised a score."""
    try:
        manifest = decode_manifest((bundle / "manifest.json").read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):  # the worker says what is wrong with the bundle
        return False
    return any(output.name == REASONS for output in manifest.outputs)


class _Signals:
    """Handler of SIGINT, SIGTERM and SIGHUP: interrupt at first, later cancel the running task, at last do nothing."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __enter__(self) -> "_Signals":
        self._act: Callable[[], Any] = self._interrupt
        self._before = {number: signal.signal(number, self._received) for number in self._NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ignore(self) -> None:
        """Ignore all signals from now on."""
        self._act = lambda: None

    def run(self, main: Callable[[], Any]) -> None:
        """Run a coroutine function until its end, or until a signal cancels the task."""

        async def cancellable() -> None:
            task = asyncio.create_task(main())
            loop = asyncio.get_running_loop()

            def cancel() -> None:
                self.ignore()  # cancel once: a second cancellation would interrupt the cleanup
                loop.call_soon_threadsafe(task.cancel)

            self._act = cancel
            try:
                await task
            except asyncio.CancelledError:
                if not task.cancelling():  # no signal cancelled the task, so this is a bug
                    raise
            finally:
                self.ignore()

        asyncio.run(cancellable())

    def _received(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._act()

    @staticmethod
    def _interrupt() -> None:
        raise KeyboardInterrupt


@dataclasses.dataclass(frozen=True)
class _Demo:
    """The running part of a demo, once Kafka is available."""

    options: DemoOptions
    settings: Settings
    shop: Shop
    live: LiveShop
    counts: DemoMetrics
    console: Console
    folder: Path
    """Folder for temporary files."""
    broker: "EmbeddedBroker | None"

    async def run(self) -> None:
        try:
            await create_topics(self.settings.kafka)
            self.console.print("Starting a worker ...")
            with WorkerProcess(self.settings, self.folder / "worker.log") as worker:
                await asyncio.gather(publish_assortment(self.settings.kafka, self.shop.assortment), worker.ready())
                async with contextlib.AsyncExitStack() as stack:
                    web = (
                        await stack.enter_async_context(self.options.open_web(self.settings))
                        if self.options.open_web
                        else None
                    )
                    works = [_finished(work) for work in web.works] if web else []
                    shop = run_shop(self.settings.kafka, self.live, self.counts)
                    await race(shop, self._watch(worker, web.address if web else ""), *works)
        finally:
            if self.options.settings is not None:  # the user's Kafka keeps running
                await delete_topics(self.settings.kafka)

    async def _watch(self, worker: WorkerProcess, address: str) -> None:
        """Show the traffic until the opening time is over.

        Args:
            worker: The worker to check.
            address: Address of the web pages; empty without them.
        """
        bundle = self.options.bundle
        variants = (
            f"the model of bundle {bundle.resolve().name} against popularity"
            if bundle
            else "popularity alone, no bundle"
        )
        title = f"Clickscore demo: a synthetic shop on Kafka at {self.settings.kafka.bootstrap_servers}, {variants}"
        if address:
            self.console.print(f"Shop: {address}/console/shop   Console: {address}/console", soft_wrap=True)
        opened_at = time.monotonic()
        pace = _Pace()
        sentences: deque[str] = deque(maxlen=_SENTENCES)
        titles = {item.item_id: item.title for item in self.shop.assortment.items}
        with contextlib.ExitStack() as stack:
            view = None
            if self.console.is_terminal:
                view = stack.enter_context(Live(console=self.console, auto_refresh=False))
            else:
                self.console.print(title, soft_wrap=True)
            printed = 0.0
            while True:
                worker.check()
                if self.broker and not self.broker.is_running():
                    message = "Kafka ended by itself: start the demo again, with more free memory and disk"
                    raise BrokerError(message)
                health = await worker.health()
                now = time.monotonic() - opened_at
                rates = pace.per_second(now, self.counts.events, self.counts.decisions.total())
                if self.counts.latest:
                    sentences.append(sentence(*self.counts.latest[-1], titles))
                frame = Frame(
                    seconds=now,
                    events_per_s=rates[0],
                    decisions_per_s=rates[1],
                    latency=self.counts.latency,
                    open_sessions=health.open_sessions if health else None,
                    lag=health.lag if health else None,
                    dead_letters=self.counts.dead_letters,
                    variants=self.live.variants,
                    shelves=self.live.shelves,
                    sentences=sentences,
                )
                over = self.options.seconds is not None and now >= self.options.seconds
                if view:
                    view.update(render(title, frame), refresh=True)
                elif over or now - printed >= _LINE_SECONDS:
                    printed = now
                    self.console.print(line(frame), soft_wrap=True, highlight=False)
                    if sentences:
                        self.console.print(f"        {sentences[-1]}", soft_wrap=True, highlight=False)
                if over:
                    return
                pause = _FRAME_SECONDS if self.options.seconds is None else self.options.seconds - now
                await asyncio.sleep(min(_FRAME_SECONDS, pause))


async def _finished(work: Callable[[], Awaitable[Any]]) -> None:
    """Run background work to its end."""
    await work()


class _Pace:
    """Rates of growing totals over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, tuple[int, ...]]] = deque()

    def per_second(self, now: float, *totals: int) -> tuple[float, ...]:
        """Return the growth of each total per second, over the last `_RATE_SECONDS`."""
        self._seen.append((now, totals))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _RATE_SECONDS:
            self._seen.popleft()
        then, earlier_totals = self._seen[0]
        if now == then:
            return (0.0,) * len(totals)
        return tuple((total - earlier) / (now - then) for total, earlier in zip(totals, earlier_totals, strict=True))


def _stop_broker(data: Path) -> None:
    from clickscore.stream.kafka.embedded import EmbeddedBroker  # noqa: PLC0415 (needs the `broker` extra)

    # Find the broker by its folder: a signal may arrive before `EmbeddedBroker.start` returns.
    broker = EmbeddedBroker.find(data)
    if broker:
        broker.stop()
