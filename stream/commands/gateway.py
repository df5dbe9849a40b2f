"""`clickscore gateway`: HTTP beside the topics, and its API keys."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import click
import uvloop

from clickscore.stream.commands.options import with_settings
from clickscore.stream.errors import ExtraMissingError, SettingsError
from clickscore.stream.gateway.api_keys import ApiKey, Scope, make_key, make_user_key, read_keys, write_keys
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
    "gateway_console",
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
      clickscore gateway key create web-shop --scope events --scope read --gateway-keys-file keys.json
    """  # noqa: D301
    if context.invoked_subcommand:
        return
    write_logs(settings.worker.log_format)
    try:
        from clickscore.stream.gateway.server import run_gateway  # noqa: PLC0415 (the server needs the gateway extra)
    except ModuleNotFoundError as exc:
        message = f"`clickscore gateway` needs the gateway extra ({exc.name} is missing): pip install '.[gateway]'"
        raise ExtraMissingError(message) from exc

    def ready(address: str) -> None:
        click.echo(f"Listening on {address}; Ctrl-C ends it", err=True)
        if settings.gateway.gateway_console == "on":
            click.echo(f"The console is at {address}/console", err=True)

    async def run() -> None:
        await wait_for_broker(settings.kafka)
        await run_gateway(settings, ready)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@gateway.group()
def key() -> None:
    """Make, list and remove API keys. The file of keys has only a hash of each key.

    \b
    Example:
      clickscore gateway key create web-shop --scope events --scope read --gateway-keys-file keys.json
      clickscore gateway key list --gateway-keys-file keys.json
      clickscore gateway key remove 4f1c20a9b3d7 --gateway-keys-file keys.json
    """  # noqa: D301


@key.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(get_args(Scope)),
    multiple=True,
    required=True,
    help="Right of the key; may be given several times. events: send events. read: read decisions. "
    "admin: read metrics, erase users, promote and roll back rollouts.",
)
@click.option("--rate", type=click.IntRange(min=1), help="Requests and events a second. Default: gateway_rate.")
@with_settings("gateway_keys_file", broker=False)
def create(settings: Settings, name: str, scopes: tuple[Scope, ...], rate: int | None) -> None:
    """Make a key for NAME, add it to the file of keys, and print the key once.

    A running gateway reads the file again within 5 seconds.

    \b
    Example:
      clickscore gateway key create web-shop --scope events --scope read --gateway-keys-file keys.json

    \f
    Args:
        settings: Settings with the file of keys.
        name: User of the key.
        scopes: Rights of the key.
        rate: Requests and events a second; None for the setting.
    """  # noqa: D301
    path = _keys_file(settings)
    keys = read_keys(path) if path.exists() else []
    new_key = make_key(name, scopes, datetime.now(UTC).isoformat(timespec="seconds"), rate)
    write_keys(path, [*keys, new_key.stored])
    click.echo(new_key.text)
    click.echo(f"This key is shown once; {path} has only its hash. Send it as `Authorization: Bearer KEY`", err=True)


@key.command("user")
@click.argument("user_id")
@click.option("--seconds", type=click.IntRange(min=1), default=3600, show_default=True, help="Life of the user key.")
def derive_user_key(user_id: str, seconds: int) -> None:
    """Read an API key from standard input, and print a key for USER_ID alone, which a web page can hold.

    \b
    Example:
      clickscore gateway key user anna --seconds 600 < shop.key
    """  # noqa: D301
    text = click.get_text_stream("stdin").readline().strip()
    click.echo(make_user_key(text, user_id, int(time.time()) + seconds))


@key.command("list")
@with_settings("gateway_keys_file", broker=False)
def list_keys(settings: Settings) -> None:
    """List the keys: id, name, rights and time of creation.

    \b
    Example:
      clickscore gateway key list --gateway-keys-file keys.json
    """  # noqa: D301
    for stored in read_keys(_keys_file(settings)):
        click.echo(_describe(stored))


@key.command()
@click.argument("key_id")
@with_settings("gateway_keys_file", broker=False)
def remove(settings: Settings, key_id: str) -> None:
    """Remove the key with the id KEY_ID. A running gateway refuses it within 5 seconds.

    \b
    Example:
      clickscore gateway key remove 4f1c20a9b3d7 --gateway-keys-file keys.json
    """  # noqa: D301
    path = _keys_file(settings)
    keys = read_keys(path)
    remaining = [stored for stored in keys if stored.key_id != key_id]
    if len(remaining) == len(keys):
        raise click.ClickException(f"{path} has no key {key_id}: `clickscore gateway key list` shows all")
    write_keys(path, remaining)


def _keys_file(settings: Settings) -> Path:
    """Return the file of keys.

    Raises:
        SettingsError: The setting is empty.
    """
    if not settings.gateway.gateway_keys_file:
        message = "gateway_keys_file is empty: name the file of keys, such as --gateway-keys-file keys.json"
        raise SettingsError(message)
    return Path(settings.gateway.gateway_keys_file)


def _describe(stored: ApiKey) -> str:
    rate = f", {stored.rate}/s" if stored.rate else ""
    return safe_text(
        f"{stored.key_id}  {stored.name}  {', '.join(stored.scopes)}{rate}, created at {stored.created_at}"
    )
