"""Demo: a real Kafka, the synthetic shop, a worker and a live view, and nothing left behind when it ends."""

import asyncio
import contextlib
import dataclasses
import secrets
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live

from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.embedded import EmbeddedBroker
from clickscore.stream.kafka.topics import create_topics, delete_topics
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.demo_metrics import DemoCounts, Summary
from clickscore.stream.simulator.live_view import Frame, line, render, sentence
from clickscore.stream.simulator.shop.live import PACE, LiveShop
from clickscore.stream.simulator.shop.shoppers import Shop, make_shop
from clickscore.stream.simulator.traffic import keep_shop, publish_assortment, race
from clickscore.stream.simulator.worker_process import WorkerProcess, free_port

SEED = 7
"""Of the demo's shop, which its bundle was trained on."""
BUNDLE = Path(__file__).parents[1] / "bundles" / "demo"
"""The bundle that comes with us."""

_FRAME_SECONDS = 0.5
_LINE_SECONDS = 5.0  # between two plain lines, where the output is no terminal
_RATE_SECONDS = 5.0  # over which rates are taken
_SENTENCES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to show."""

    settings: Settings | None
    """Of the Kafka to use; none for an embedded one that lives as long as the demo."""
    bundle: Path | None
    """Popularity alone where none."""
    seconds: float | None
    """How long the shop is open; none until a signal."""
    rate: float
    """Records a second."""


def run_demo(plan: Plan, console: Console, began_at: int) -> Summary:
    """Run the demo until its time is over, or SIGINT, SIGTERM or SIGHUP comes; all that was started has ended then.

    Args:
        plan: What to show.
        console: Where: a live view on a terminal, else a line every few seconds.
        began_at: When the command started, ms since the epoch.

    Raises:
        BrokerError: Kafka could not be started or reached.
        WorkerDiedError: The worker ended by itself.
    """
    shop = make_shop(SEED, shoppers=max(5_000, int(50 * plan.rate)))
    live = LiveShop(shop, f"s{SEED}", rate=plan.rate)
    counts = DemoCounts(began_at, live.variants)
    with _Signals() as signals, contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clickscore-demo-")))
        try:
            settings, broker = plan.settings, None
            if settings is None:
                stack.callback(_stop_broker, folder / "kafka")
                broker = EmbeddedBroker.start(folder / "kafka", report=lambda step: console.print(f"{step} ..."))
                settings = Settings(bootstrap_servers=broker.bootstrap_servers)
            settings = demo_settings(settings, plan.bundle)
            signals.run(_Demo(plan, settings, shop, live, counts, console, folder, broker).run)
        except KeyboardInterrupt:
            console.print("Interrupted before the shop opened.")
        finally:
            signals.ignore()  # what ends the demo must not be ended
    return counts.summary


def demo_settings(settings: Settings, bundle: Path | None) -> Settings:
    """Return settings for one demo: topics and group of its own, two variants, and sessions at the shop's pace."""
    name = f"demo-{secrets.token_hex(4)}"
    return dataclasses.replace(
        settings,
        topic_prefix=f"{name}-",
        group=name,
        instance_id="",
        experiment="demo",
        control_share=0.5,
        bundle=str(bundle) if bundle else "",
        gap_ms=settings.gap_ms // PACE,
        lateness_ms=settings.lateness_ms // PACE,
        popularity_refresh_ms=settings.popularity_refresh_ms // PACE,
        web_host="127.0.0.1",
        web_port=free_port("127.0.0.1"),
    )


class _Signals:
    """What SIGINT, SIGTERM and SIGHUP do: they interrupt, or cancel the event loop's task, or nothing any more."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __enter__(self) -> "_Signals":
        self._act: Callable[[], Any] = self._interrupt
        self._before = {number: signal.signal(number, self._received) for number in self._NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ignore(self) -> None:
        """Let no signal do anything from now on."""
        self._act = lambda: None

    def run(self, main: Callable[[], Any]) -> None:
        """Run a coroutine function to its end, or until a signal cancels it."""

        async def cancellable() -> None:
            task = asyncio.create_task(main())
            loop = asyncio.get_running_loop()

            def cancel() -> None:
                self.ignore()  # once: a second cancellation would interrupt the cleaning up
                loop.call_soon_threadsafe(task.cancel)

            self._act = cancel
            try:
                await task
            except asyncio.CancelledError:
                if not task.cancelling():  # not by a signal, so a bug
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
    """What runs once there is a Kafka."""

    plan: Plan
    settings: Settings
    shop: Shop
    live: LiveShop
    counts: DemoCounts
    console: Console
    folder: Path
    """For temporary files."""
    broker: EmbeddedBroker | None

    async def run(self) -> None:
        try:
            await create_topics(self.settings)
            self.console.print("Starting a worker ...")
            with WorkerProcess(self.settings, self.folder / "worker.log") as worker:
                await asyncio.gather(publish_assortment(self.settings, self.shop.assortment), worker.ready())
                await race(keep_shop(self.settings, self.live, self.counts), self._watch(worker))
        finally:
            if self.plan.settings is not None:  # somebody's Kafka, that stays
                await delete_topics(self.settings)

    async def _watch(self, worker: WorkerProcess) -> None:
        """Show what passes, until the time is over."""
        bundle = self.plan.bundle
        variants = (
            f"the model of bundle {bundle.resolve().name} against popularity"
            if bundle
            else "popularity alone, no bundle"
        )
        title = f"Clickscore demo: a synthetic shop on Kafka at {self.settings.bootstrap_servers}, {variants}"
        began = time.monotonic()
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
                    message = "Kafka ended by itself"
                    raise BrokerError(message)
                health = await worker.health()
                now = time.monotonic() - began
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
                    sentences=sentences,
                )
                over = self.plan.seconds is not None and now >= self.plan.seconds
                if view:
                    view.update(render(title, frame), refresh=True)
                elif over or now - printed >= _LINE_SECONDS:
                    printed = now
                    self.console.print(line(frame), soft_wrap=True, highlight=False)
                    if sentences:
                        self.console.print(f"        {sentences[-1]}", soft_wrap=True, highlight=False)
                if over:
                    return
                left = _FRAME_SECONDS if self.plan.seconds is None else self.plan.seconds - now
                await asyncio.sleep(min(_FRAME_SECONDS, left))


class _Pace:
    """Rates over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, tuple[int, ...]]] = deque()

    def per_second(self, now: float, *totals: int) -> tuple[float, ...]:
        """Return how fast each total grows."""
        self._seen.append((now, totals))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _RATE_SECONDS:
            self._seen.popleft()
        then, before = self._seen[0]
        if now == then:
            return (0.0,) * len(totals)
        return tuple((total - earlier) / (now - then) for total, earlier in zip(totals, before, strict=True))


def _stop_broker(data: Path) -> None:
    # By the folder: a signal may come between the broker's start and our hearing of it.
    broker = EmbeddedBroker.find(data)
    if broker:
        broker.stop()
