"""`clickscore outcomes`: what became of decisions: report on the topic, and recompute outcomes from recorded events."""

import asyncio
from functools import partial
from pathlib import Path

import click
from rich.table import Table

from clickscore.model.json_output import JsonOutput, json_options
from clickscore.schemas.topics import DECISION_OUTCOMES
from clickscore.stream.commands.options import with_settings
from clickscore.stream.commands.replay_command import replay_with_progress
from clickscore.stream.commands.source_options import with_reference_files, with_replay_options
from clickscore.stream.kafka.availability import wait_for_broker
from clickscore.stream.kafka.log_reader import open_reader
from clickscore.stream.kafka.topics import count_partitions
from clickscore.stream.replay.outcome_report import OutcomeReport, ReportedRatio, ReportRow
from clickscore.stream.replay.outcome_source import read_file_outcomes, read_topic_outcomes
from clickscore.stream.replay.run import ReplayOptions
from clickscore.stream.replay.source_options import SourceOptions
from clickscore.stream.settings import KafkaSettings, Settings
from clickscore.stream.terminal_text import safe_text

TITLES = {"variant": "Variants", "placement": "Placements", "campaign": "Campaigns"}
"""Title of the table of each group."""
REPORT_COLUMNS = 150
"""Width of the tables: a narrower one would cut the numbers."""


@click.group()
def outcomes() -> None:
    """Report what became of decisions: impressions, clicks, orders and money.

    \b
    Example:
      clickscore outcomes report
      clickscore outcomes replay kafka:clickstream-events --bundle demo --out outcomes.jsonl.gz
    """  # noqa: D301


@outcomes.command()
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(allow_dash=True, path_type=Path))
@json_options
@with_settings("topic_prefix", "broker_wait_ms")
def report(*, settings: Settings, files: tuple[Path, ...], json_output: JsonOutput) -> None:
    """Report on FILEs of outcomes, or without any on the topic decision-outcomes up to its present end.

    By variant, placement and campaign: all clicks and valid clicks, orders, revenue, gross and net price of ads. Click
    rates have 95 % intervals over users; with --json, so have orders and revenue per decision of each variant. A file
    has JSON lines, as `clickscore outcomes replay` and `clickscore tail --json` write them.

    \b
    Example:
      clickscore outcomes report
      clickscore outcomes replay kafka:clickstream-events --bundle demo --out outcomes.jsonl.gz
      clickscore outcomes report outcomes.jsonl.gz --json

    \f
    Args:
        settings: Connection, and names of topics.
        files: Files of outcomes; none for the topic.
        json_output: Destinations of the report as JSON.
    """  # noqa: D301
    made = OutcomeReport()
    for file in files:
        for outcome in read_file_outcomes(file):
            made.add(outcome)
    if not files:
        asyncio.run(_read_topic(settings.kafka, made))
    rows = made.rows()
    json_output.write(rows)
    console = json_output.console(width=REPORT_COLUMNS)
    for group, title in TITLES.items():
        if any(row.group == group for row in rows):
            console.print(_table(title, [row for row in rows if row.group == group]))
    if not rows:
        json_output.echo(f"no outcomes: {DECISION_OUTCOMES.name} gets a record 30 minutes after a decision")


async def _read_topic(settings: KafkaSettings, made: OutcomeReport) -> None:
    """Add the outcomes of the topic to a report.

    Raises:
        TopicMissingError: The topic does not exist.
        BrokerError: Kafka cannot be reached, fails, or is silent.
    """
    await wait_for_broker(settings)
    topic = settings.topic(DECISION_OUTCOMES.name)
    count = await count_partitions(settings, topic)
    async for outcome in read_topic_outcomes(settings, partial(open_reader, settings), topic, count):
        made.add(outcome)


def _table(title: str, rows: list[ReportRow]) -> Table:
    """Return a table of the rows of a group.

    Args:
        title: Title of the table.
        rows: Rows of the group.
    """
    numbers = ("impressions", "clicks", "valid", "CTR", "carts", "orders", "revenue", "gross", "net")
    table = Table("variant", "name", "users", "decisions", *numbers, title=title, title_justify="left")
    for row in rows:
        counts = (row.impressions, row.clicks, row.valid_clicks)
        table.add_row(
            safe_text(row.variant or ""),
            safe_text(row.name),
            f"{row.users:,}",
            f"{row.decisions:,}" if row.decisions else "",
            *(f"{count:,}" for count in counts),
            _percent(row.clicks_per_impression),
            f"{row.carts:,}",
            f"{row.purchases:,}",
            *(f"{amount:,.2f}" for amount in (row.revenue, row.gross, row.net)),
        )
    return table


def _percent(ratio: ReportedRatio | None) -> str:
    """Return a ratio in percent with its interval."""
    if ratio is None:
        return ""
    interval = "" if ratio.low is None or ratio.high is None else f" ({ratio.low:.2%} to {ratio.high:.2%})"
    return f"{ratio.value:.2%}{interval}"


@outcomes.command()
@with_replay_options(content="outcomes, as JSON lines,", needs_output=True)
@with_reference_files
@with_settings(
    "bundle",
    "policy",
    "bundle_store",
    "partitions",
    "gap_ms",
    "lateness_ms",
    "late_events",
    "k",
    "reasons",
    "control_share",
    "reserve",
    "topic_prefix",
    "broker_wait_ms",
)
def replay(*, settings: Settings, source_options: SourceOptions, replay_options: ReplayOptions) -> None:
    """Recompute the outcomes of recorded events, with the worker's code: what decision-outcomes would hold.

    The decisions are made again, and the reactions are joined to them. At the end of the events every open decision is
    closed. Events name their decisions by the place in the log: replay the topic, kafka:clickstream-events, or a file
    in the order of the log with --order file and the same --partitions.

    \b
    Example:
      clickscore outcomes replay kafka:clickstream-events --bundle demo --out outcomes.jsonl.gz

    \f
    Args:
        settings: All settings.
        source_options: Options that name the source.
        replay_options: Options of the run and its output.
    """  # noqa: D301
    replay_with_progress(settings, source_options, "outcomes", replay_options)
