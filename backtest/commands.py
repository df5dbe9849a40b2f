"""Command `clickscore backtest`: compare bundles, policies and session gaps on a recorded log."""

import importlib.util
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from clickscore.backtest import narrative
from clickscore.backtest.arms import Arm, baseline_arms, bundle_arms, parse_arm, read_arms, validate_arms
from clickscore.backtest.backtest_run import LEAK_SAMPLE, BacktestPlan, Evidence, run_backtest
from clickscore.backtest.measurement import measure
from clickscore.backtest.results import Results
from clickscore.model.bundle_folder import BundleFolder
from clickscore.model.json_output import FormerJsonCommand, JsonOutput, json_options
from clickscore.model.output_file import OUTPUT_FILE_OR_STDOUT, STANDARD_OUTPUT
from clickscore.model.own_source import refuse_own_source
from clickscore.schemas.errors import ClickscoreError, OutputFileError
from clickscore.stream.commands.options import with_settings
from clickscore.stream.commands.progress import replay_progress_bar
from clickscore.stream.commands.replay_command import warn_of_cold_start
from clickscore.stream.commands.source_options import with_reference_files, with_source_options
from clickscore.stream.errors import SettingsError
from clickscore.stream.replay.source_options import SourceOptions
from clickscore.stream.settings import Settings

TABLE_WIDTH = 120
"""Width of the table where the output has no width, such as a pipe: names and intervals are not cut, in columns."""


@click.command(cls=FormerJsonCommand)
@with_source_options
@with_reference_files
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    type=BundleFolder(),
    help="Add an arm with this bundle and the folder's name; repeatable. All arms are compared with the first one.",
)
@click.option(
    "--arm",
    "descriptions",
    multiple=True,
    metavar="name=NAME,KEY=VALUE,...",
    help="Add an arm with bundle=DIR or baseline=NAME and its own settings, such as gap_ms=900000,k=5; repeatable.",
)
@click.option(
    "--arms",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Add the arms of a TOML file, each a table [[arm]] with the same keys; at most 50.",
)
@click.option(
    "--baselines/--no-baselines",
    default=True,
    show_default=True,
    help="Add the baselines as arms: popularity, co-occurrence with the last item, repeat of the session's items.",
)
@click.option(
    "--judge-from", metavar="TIME", help="Judge events from this event time on (ISO, UTC). Earlier events warm up."
)
@click.option(
    "--report",
    "page",
    type=OUTPUT_FILE_OR_STDOUT,
    help="Write the report to this file: one self-contained HTML page; - is standard output.",
)
@json_options
@click.option(
    "--plots", type=click.Path(file_okay=False, path_type=Path), help="Write the plots to this folder, as SVG files."
)
@click.option(
    "--leak-sample",
    type=click.IntRange(0),
    default=LEAK_SAMPLE,
    show_default=True,
    help="Events to decide again one record at a time, which finds lookahead; 0 switches the check off.",
)
@with_settings(
    "partitions",
    "policy",
    "k",
    "gap_ms",
    "lateness_ms",
    "late_events",
    "control_share",
    "score_threads",
    "topic_prefix",
    "broker_wait_ms",
)
def backtest(
    *,
    settings: Settings,
    bundles: tuple[Path, ...],
    descriptions: tuple[str, ...],
    file: Path | None,
    baselines: bool,
    judge_from: str | None,
    page: Path | None,
    json_output: JsonOutput,
    plots: Path | None,
    leak_sample: int,
    source_options: SourceOptions,
) -> None:
    """Replay recorded events with several bundles, policies or session gaps, and compare with the users' actions.

    SOURCE is a file (JSON lines, or --format; plain, gzip, Zstandard or Parquet) or a topic, kafka:NAME. Every arm
    decides by the worker's own pipeline when an event arrives. When the session has ended, each decision is compared
    with its labels: the next item, the next action, and whether a purchase followed. One pass over the log serves all
    arms; arms share sessions and scores where these are the same. The figures show agreement with what users did under
    another system's recommendations, not the effect of ours: docs/backtesting.md explains the difference. Lists are
    judged without ads.

    Judge a bundle on events newer than the training data: --judge-from.

    \b
    Example:
      clickscore backtest events.csv.gz --format rees46 --bundle today --bundle new --report report.html
      clickscore backtest kafka:clickstream-events --bundle new --arm name=short,bundle=new,gap_ms=600000
      clickscore backtest events.jsonl --arms arms.toml --judge-from 2026-03-01T00:00 --report report.html
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    page_to_stdout = page == STANDARD_OUTPUT
    if page_to_stdout and json_output.to_stdout:
        raise click.UsageError("--report and --json cannot both write to standard output: name a file for one of them")
    sources = source_options.source, source_options.catalogue, source_options.campaigns, file
    refuse_own_source(page, *sources, option="--report")
    if page or plots:
        _require_extra()
    arms = _read_arms(settings, bundles, descriptions, file, baselines=baselines)
    spec = source_options.resolve(settings)
    plan = BacktestPlan(
        settings=settings,
        arms=arms,
        source=spec,
        reference=spec.read_reference(settings.kafka),
        judge_from=_parse_time(judge_from) if judge_from else 0,
        leak_sample=leak_sample,
    )
    with replay_progress_bar(source_options.source) as report:
        evidence = run_backtest(plan, lambda progress: report([progress]))
    _require_judged_events(evidence)
    results = measure(plan, Path(source_options.source).name, evidence)
    warn_of_cold_start(spec)
    if not json_output.to_stdout:
        width = None if (sys.stderr if page_to_stdout else sys.stdout).isatty() else TABLE_WIDTH
        print_results(
            results, Console(stderr=page_to_stdout, markup=False, highlight=False, soft_wrap=True, width=width)
        )
    json_output.write(results)
    _write_files(results, page, plots)
    if results.leak_check.leaks:
        sys.exit(1)


def _read_arms(
    settings: Settings, bundles: Sequence[Path], descriptions: Sequence[str], file: Path | None, *, baselines: bool
) -> Sequence[Arm]:
    arms = bundle_arms(bundles, settings)
    arms += [parse_arm(text, settings) for text in descriptions]
    if file:
        arms += read_arms(file, settings)
    if baselines:
        arms += baseline_arms(settings)
    return validate_arms(arms)


def _parse_time(text: str) -> int:
    """Return an ISO time as event time, ms; UTC where the text states no zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        message = f"--judge-from {text!r} is no time like 2026-03-01T08:00"
        raise SettingsError(message) from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _require_extra() -> None:
    """Fail before the replay, which takes minutes, if the report cannot be written.

    Raises:
        ClickscoreError: A package needed by the report is not installed.
    """
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        message = (
            f"--report and --plots need the backtest extra ({', '.join(missing)} missing): pip install '.[backtest]'"
        )
        raise ClickscoreError(message)


def _require_judged_events(evidence: Evidence) -> None:
    """Refuse a log without judged events.

    Raises:
        ClickscoreError: No record could be judged; the message lists the reasons.
    """
    if not len(evidence.columns):
        reasons = [f"{count:,} x {reason}" for reason, count in evidence.join.left_out.most_common() if count]
        message = f"none of {evidence.records:,} records could be judged: {'; '.join(reasons) or 'the log is empty'}"
        raise ClickscoreError(message)


def print_results(results: Results, console: Console) -> None:
    """Print the table of arms, the verdict and the warnings."""
    k = results.cutoff
    heads = (f"hit rate@{k}", f"MRR@{k}", "new items", "coverage", "bias", "PR-AUC")
    table = Table("arm", *heads, box=SIMPLE)
    for arm in results.arms:
        rate = arm.ranking[f"hit_rate@{k}"]
        table.add_row(
            arm.name,
            f"{100 * rate.value:.1f} % ({100 * rate.low:.1f}-{100 * rate.high:.1f})",
            *map(narrative.format_percent, (arm.ranking[f"mrr@{k}"].value, arm.discovery.value, arm.coverage)),
            f"{arm.popularity_bias:.2f}",
            f"{arm.purchase.pr_auc.value:.3f}" if arm.purchase else "",
        )
    console.print(table)
    left_out = ", ".join(f"{count:,} {reason.split(':')[0]}" for reason, count in results.left_out.items())
    console.print(f"{results.judged:,} of {results.records:,} records judged; left out: {left_out or 'none'}")
    for sentence in map(narrative.describe_places, results.arms):
        console.print(sentence)
    for sentence in (*narrative.verdict(results), narrative.describe_leak_check(results)):
        console.print(sentence)
    for sentence in narrative.warnings(results):
        console.print(f"Beware: {sentence}")
    console.print("This is agreement with what users did under another system's recommendations, not an effect.")


def _write_files(results: Results, page: Path | None, folder: Path | None) -> None:
    if not (page or folder):
        return
    try:
        from clickscore.backtest.html_report import render_report  # noqa: PLC0415
        from clickscore.backtest.plots import draw_plots  # noqa: PLC0415 (matplotlib takes a moment to load)

        documents = draw_plots(results)
        if page == STANDARD_OUTPUT:
            click.echo(render_report(results, documents))
        elif page:
            page.write_text(render_report(results, documents), encoding="utf-8")
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            for name, svg in documents.items():
                (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    except OSError as exc:
        message = f"{exc.filename} cannot be written: {exc.strerror or exc}"
        raise OutputFileError(message) from exc
