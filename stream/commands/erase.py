"""`clickscore erase`: have users forgotten, and list what remains of them in topics."""

import asyncio
import sys
import time
import uuid
from collections.abc import Mapping, Sequence

import click

from clickscore.model.finite_range import FiniteRange
from clickscore.model.json_output import JsonOutput, json_options
from clickscore.schemas.events import Erase
from clickscore.stream.commands.options import with_settings
from clickscore.stream.kafka.erasure import (
    Erasure,
    RemainingIds,
    await_receipts,
    following_receipts,
    list_remains,
    pending_erasures,
    publish_remains,
    send_records,
)
from clickscore.stream.settings import KafkaSettings, Settings
from clickscore.stream.worker.logs import user_hash, write_logs

WAIT_SECONDS = 60.0
"""Default wait for the receipts of workers, s: a worker that is not behind answers within a second."""


@click.command()
@click.argument("users", metavar="USER...", nargs=-1)
@click.option(
    "--pending",
    is_flag=True,
    help="Send nothing; list what remains of users whose `erase` event a worker has answered, but no list followed.",
)
@click.option(
    "--wait-s",
    type=FiniteRange(min=0),
    default=WAIT_SECONDS,
    show_default=True,
    help="How long to wait for the receipts of the workers, in seconds.",
)
@json_options
@with_settings("topic_prefix", "broker_wait_ms")
def erase(*, settings: Settings, users: Sequence[str], pending: bool, wait_s: float, json_output: JsonOutput) -> None:
    """Have each USER forgotten: send an `erase` event to every partition, and wait for the receipts of the workers.

    Then the ids of the users' decisions, ads and closed sessions that still lie in topics are written to
    `erasure-receipts`, so that a shop can delete what it made of them. The exit code is 1 if a receipt is missing: then
    start the workers, and run the command with --pending.

    \b
    Example:
      clickscore erase anna
      clickscore erase --pending

    \f
    Args:
        settings: Connection, and names of topics.
        users: Ids of the users.
        pending: Whether nothing is sent, and only unfinished erasures are listed.
        wait_s: Wait for the receipts, s.
        json_output: Where the results go as JSON.
    """  # noqa: D301
    if bool(users) == pending:
        raise click.UsageError("name users, or --pending without users")
    write_logs()
    if pending:
        erasures, unanswered = asyncio.run(pending_erasures(settings.kafka)), list[str]()
    else:
        erasures, unanswered = asyncio.run(_erase(settings.kafka, list(dict.fromkeys(users)), wait_s))
    answered = [erasure for event_id, erasure in erasures.items() if event_id not in unanswered]
    remains = asyncio.run(_finish(settings.kafka, answered)) if answered else {}
    for erasure in answered:
        ids = remains[erasure.event_id]
        json_output.echo(
            f"The user with the hash {user_hash(erasure.user_id.encode())} is forgotten; in topics remain "
            f"{len(ids.decisions):,} decisions, {len(ids.ads):,} ads and {len(ids.sessions):,} closed sessions"
        )
    json_output.write({event_id: _ids(ids) for event_id, ids in remains.items()})
    if unanswered:
        click.echo(
            f"No worker answered for {len(unanswered):,} users within {wait_s:.0f} s. The events are sent, and count "
            "as soon as a worker comes to them: start a worker, then run `clickscore erase --pending`",
            err=True,
        )
        sys.exit(1)


async def _erase(settings: KafkaSettings, users: Sequence[str], wait_s: float) -> tuple[dict[str, Erasure], list[str]]:
    """Send the events and wait; return the erasures by event id, and the ids of the events without all receipts."""
    now = int(time.time() * 1000)
    events = [Erase(event_id=f"erase-{uuid.uuid4()}", user_id=user, ts=now) for user in users]
    erasures = {event.event_id: Erasure(event.event_id, event.user_id) for event in events}
    async with following_receipts(settings) as reader:
        partitions = await send_records(settings, events, everywhere=True)
        return erasures, await await_receipts(reader, erasures, partitions, wait_s)


async def _finish(settings: KafkaSettings, erasures: Sequence[Erasure]) -> Mapping[str, RemainingIds]:
    """List what remains, and write the lists to the topic of receipts."""
    remains = await list_remains(settings, erasures)
    await publish_remains(settings, erasures, remains)
    return remains


def _ids(ids: RemainingIds) -> dict[str, list[str]]:
    return {"decisions": ids.decisions, "ads": ids.ads, "sessions": ids.sessions}
