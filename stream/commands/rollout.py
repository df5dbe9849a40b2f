"""`clickscore rollout`: say which bundles of the bundle store decide, without a restart."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import click
import msgspec

from clickscore.model.json_output import JsonOutput, json_options
from clickscore.schemas.manifest import version_of
from clickscore.schemas.rollouts import Rollout
from clickscore.stream.commands.bundle import open_store
from clickscore.stream.commands.options import with_settings
from clickscore.stream.errors import RolloutError
from clickscore.stream.kafka.rollout_log import read_rollouts, write_rollout
from clickscore.stream.policy.rollout_steps import promote, roll_back
from clickscore.stream.settings import Settings
from clickscore.stream.terminal_text import safe_text
from clickscore.stream.worker.logs import write_logs

_settings = with_settings("rollout", "bundle_store", "topic_prefix", "broker_wait_ms")
_reason = click.option("--reason", default="by command", show_default=True, help="Why, for `rollout status` and logs.")


@click.group()
def rollout() -> None:
    """Change the bundle that decides while workers run: try a bundle on a few users, promote it, take it back.

    Workers with a bundle store (`bundle_store`) follow the rollout. A worker fetches, checks and loads a new bundle
    in the background; then it changes over between two events. A bundle that fails its check is refused, and the
    champion goes on.

    \b
    Example:
      clickscore bundle push bundle                  # put the bundle into the store
      clickscore rollout set 3f9ac2                  # champion: decides for everybody
      clickscore rollout set 3f9ac2 --challenger 8d01fe --share 5      # a canary: 5 % of the users get 8d01fe
      clickscore rollout status
      clickscore rollout promote                     # the challenger becomes champion; or: rollout rollback
    """  # noqa: D301 (\\b tells click to keep the line breaks)


@rollout.command("set")
@click.argument("champion")
@click.option("--challenger", help="Version of another bundle, for a share of the users or of the events.")
@click.option("--share", type=click.FloatRange(0, 100), default=0.0, help="Users who get the challenger, %.")
@_reason
@_settings
@json_options
def set_command(
    *,
    champion: str,
    challenger: str | None,
    share: float,
    reason: str,
    settings: Settings,
    json_output: JsonOutput,
) -> None:
    """Let the bundle CHAMPION decide: a version of the bundle store, at least 6 digits of its content hash.

    \b
    Example:
      clickscore rollout set 3f9ac2
      clickscore rollout set 3f9ac2 --challenger 8d01fe --share 5     # 5 % of the users get 8d01fe

    \f
    Args:
        champion: Version of the champion.
        challenger: Version of the challenger, if any.
        share: Users who get the challenger, %.
        reason: Why, in words.
        settings: Bundle store and connection.
        json_output: Destinations of the results.
    """  # noqa: D301
    if share and not challenger:
        message = "--share needs a --challenger"
        raise RolloutError(message)
    store = open_store(settings)
    champion_hash = store.find(champion).manifest.content_hash
    challenger_hash = store.find(challenger).manifest.content_hash if challenger else None

    def change(present: Rollout | None, now_ms: int) -> Rollout:
        replaced = present is not None and present.champion != champion_hash
        return Rollout(
            name=settings.scoring.rollout,
            champion=champion_hash,
            challenger=challenger_hash,
            share=share / 100,
            former=(present.champion if replaced else present.former) if present else None,
            changed_at=now_ms,
            reason=f"set: {reason}",
        )

    _change(settings, json_output, change)


@rollout.command("promote")
@_reason
@_settings
@json_options
def promote_command(*, reason: str, settings: Settings, json_output: JsonOutput) -> None:
    """Make the challenger the champion, for all users.

    \b
    Example:
      clickscore rollout promote --reason "more clicks in the canary"
    """  # noqa: D301
    _change(settings, json_output, lambda present, now_ms: promote(_existing(settings, present), now_ms, reason))


@rollout.command()
@_reason
@_settings
@json_options
def rollback(*, reason: str, settings: Settings, json_output: JsonOutput) -> None:
    """Take the challenger back; without a challenger, bring the former champion back.

    \b
    Example:
      clickscore rollout rollback --reason "strange items on the start page"
    """  # noqa: D301
    _change(settings, json_output, lambda present, now_ms: roll_back(_existing(settings, present), now_ms, reason))


@rollout.command()
@_settings
@json_options
def status(*, settings: Settings, json_output: JsonOutput) -> None:
    """Show the rollout: champion, challenger, shares, and why it was changed last.

    \b
    Example:
      clickscore rollout status
      clickscore rollout status --json
    """  # noqa: D301
    write_logs()
    _show(json_output, _existing(settings, _read(settings)))


def _change(settings: Settings, json_output: JsonOutput, change: Callable[[Rollout | None, int], Rollout]) -> None:
    """Change the rollout of the settings, and show it.

    Args:
        settings: Name of the rollout, and connection.
        json_output: Destinations of the results.
        change: Returns the new rollout, from the present one and the time in ms.
    """
    write_logs()
    changed = change(_read(settings), int(time.time() * 1000))
    asyncio.run(write_rollout(settings.kafka, changed))
    _show(json_output, changed)


def _read(settings: Settings) -> Rollout | None:
    return asyncio.run(read_rollouts(settings.kafka)).rollouts.get(settings.scoring.rollout)


def _existing(settings: Settings, present: Rollout | None) -> Rollout:
    """Return the rollout.

    Raises:
        RolloutError: There is none yet.
    """
    if present is None:
        name = settings.scoring.rollout
        message = f"there is no rollout {name} yet. `clickscore rollout set VERSION` starts it with a champion"
        raise RolloutError(message)
    return present


def _show(output: JsonOutput, shown: Rollout) -> None:
    output.write(msgspec.structs.asdict(shown))
    output.echo(f"rollout {safe_text(shown.name)}: champion {version_of(shown.champion)}")
    if shown.challenger:
        output.echo(f"challenger {version_of(shown.challenger)} for {100 * shown.share:g} % of the users")
    if shown.former:
        output.echo(f"former champion {version_of(shown.former)}")
    changed = datetime.fromtimestamp(shown.changed_at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    output.echo(f"changed {changed}: {safe_text(shown.reason)}")
