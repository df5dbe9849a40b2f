"""`clickscore identify`: say that an anonymous id is a user."""

import asyncio
import time
import uuid

import click

from clickscore.schemas.events import Identify
from clickscore.stream.commands.options import with_settings
from clickscore.stream.errors import SettingsError
from clickscore.stream.kafka.erasure import send_records
from clickscore.stream.settings import Settings
from clickscore.stream.worker.logs import user_hash, write_logs


@click.command()
@click.argument("anonymous_id", metavar="ANONYMOUS")
@click.argument("user", metavar="USER")
@with_settings("topic_prefix", "broker_wait_ms")
def identify(*, settings: Settings, anonymous_id: str, user: str) -> None:
    """Say that the id ANONYMOUS is USER: the user takes over what the anonymous id has done in its open session.

    \b
    Example:
      clickscore identify cookie-81f anna

    \f
    Args:
        settings: Connection, and names of topics.
        anonymous_id: The anonymous id.
        user: Id of the user.
    """  # noqa: D301
    write_logs()
    ts = int(time.time() * 1000)
    try:
        event = Identify(event_id=f"identify-{uuid.uuid4()}", user_id=anonymous_id, ts=ts, identified_as=user)
    except ValueError as exc:
        message = f"{exc}. Name the anonymous id first, and then the user"
        raise SettingsError(message) from exc
    asyncio.run(send_records(settings.kafka, [event], everywhere=False))
    hashes = user_hash(anonymous_id.encode()), user_hash(user.encode())
    click.echo("The id with the hash {} is the user with the hash {}: sent".format(*hashes))
