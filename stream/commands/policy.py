"""`clickscore policy`: check, explain and compare policy files."""

from pathlib import Path

import click

from clickscore.model.finite_range import FiniteRange
from clickscore.model.json_output import JsonOutput, json_options
from clickscore.model.output_file import OUTPUT_FILE
from clickscore.model.own_source import refuse_own_source
from clickscore.schemas.errors import OutputFileError
from clickscore.stream.commands.options import with_settings
from clickscore.stream.commands.progress import replay_progress_bar
from clickscore.stream.commands.replay_command import warn_of_cold_start
from clickscore.stream.commands.source_options import with_reference_files, with_source_options
from clickscore.stream.policy.policy_file import SHIPPED_POLICIES, load_policy
from clickscore.stream.policy.policy_words import diff_policies, explain_policy
from clickscore.stream.replay.decision_pass import load_scorer, watch_decisions
from clickscore.stream.replay.list_changes import ListWatch
from clickscore.stream.replay.source_options import SourceOptions
from clickscore.stream.replay.statement import write_statement
from clickscore.stream.settings import Settings
from clickscore.stream.terminal_text import safe_text


@click.group()
def policy() -> None:
    """Check, explain and compare policies: what may be shown, how often and where.

    A policy is the name of a shipped policy (default, strict, discovery, no-ads, shelves) or the path of a TOML file.

    \b
    Example:
      clickscore policy list
      clickscore policy check autumn.toml
      clickscore policy explain default
      clickscore policy diff default autumn.toml
    """  # noqa: D301


@policy.command()
@click.argument("name", metavar="FILE")
@json_options
@with_settings("max_seen")
def check(*, settings: Settings, name: str, json_output: JsonOutput) -> None:
    """Check the policy FILE. A wrong policy is refused with a sentence and exit code 1.

    So is a policy with a rule that needs a setting which is off: workers with the same settings would not start.

    \b
    Example:
      clickscore policy check autumn.toml
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    loaded = load_policy(name)
    loaded.check_settings(settings.sessions)
    json_output.write({"policy": loaded.label, "owner": loaded.owner})
    json_output.echo(safe_text(f"good: {loaded.label}, owned by {loaded.owner}"))


@policy.command()
@click.argument("name", metavar="FILE")
@json_options
def explain(*, name: str, json_output: JsonOutput) -> None:
    """Say in sentences what the policy FILE does.

    \b
    Example:
      clickscore policy explain default
    """  # noqa: D301
    loaded = load_policy(name)
    sentences = explain_policy(loaded)
    json_output.write({"policy": loaded.label, "owner": loaded.owner, "sentences": sentences})
    json_output.echo(safe_text(f"{loaded.label}, owned by {loaded.owner}:"))
    for sentence in sentences:
        json_output.echo(safe_text(f"  {sentence}"))


@policy.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="FILE")
@json_options
def diff(*, old: str, new: str, json_output: JsonOutput) -> None:
    """Say in sentences what changes from the policy OLD to the policy FILE.

    \b
    Example:
      clickscore policy diff default autumn.toml
    """  # noqa: D301
    old_policy, new_policy = load_policy(old), load_policy(new)
    changes = diff_policies(old_policy, new_policy)
    json_output.write({"from": old_policy.label, "to": new_policy.label, "changes": changes})
    json_output.echo(safe_text(f"{old_policy.label} -> {new_policy.label}"))
    for change in changes or ["Both do the same."]:
        json_output.echo(safe_text(f"  {change}"))


@policy.command()
@click.argument("name", metavar="POLICY")
@with_source_options
@with_reference_files
@click.option(
    "--share",
    type=FiniteRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the events to measure. Each is decided once for every part of the policy.",
)
@click.option(
    "--out",
    type=OUTPUT_FILE,
    help="Write the page here; default: stdout.",
)
@json_options
@with_settings(
    "bundle",
    "partitions",
    "gap_ms",
    "lateness_ms",
    "k",
    "control_share",
    "reserve",
    "topic_prefix",
    "broker_wait_ms",
)
def statement(
    *,
    settings: Settings,
    name: str,
    source_options: SourceOptions,
    share: float,
    out: Path | None,
    json_output: JsonOutput,
) -> None:
    """Write the page on the main parameters of the policy POLICY that EU law requires, in Markdown.

    SOURCE has events: a topic, kafka:clickstream-events, or a file. They pass through the worker's pipeline as in
    `clickscore replay`, but POLICY and the bundle decide on all events, also on those of a rollout. Each event is also
    decided without each part of the decision: the session, popular items, and each rule of the policy. So the page says
    how much each part matters, and has no number that was not measured. It also says what is paid for. The page answers
    Article 27 of the Digital Services Act and Article 5 of Regulation (EU) 2019/1150. Read it before you publish it:
    you answer for it, and it knows nothing of your shop but the events.

    \b
    Example:
      clickscore policy statement default kafka:clickstream-events --bundle demo --share 0.01 --out statement.md
      clickscore policy statement autumn.toml events.jsonl --catalogue items.jsonl --bundle DIR

    \f
    Args:
        settings: Settings of the worker.
        name: Name or path of the policy.
        source_options: Recorded events.
        share: Share of the events to measure.
        out: Path of the page; None for the standard output.
        json_output: Destinations of the measurements.
    """  # noqa: D301
    refuse_own_source(out, name, source_options.source, source_options.catalogue, source_options.campaigns)
    loaded, scorer = load_policy(name), load_scorer(settings)
    loaded.check_settings(settings.sessions)
    spec = source_options.resolve(settings)
    watch = ListWatch(loaded, scorer, settings.policy, share=share)
    with replay_progress_bar("policy statement") as on_progress:
        watch_decisions(
            settings,
            spec,
            (loaded, scorer),
            watch,
            lambda progress: on_progress([progress]),
            follows_rollouts=False,
        )
    changes = watch.changes()
    json_output.write(changes)
    page = write_statement(loaded, settings.policy, changes, source_options.source)
    if out is None:
        json_output.echo(safe_text(page, lines=True))
    else:
        try:
            out.write_text(page, encoding="utf-8")
        except OSError as exc:
            message = f"{out} cannot be written: {exc.strerror or exc}"
            raise OutputFileError(message) from exc
    warn_of_cold_start(spec)


@policy.command("list")
@json_options
def list_policies(*, json_output: JsonOutput) -> None:
    """List the shipped policies."""
    policies = [load_policy(name) for name in SHIPPED_POLICIES]
    json_output.write(
        [{"name": name, "policy": loaded.label} for name, loaded in zip(SHIPPED_POLICIES, policies, strict=True)]
    )
    for name, loaded in zip(SHIPPED_POLICIES, policies, strict=True):
        json_output.echo(f"{name:12}{loaded.label}")
