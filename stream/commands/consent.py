"""`clickscore consent`: send what users say about the use of their data."""

import asyncio
import time
import uuid
from collections.abc import Sequence

import click

from clickscore.schemas.events import Consent
from clickscore.schemas.purposes import PURPOSES, Purpose
from clickscore.stream.commands.options import with_settings
from clickscore.stream.errors import SettingsError
from clickscore.stream.kafka.erasure import send_records
from clickscore.stream.settings import Settings
from clickscore.stream.worker.logs import user_hash, write_logs

ALL = "all"


def _expand(_: click.Context, __: click.Parameter, names: Sequence[str]) -> tuple[Purpose, ...]:
    """Return the purposes that are named, in order; `all` names every purpose."""
    return tuple(purpose for purpose in PURPOSES if purpose in names or ALL in names)


@click.command()
@click.argument("users", metavar="USER...", nargs=-1, required=True)
@click.option(
    "--grant",
    "granted",
    type=click.Choice((*PURPOSES, ALL)),
    multiple=True,
    callback=_expand,
    help="Purpose to which the users agree; may be given several times.",
)
@click.option(
    "--withdraw",
    "withdrawn",
    type=click.Choice((*PURPOSES, ALL)),
    multiple=True,
    callback=_expand,
    help="Purpose to which the users no longer agree; may be given several times.",
)
@click.option(
    "--everywhere",
    is_flag=True,
    help="Send to all partitions, for a shop whose producers do not use murmur2 of the user id.",
)
@with_settings("topic_prefix", "broker_wait_ms")
def consent(
    *,
    settings: Settings,
    users: Sequence[str],
    granted: tuple[Purpose, ...],
    withdrawn: tuple[Purpose, ...],
    everywhere: bool,
) -> None:
    """Say that each USER grants or withdraws consent: one `consent` event a user, which holds from the next event on.

    \b
    Example:
      clickscore consent anna --withdraw ads --withdraw training
      clickscore consent anna bert --grant all

    \f
    Args:
        settings: Connection, and names of topics.
        users: Ids of the users.
        granted: Purposes that the users grant.
        withdrawn: Purposes that the users withdraw.
        everywhere: Whether the events go to all partitions.
    """  # noqa: D301
    write_logs()
    now = int(time.time() * 1000)
    try:
        statements = [
            Consent(event_id=f"consent-{uuid.uuid4()}", user_id=user, ts=now, granted=granted, withdrawn=withdrawn)
            for user in users
        ]
    except ValueError as exc:
        message = f"{exc}. Name purposes with --grant and --withdraw"
        raise SettingsError(message) from exc
    asyncio.run(send_records(settings.kafka, statements, everywhere=everywhere))
    for user in users:
        click.echo(f"Sent the consent of the user with the hash {user_hash(user.encode())}")
