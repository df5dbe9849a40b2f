"""Replay command: the progress bar and the summary that `clickscore replay` and `clickscore sessions` share."""

import time

import click

from clickscore.stream.commands.progress import replay_progress_bar
from clickscore.stream.policy.experiments import CONTROL, SIMILAR
from clickscore.stream.replay.file_source import FileSpec
from clickscore.stream.replay.replay_checkpoint import OutputKind
from clickscore.stream.replay.run import ReplayOptions, ReplayResult, run_replay
from clickscore.stream.replay.source import SourceSpec
from clickscore.stream.replay.source_options import SourceOptions
from clickscore.stream.settings import Settings


def replay_with_progress(
    settings: Settings, source_options: SourceOptions, output: OutputKind, options: ReplayOptions
) -> ReplayResult:
    """Replay a source with a progress bar, and print a summary on stderr.

    Args:
        settings: Settings of the worker whose decisions are replayed.
        source_options: Recorded events.
        output: Content of the output.
        options: How to run the replay.

    Raises:
        ClickscoreError: The replay failed; an output can be resumed.
    """
    source = source_options.resolve(settings)
    started_at = time.monotonic()
    try:
        with replay_progress_bar(source_options.source) as on_progress:
            result = run_replay(settings, source, output, options, on_progress)
    except KeyboardInterrupt:
        if options.out and not options.check:
            click.echo("Interrupted; resume with --resume", err=True)
        raise
    _print_summary(result, output, options, time.monotonic() - started_at)
    warn_of_cold_start(result.source)
    return result


def _print_summary(result: ReplayResult, output: OutputKind, options: ReplayOptions, seconds: float) -> None:
    tally = result.tally
    outcomes = sorted(tally.outcomes.items(), key=lambda outcome: -outcome[1])
    counts = [f"{count:,} {outcome}" for outcome, count in outcomes]
    if tally.unreadable:
        counts.append(f"{tally.unreadable:,} unreadable lines")
    unit = output if output in ("decisions", "outcomes") else "sessions"
    place = "on standard output" if str(options.out) == "-" else f"in {options.out}"
    written = f"; {tally.written:,} {unit} {place}" if options.out else ""
    events = sum(tally.outcomes.values())
    click.echo(f"{events:,} events in {seconds:.1f} s: {', '.join(counts) or 'none'}{written}", err=True)
    items = sum(tally.items.values())
    if items and result.bundle:
        popular, similar = (tally.items.get(reason, 0) / items for reason in (CONTROL, SIMILAR))
        others = f"items similar to unknown ones {similar:.1%}, " if similar else ""
        click.echo(
            f"bundle {result.bundle}: the fallback (popular items) filled {popular:.1%} of the model's places, "
            f"{others}the model {1 - popular - similar:.1%}",
            err=True,
        )
    if tally.outcomes.get("late") and isinstance(result.source, FileSpec) and not result.source.reading.sorts:
        remedy = "write it to a file, which is sorted" if result.source.path == "-" else "leave out --order file"
        click.echo(
            f"{tally.outcomes['late']:,} events are late, and in no session: {result.source.path} was read in its own "
            f"order. To sort it by time, {remedy}",
            err=True,
        )
    if result.gaps:
        click.echo(
            f"Approximate: Kafka no longer holds all values of {result.gaps}. Where a value is missing, decisions use "
            "the next value, or none. The topics keep values for min.compaction.lag.ms",
            err=True,
        )
    if tally.warm_up:
        click.echo(f"{tally.warm_up:,} events before --from updated the state and have no output", err=True)


def warn_of_cold_start(source: SourceSpec) -> None:
    """Print a warning on stderr if the source begins in the middle of a log."""
    if source.cold_partitions:
        starts = ", ".join(
            f"{partition} from offset {offset:,}" for partition, offset in source.cold_partitions.items()
        )
        click.echo(
            f"Warm-up: reading began in the middle of the log (partition {starts}). The state of users before is not "
            "known: sessions that were open look shorter, items that were bought before may be recommended again, and "
            "popularity starts at zero. Do not judge the first decisions, or read more of the log with --warm-up-from",
            err=True,
        )
