"""`clickscore demo`: run Kafka, a worker and a synthetic shop together."""

import functools
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import click
from rich.console import Console

from clickscore.model.bundle_folder import BundleFolder
from clickscore.model.finite_range import FiniteRange
from clickscore.model.json_output import FormerJsonCommand, JsonOutput, json_options
from clickscore.model.packaged_bundle import DEMO_FOLDER
from clickscore.stream.settings import Settings, load
from clickscore.stream.simulator.demo import DemoOptions, WebPages, run_demo
from clickscore.stream.simulator.demo_metrics import Summary
from clickscore.stream.simulator.live_view import per_hundred
from clickscore.stream.simulator.shop.live import Reactions


@click.command(cls=FormerJsonCommand)
@click.option(
    "--seconds", type=FiniteRange(1), default=None, help="Seconds until the shop closes. Default: until Ctrl-C."
)
@json_options
@click.option(
    "--bundle",
    type=BundleFolder(),
    default=None,
    help="Bundle of the model to show. Default: the bundle of the demo.",
)
@click.option(
    "--web-port",
    type=click.IntRange(0, 65_535),
    default=0,
    help="Port of the console and of the shop's page. Default: any free port.",
)
@click.option("--rate", type=FiniteRange(1, 5_000), default=200.0, show_default=True, help="Records per second.")
@click.option(
    "--bootstrap-servers",
    default=None,
    help="Your own Kafka, also from KAFKA_BOOTSTRAP_SERVERS. Default: an embedded Kafka in a temporary folder.",
)
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings file (TOML) for your own Kafka."
)
def demo(
    *,
    seconds: float | None,
    json_output: JsonOutput,
    bundle: Path | None,
    web_port: int,
    rate: float,
    bootstrap_servers: str | None,
    config: Path | None,
) -> None:
    """Run the whole system: a real Kafka, a synthetic shop with shoppers who react, a worker and a live view.

    The demo prints the addresses of two web pages: a shop where you are a shopper beside the simulated shoppers, and
    the console, which shows what is decided and why.

    Half of the shoppers get the model's recommendations, the other half popular items. Shoppers, items and purchases
    are simulated; Kafka, worker, model and all numbers are real. At the end the demo stops every process.

    \b
    Example:
      clickscore demo
      clickscore demo --seconds 60 --json-file summary.json
    """  # noqa: D301
    began_at = int(time.time() * 1000)
    settings, origins = load({"bootstrap_servers": bootstrap_servers}, file=config)
    own_kafka = origins["bootstrap_servers"] != "default"
    chosen = bundle or (DEMO_FOLDER if (DEMO_FOLDER / "manifest.json").exists() else None)
    # aiokafka warns of errors that it retries, such as a new topic without a leader; lasting errors are raised.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    console = Console(stderr=json_output.to_stdout, markup=False)
    plan = DemoOptions(
        settings=settings if own_kafka else None,
        bundle=chosen,
        seconds=seconds,
        rate=rate,
        open_web=_open_web(console),
        web_port=web_port,
    )
    summary = run_demo(plan, console, began_at)
    for line in _words(summary):
        console.print(line, soft_wrap=True, highlight=False)
    json_output.write(summary)


def _open_web(console: Console) -> Callable[[Settings], AbstractAsyncContextManager[WebPages]] | None:
    """Return what serves the web pages; None, and a hint, where the packages of the gateway are missing."""
    try:
        from clickscore.stream.gateway.server import open_gateway  # noqa: PLC0415 (the server needs the gateway extra)
    except ModuleNotFoundError as exc:
        console.print(f"Without web pages: the gateway extra is missing ({exc.name}). pip install '.[gateway]' adds it")
        return None
    return functools.partial(open_gateway, has_shop=True)


def _words(summary: Summary) -> list[str]:
    """Return the summary as sentences."""
    first, latency = summary.first_decision_s, summary.latency_ms
    lines = [
        f"{summary.events:,} events, {sum(summary.decisions.values()):,} decisions, "
        f"{summary.dead_letters:,} dead letters",
        "No decision was seen." if first is None else f"First decision after {first:.1f} s",
    ]
    if latency.p50 is not None:
        lines.append(f"From event to recommendation: p50 {latency.p50:,} ms, p99 {latency.p99:,} ms")
    lines += [
        f"{name}: {answers.impressions:,} impressions, {answers.clicks:,} clicks ({per_hundred(answers)} per 100), "
        f"{answers.purchases:,} purchases"
        for name, answers in (summary.variants | _named_shelves(summary)).items()
    ]
    return lines


def _named_shelves(summary: Summary) -> dict[str, Reactions]:
    return {f"shelf {name}": reactions for name, reactions in summary.shelves.items()}
