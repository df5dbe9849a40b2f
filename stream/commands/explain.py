"""`clickscore explain`: make past decisions again from the topics, compare them, and say why they came out so."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from clickscore.model.bundle_folder import BundleFolder
from clickscore.model.json_output import JsonOutput, json_options
from clickscore.schemas.explanations import Explanation, Verdict
from clickscore.stream.commands.options import with_settings
from clickscore.stream.commands.progress import replay_progress_bar
from clickscore.stream.replay.explain import explain_decisions, open_explainer
from clickscore.stream.replay.explanation_text import describe_briefly, describe_explanation
from clickscore.stream.settings import Settings
from clickscore.stream.worker.logs import user_hash, write_logs

STANDARD_INPUT = "-"
FAILURES: frozenset[Verdict] = frozenset(("different", "not recomputed"))
"""Verdicts that end the command with exit code 1."""


@click.command()
@click.argument("ids", metavar="DECISION_ID...", nargs=-1, required=True)
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    type=BundleFolder(),
    help="Folder of a bundle. A decision that names another bundle is also tried with this one; repeatable.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="POLICY",
    help="File of a policy that was in use; repeatable. The shipped policies are known.",
)
@click.option(
    "--what-if", multiple=True, metavar="POLICY", help="Also say what this policy would have decided; repeatable."
)
@click.option(
    "--warm-up",
    type=click.IntRange(0),
    metavar="RECORDS",
    help="Read only so many records before the first decision of a partition; by default all. Equal bytes prove that "
    "they were enough.",
)
@click.option("--brief", is_flag=True, help="Print one line for each decision.")
@json_options
@with_settings("bundle_store", "topic_prefix", "broker_wait_ms")
def explain(
    *,
    settings: Settings,
    ids: Sequence[str],
    bundles: Sequence[Path],
    policies: Sequence[str],
    what_if: Sequence[str],
    warm_up: int | None,
    brief: bool,
    json_output: JsonOutput,
) -> None:
    """Make past decisions again from the topics, compare them with the published records, and explain them.

    DECISION_ID is the id of a recommendation or, with -ad at its end, of an ad; - reads ids from standard input, one a
    line. The events of the partition are read from their beginning. Bundle and policy are those of the decision: a
    bundle comes from --bundle, from the setting bundle or from the bundle store, a policy from --policy, from the
    setting policy, from the package or from the bundle store.

    The exit code is 1 if a decision differs from its published record, or cannot be made again.

    \b
    Example:
      clickscore explain clickstream-events-2-1017 --bundle demo
      clickscore explain clickstream-events-2-1017-ad --bundle-store /srv/bundles --what-if strict
      clickscore tail recommendation-decisions --json --until-end | jq -r .decision_id | clickscore explain - --brief

    \f
    Args:
        settings: Connection, and the settings of the worker.
        ids: Ids of decisions.
        bundles: Folders of bundles.
        policies: Policies that were in use.
        what_if: Policies to try.
        warm_up: Number of records to read before the first decision of a partition; None for all.
        brief: Whether to print a line for each decision.
        json_output: Destinations of the results.
    """  # noqa: D301 (\\b is click's mark for lines without wrapping)
    write_logs()
    verdicts: Counter[Verdict] = Counter()
    lines: list[str] = []
    explanations: list[Explanation] = []
    with (
        open_explainer(settings, bundles=bundles, policies=policies, what_if=what_if) as explainer,
        replay_progress_bar("explain") as on_progress,
    ):
        texts = list(_read_ids(ids))
        for explanation in explain_decisions(
            settings, explainer, texts, lambda progress: on_progress([progress]), warm_up=warm_up
        ):
            verdicts[explanation.verdict] += 1
            if json_output.to_stdout or json_output.file:
                explanations.append(explanation)
            if not json_output.to_stdout:
                lines.append(describe_briefly(explanation) if brief else _describe(explanation))
    if lines:  # after the progress bar, which would run through the text
        click.echo(("\n" if brief else "\n\n").join(lines))
    json_output.write(explanations)
    if verdicts.total() > 1:
        click.echo(", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.most_common()), err=True)
    if verdicts.keys() & FAILURES:
        sys.exit(1)


def _read_ids(ids: Sequence[str]) -> Iterator[str]:
    """Yield the ids of the command line; `-` stands for the lines of standard input."""
    for text in ids:
        if text == STANDARD_INPUT:
            yield from (line.strip() for line in click.get_text_stream("stdin", errors="replace") if line.strip())
        else:
            yield text


def _describe(explanation: Explanation) -> str:
    event = explanation.event
    return describe_explanation(explanation, f"user {user_hash(event.user_id.encode())}" if event else "")
