"""`clickscore ads`: report on the auctions from the log, and say why a campaign was shown or not."""

import asyncio
from pathlib import Path

import click

from clickscore.model.json_output import JsonOutput, json_options
from clickscore.schemas.topics import ADS
from clickscore.stream.commands.options import with_settings
from clickscore.stream.commands.progress import replay_progress_bar
from clickscore.stream.commands.replay_command import warn_of_cold_start
from clickscore.stream.commands.source_options import with_reference_files, with_source_options
from clickscore.stream.policy.policy_file import configured_policy
from clickscore.stream.replay.ad_decisions import ads_of_file, ads_of_topic
from clickscore.stream.replay.ad_report import AdTally
from clickscore.stream.replay.ad_text import describe_history, describe_report
from clickscore.stream.replay.campaign_history import CampaignWatch
from clickscore.stream.replay.decision_pass import load_scorer, watch_decisions
from clickscore.stream.replay.source_options import SourceOptions, topic_in
from clickscore.stream.replay.topic_source import resolve_topic_range
from clickscore.stream.settings import Settings
from clickscore.stream.terminal_text import safe_text


@click.group()
def ads() -> None:
    """Report on the auctions, and say why a campaign was shown or not.

    \b
    Example:
      clickscore ads report
      clickscore ads why tea-week kafka:clickstream-events --bundle demo
    """  # noqa: D301


@ads.command()
@click.argument("source", default=f"kafka:{ADS.name}")
@click.option("--from", "begin", metavar="BOUND", default="earliest", help="Start of a topic's range, as in replay.")
@click.option("--to", "end", metavar="BOUND", default="latest", help="End of a topic's range; excluded.")
@click.option("--top", type=click.IntRange(0), default=20, show_default=True, help="Number of campaigns to name.")
@json_options
@with_settings("topic_prefix", "broker_wait_ms")
def report(*, settings: Settings, source: str, begin: str, end: str, top: int, json_output: JsonOutput) -> None:
    """Report winners, losers and prices of all auctions, and why campaigns took no part.

    SOURCE has published decisions: the topic of ad decisions (the default), or the output file of
    `clickscore replay`, plain or .gz. Decisions state winner, price and runner-up of each slot, so a campaign is known
    to have lost a slot as the runner-up; `clickscore ads why CAMPAIGN` also knows the slots of a third. Campaigns
    without a part are counted by cause.

    Spend is expected: the price times the probability of the click, the order or the impression. No click is counted.

    \b
    Example:
      clickscore ads report
      clickscore ads report --from 2026-03-01T08:00 --to 2026-03-02T08:00 --json
      clickscore ads report decisions.jsonl.gz --top 5

    \f
    Args:
        settings: Connection.
        source: Topic or file of decisions.
        begin: Start of the range.
        end: End of the range.
        top: Number of campaigns to name.
        json_output: Destinations of the results.
    """  # noqa: D301 (\\b is click's mark for lines without wrapping)
    topic = topic_in(source)
    if topic == "":
        raise click.UsageError("kafka: needs the name of a topic, such as kafka:ad-decisions")
    if topic is None and (begin, end) != ("earliest", "latest"):
        raise click.UsageError("--from and --to need a topic: name one as kafka:NAME")
    tally, unreadable = AdTally(), 0
    with replay_progress_bar("ads report") as on_progress:
        if topic is None:
            decisions = ads_of_file(Path(source), lambda progress: on_progress([progress]))
        else:
            spec = asyncio.run(resolve_topic_range(settings.kafka, topic, begin, end, None))
            decisions = ads_of_topic(settings, spec, lambda progress: on_progress([progress]))
        for ad in decisions:
            if ad is None:
                unreadable += 1
            else:
                tally.add(ad)
    result = tally.report()
    json_output.write(result)
    for line in describe_report(result, top):
        json_output.echo(safe_text(line))
    if unreadable:
        click.echo(f"{unreadable:,} records are no decisions, and were left out", err=True)


@ads.command()
@click.argument("campaign")
@with_source_options
@with_reference_files
@json_options
@with_settings(
    "bundle",
    "policy",
    "bundle_store",
    "partitions",
    "gap_ms",
    "lateness_ms",
    "control_share",
    "reserve",
    "topic_prefix",
    "broker_wait_ms",
)
def why(*, settings: Settings, campaign: str, source_options: SourceOptions, json_output: JsonOutput) -> None:
    """Say the fate of CAMPAIGN on each page: no match, no entry and why, lost to whom, or won, with prices.

    SOURCE has events: a topic, kafka:clickstream-events, or a file. The events pass through the worker's pipeline
    again, as in `clickscore replay`, with the campaigns of each epoch. So give the worker's bundle and policy. The
    counts of all causes add up to the pages. Memory does not grow with the log.

    \b
    Example:
      clickscore ads why tea-week kafka:clickstream-events --bundle demo
      clickscore ads why tea-week kafka:clickstream-events --from 2026-03-01T08:00 --warm-up-from earliest --bundle DIR
      clickscore ads why tea-week events.jsonl --campaigns campaigns.jsonl --catalogue items.jsonl --bundle DIR

    \f
    Args:
        settings: Settings of the worker.
        campaign: Id of the campaign.
        source_options: Recorded events.
        json_output: Destinations of the results.
    """  # noqa: D301
    deciding = configured_policy(settings), load_scorer(settings)
    spec = source_options.resolve(settings)
    watch = CampaignWatch(campaign)
    with replay_progress_bar("ads why") as on_progress:
        watch_decisions(settings, spec, deciding, watch, lambda progress: on_progress([progress]))
    history = watch.history()
    json_output.write(history)
    for line in describe_history(history):
        json_output.echo(safe_text(line))
    warn_of_cold_start(spec)
