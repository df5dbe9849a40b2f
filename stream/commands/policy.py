"""`clickscore policy`: check, explain and compare policy files."""

import click

from clickscore.model.json_output import JsonOutput, json_options
from clickscore.stream.policy.policy_file import SHIPPED_POLICIES, load_policy
from clickscore.stream.policy.policy_words import diff_policies, explain_policy
from clickscore.stream.terminal_text import safe_text


@click.group()
def policy() -> None:
    """Check, explain and compare policies: what may be shown, how often and where.

    A policy is the name of a shipped policy (default, strict, discovery, no-ads) or the path of a TOML file.
    """


@policy.command()
@click.argument("name", metavar="FILE")
@json_options
def check(*, name: str, json_output: JsonOutput) -> None:
    """Check the policy FILE. A wrong policy is refused with a sentence and exit code 1.

    \b
    Example:
      clickscore policy check autumn.toml
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    loaded = load_policy(name)
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
