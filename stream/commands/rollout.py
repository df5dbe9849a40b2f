"""`clickscore rollout`: say which bundles of the bundle store decide, without a restart."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import click
import msgspec

from clickscore.model.finite_range import FiniteRange
from clickscore.model.json_output import JsonOutput, json_options
from clickscore.schemas.durations import MINUTE_MS
from clickscore.schemas.manifest import version_of
from clickscore.schemas.outcome_counts import PartitionReport, ShadowCounts, VariantCounts
from clickscore.schemas.rollouts import Rollout
from clickscore.stream.commands.bundle import open_store
from clickscore.stream.commands.options import with_settings
from clickscore.stream.errors import RolloutError
from clickscore.stream.kafka.rollout_log import read_rollouts, write_rollout
from clickscore.stream.policy.policy_file import load_policy, read_policy_text
from clickscore.stream.policy.rollout_guard import add_up, judge, summarise
from clickscore.stream.policy.rollout_steps import MAX_RAMP_STEPS, RAMP_STEPS, promote, roll_back, start_ramp
from clickscore.stream.policy.shadow import summarise_shadow
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.settings import Settings
from clickscore.stream.terminal_text import safe_text
from clickscore.stream.worker.logs import write_logs
from clickscore.stream.worker.rollouts import short_name

DEFAULT_STEPS = ",".join(f"{100 * step:g}" for step in RAMP_STEPS)
DEFAULT_STEP_MINUTES = 60

_settings = with_settings("rollout", "bundle_store", "topic_prefix", "broker_wait_ms")
_reason = click.option("--reason", default="by command", show_default=True, help="Why, for `rollout status` and logs.")


class Shares(click.ParamType):
    """Shares of a ramp in percent, separated by commas."""

    name = "percent,..."

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the shares, from 0 to 1.

        Args:
            value: Text of the option.
            param: The option.
            ctx: Context of the command.
        """
        try:
            return tuple(float(part) / 100 for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of percentages such as {DEFAULT_STEPS}", param, ctx)


@click.group()
def rollout() -> None:
    """Change the bundle that decides while workers run: try a bundle on a few users, ramp it up, take it back.

    Workers with a bundle store (`bundle_store`) follow the rollout. A worker fetches, checks and loads a new bundle
    in the background; then it changes over between two events. A bundle that fails its check is refused, and the
    champion goes on.

    \b
    Example:
      clickscore bundle push bundle                  # put the bundle into the store
      clickscore rollout set 3f9ac2                  # champion: decides for everybody
      clickscore rollout ramp 8d01fe                 # challenger: 1, 5, 25, 100 % of the users
      clickscore rollout status
      clickscore rollout rollback
    """  # noqa: D301 (\\b tells click to keep the line breaks)


@rollout.command("set")
@click.argument("champion")
@click.option("--challenger", help="Version of another bundle, for a share of the users or of the events.")
@click.option("--share", type=FiniteRange(0, 100), default=0.0, help="Users who get the challenger, %.")
@click.option(
    "--shadow-share", type=FiniteRange(0, 100), default=0.0, help="Events that it scores without deciding, %."
)
@click.option(
    "--policy-file",
    help="Policy of all decisions: a shipped policy or a TOML file, which goes into the bundle store. "
    "Default: no change.",
)
@click.option("--own-policy", is_flag=True, help="Go back to the policy of each worker's own settings.")
@_reason
@_settings
@json_options
def set_command(
    *,
    champion: str,
    challenger: str | None,
    share: float,
    shadow_share: float,
    policy_file: str | None,
    own_policy: bool,
    reason: str,
    settings: Settings,
    json_output: JsonOutput,
) -> None:
    """Let the bundle CHAMPION decide: a version of the bundle store, at least 6 digits of its content hash.

    \b
    Example:
      clickscore rollout set 3f9ac2
      clickscore rollout set 3f9ac2 --challenger 8d01fe --share 5     # 5 % of the users get 8d01fe
      clickscore rollout set 3f9ac2 --challenger 8d01fe --shadow-share 10   # scores 10 % of the events, decides on none
      clickscore rollout set 3f9ac2 --policy-file autumn.toml         # another policy, without a restart

    \f
    Args:
        champion: Version of the champion.
        challenger: Version of the challenger, if any.
        share: Users who get the challenger, %.
        shadow_share: Events that the challenger scores without deciding, %.
        policy_file: Name or path of the policy.
        own_policy: Whether each worker decides with the policy of its own settings.
        reason: Why, in words.
        settings: Bundle store and connection.
        json_output: Destinations of the results.
    """  # noqa: D301
    if (share or shadow_share) and not challenger:
        message = "--share and --shadow-share need a --challenger"
        raise RolloutError(message)
    store = open_store(settings)
    champion_hash = store.find(champion).manifest.content_hash
    challenger_hash = store.find(challenger).manifest.content_hash if challenger else None
    if champion_hash == challenger_hash:
        message = "champion and challenger are the same bundle"
        raise RolloutError(message)
    label = _push_policy(store, policy_file) if policy_file else None

    def change(present: Rollout | None, now_ms: int) -> Rollout:
        replaced = present is not None and present.champion != champion_hash
        return Rollout(
            name=settings.scoring.rollout,
            champion=champion_hash,
            challenger=challenger_hash,
            share=share / 100,
            shadow_share=shadow_share / 100,
            policy=None if own_policy else label or (present.policy if present else None),
            former=(present.champion if replaced else present.former) if present else None,
            changed_at=now_ms,
            reason=f"set: {reason}",
        )

    _change(settings, json_output, change)


@rollout.command()
@click.argument("challenger")
@click.option(
    "--steps",
    type=Shares(),
    default=DEFAULT_STEPS,
    show_default=True,
    help=f"Users of each step, %; at most {MAX_RAMP_STEPS} steps.",
)
@click.option(
    "--step-minutes",
    type=FiniteRange(0.01),
    default=DEFAULT_STEP_MINUTES,
    show_default=True,
    help="Shortest time between two steps, minutes.",
)
@_settings
@json_options
def ramp(
    *, challenger: str, steps: tuple[float, ...], step_minutes: float, settings: Settings, json_output: JsonOutput
) -> None:
    """Try the bundle CHALLENGER on a growing share of the users; it becomes champion at the end.

    A user who gets the challenger keeps it in all later steps. Workers compare the two bundles every few seconds and
    roll the challenger back by themselves if its graph fails or is slow, if popular items fill many of its places, if
    it brings fewer clicks or purchases, or if its predictions are worse. `rollout status` says why.

    \b
    Example:
      clickscore rollout ramp 8d01fe
      clickscore rollout ramp 8d01fe --steps 10,50,100 --step-minutes 30

    \f
    Args:
        challenger: Version of the challenger.
        steps: Shares of the users, 0 to 1.
        step_minutes: Shortest time between two steps, minutes.
        settings: Bundle store and connection.
        json_output: Destinations of the results.
    """  # noqa: D301
    content_hash = open_store(settings).find(challenger).manifest.content_hash
    step_ms = round(step_minutes * MINUTE_MS)
    _change(
        settings,
        json_output,
        lambda present, now_ms: start_ramp(_existing(settings, present), content_hash, steps, step_ms, now_ms),
    )


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
    """Show the rollout: champion, challenger, shares, why it was changed last, and how the two bundles compare.

    \b
    Example:
      clickscore rollout status
      clickscore rollout status --json
    """  # noqa: D301
    write_logs()
    table = asyncio.run(read_rollouts(settings.kafka))
    shown = _existing(settings, table.rollouts.get(settings.scoring.rollout))
    _show(json_output, shown, table.reports(shown))


def _push_policy(store: BundleStore, name: str) -> str:
    """Put a policy into the bundle store, and return its label.

    Args:
        store: The bundle store.
        name: Name of a shipped policy, or path of a policy file.
    """
    label = load_policy(name).label
    store.push_policy(label, read_policy_text(name))
    return label


def _change(settings: Settings, json_output: JsonOutput, change: Callable[[Rollout | None, int], Rollout]) -> None:
    """Change the rollout of the settings, and show it.

    Args:
        settings: Name of the rollout, and connection.
        json_output: Destinations of the results.
        change: Returns the new rollout, from the present one and the time in ms.

    Raises:
        RolloutError: The rollout cannot be changed in this way.
    """
    write_logs()
    if "/" in settings.scoring.rollout:
        message = f"the name of a rollout has no slash, and {settings.scoring.rollout!r} has one"
        raise RolloutError(message)
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


def _show(output: JsonOutput, shown: Rollout, reports: Mapping[int, PartitionReport] | None = None) -> None:
    """Print a rollout, and what its partitions report.

    Args:
        output: Destinations of the results.
        shown: The rollout.
        reports: Report of each partition; None where the rollout was changed just now.
    """
    champion, challenger = add_up(reports.values()) if reports else (VariantCounts(), VariantCounts())
    verdict = judge(shown, champion, challenger, int(time.time() * 1000)) if shown.challenger and reports else None
    shadow = ShadowCounts()
    for report in (reports or {}).values():
        shadow.add(report.shadow)
    refused = {bundle: reason for report in (reports or {}).values() for bundle, reason in report.refused.items()}
    output.write(
        msgspec.to_builtins(shown)
        | {
            "refused": refused,
            "counts": {"champion": summarise(champion), "challenger": summarise(challenger)} if reports else {},
            "shadow": summarise_shadow(shadow) if shadow.events else {},
            "guard": verdict.reason if verdict else None,
        }
    )
    _show_rollout(output, shown)
    for bundle, reason in refused.items():
        output.echo(f"{short_name(bundle)} is refused: {safe_text(reason)}")
    _show_measures(output, "champion", summarise(champion) if champion.decisions else {})
    _show_measures(output, "challenger", summarise(challenger) if challenger.decisions else {})
    _show_measures(output, "shadow", summarise_shadow(shadow) if shadow.events else {})
    if verdict:
        output.echo(f"guard: {safe_text(verdict.reason)}")


def _show_rollout(output: JsonOutput, shown: Rollout) -> None:
    output.echo(f"rollout {safe_text(shown.name)}: champion {version_of(shown.champion)}")
    if shown.challenger:
        output.echo(f"challenger {version_of(shown.challenger)} for {100 * shown.share:g} % of the users")
    if shown.shadow_share:
        output.echo(f"the challenger scores {100 * shown.shadow_share:g} % of the events without deciding")
    if shown.step_ms:
        steps = ", ".join(f"{100 * step:g}" for step in shown.steps)
        output.echo(f"then {steps} % and champion" if steps else "then champion")
    if shown.policy:
        output.echo(f"policy {safe_text(shown.policy)}")
    if shown.former:
        output.echo(f"former champion {version_of(shown.former)}")
    changed = datetime.fromtimestamp(shown.changed_at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    output.echo(f"changed {changed}: {safe_text(shown.reason)}")


def _show_measures(output: JsonOutput, name: str, measures: Mapping[str, float]) -> None:
    """Print measures on a line; nothing where there are none.

    Args:
        output: Destinations of the results.
        name: First word of the line.
        measures: Values by name.
    """
    if measures:
        output.echo(f"{name}: {', '.join(f'{measure} {value:.4g}' for measure, value in measures.items())}")
