"""`clickscore gateway`: HTTP beside the topics, and its API keys."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import click

from clickscore.stream.commands.options import with_settings
from clickscore.stream.errors import SettingsError
from clickscore.stream.gateway.api_keys import ApiKey, Scope, make_key, read_keys, write_keys
from clickscore.stream.kafka.availability import wait_for_broker
from clickscore.stream.settings import Settings
from clickscore.stream.terminal_text import safe_text
from clickscore.stream.worker.logs import write_logs


@click.group(invoke_without_command=True)
@with_settings(
    "gateway_host",
    "gateway_port",
    "gateway_keys_file",
    "gateway_tls_certfile",
    "gateway_tls_keyfile",
    "gateway_cors_origins",
    "topic_prefix",
    "broker_wait_ms",
)
@click.pass_context
def gateway(context: click.Context, settings: Settings) -> None:
    """Take events and answer with decisions over HTTP, beside the topics.

    The gateway decides nothing: workers do. Run any number of gateways behind a load balancer. SIGTERM and Ctrl-C end a
    gateway cleanly.

    \b
    Example:
      clickscore gateway --gateway-port 8080
      curl http://127.0.0.1:8080/v1/users/anna/recommendations
      clickscore gateway key create web-shop --scope events --scope read
    """  # noqa: D301
    if context.invoked_subcommand:
        return
    write_logs()
    try:
        from clickscore.stream.gateway.server import run_gateway  # noqa: PLC0415 (needs the gateway extra)
    except ModuleNotFoundError as exc:
        message = f"`clickscore gateway` needs the gateway extra ({exc.name} is missing): pip install clickscore[gateway]"
        raise click.ClickException(message) from exc

    def ready(address: str) -> None:
        click.echo(f"Listening on {address}; Ctrl-C ends it", err=True)

    async def run() -> None:
        await wait_for_broker(settings.kafka)
        await run_gateway(settings, ready)

    asyncio.run(run())
