"""`clickscore backtest`: what other bundles, policies and sessions would have shown, held against what users did."""

import importlib.util
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from clickscore.backtest import arms as of_arms
from clickscore.backtest import narrative
from clickscore.backtest.arms import Arm
from clickscore.backtest.backtest_run import LEAK_SAMPLE, BacktestPlan, Evidence, run_backtest
from clickscore.backtest.results import Results, measure
from clickscore.schemas.errors import ClickscoreError
from clickscore.stream.commands.options import with_settings
from clickscore.stream.commands.progress import replay_progress_bar
from clickscore.stream.commands.replay_command import warn_of_cold_start
from clickscore.stream.commands.source_options import with_source_options
from clickscore.stream.errors import OutputFileError, SettingsError
from clickscore.stream.replay.source_options import SourceOptions
from clickscore.stream.settings import Settings

OUT = click.Path(dir_okay=False, path_type=Path)


@click.command()
@with_source_options
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="An arm: this bundle, called by its folder's name; repeatable. The others are compared with the first arm.",
)
@click.option(
    "--arm",
    "described",
    multiple=True,
    metavar="name=NAME,KEY=VALUE,...",
    help="An arm with bundle=DIR or baseline=NAME and settings of its own, such as gap_ms=900000,k=5; repeatable.",
)
@click.option(
    "--arms",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TOML file of arms, each a table [[arm]] with the same keys; at most 50.",
)
@click.option(
    "--baselines/--no-baselines",
    default=True,
    show_default=True,
    help="Add the built-in arms: popularity, co-occurrence with the last item, the session's items again.",
)
@click.option(
    "--judge-from", metavar="TIME", help="Judge events from this event time on (ISO, UTC); those before warm up."
)
@click.option("--report", "page", type=OUT, help="Write the report here: one HTML file that needs nothing beside it.")
@click.option("--json", "figures", type=OUT, help="Write the figures here.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Write the plots here, as SVG files.")
@click.option(
    "--leak-sample",
    type=click.IntRange(0),
    default=LEAK_SAMPLE,
    show_default=True,
    help="Events to decide again one at a time, to find an arm that sees what comes later; 0 for none.",
)
@with_settings(
    "partitions",
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
    described: tuple[str, ...],
    file: Path | None,
    baselines: bool,
    judge_from: str | None,
    page: Path | None,
    figures: Path | None,
    plots: Path | None,
    leak_sample: int,
    source_options: SourceOptions,
) -> None:
    """Replay recorded events with several bundles, policies or session gaps, and compare with what users did.

    SOURCE is a file (JSON lines, or --format; plain, gzip, Zstandard or Parquet) or a topic, kafka:NAME. Every arm
    decides by the worker's own pipeline when an event arrives, and is judged once its session has ended: by the next
    item, the next action, and whether a purchase followed. One pass over the log; arms share sessions and scores where
    they are the same. What comes out is agreement with what users did under another system's recommendations, not the
    effect of ours: docs/backtesting.md says what to make of it.

    Judge a bundle on events that came after those it was trained on: --judge-from.

    \b
    Example:
      clickscore backtest events.csv.gz --format rees46 --bundle today --bundle new --report report.html
      clickscore backtest kafka:clickstream-events --bundle new --arm name=short,bundle=new,gap_ms=600000
      clickscore backtest events.jsonl --arms arms.toml --judge-from 2026-03-01T00:00 --report report.html
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    if page or plots:
        _require_extra()
    arms = _arms(settings, bundles, described, file, baselines=baselines)
    origin = source_options.resolve(settings.kafka)
    plan = BacktestPlan(
        settings=settings,
        arms=arms,
        origin=origin,
        reference=origin.read_reference(settings.kafka),
        judge_from=_moment(judge_from) if judge_from else 0,
        leak_sample=leak_sample,
    )
    with replay_progress_bar(source_options.source) as report:
        evidence = run_backtest(plan, lambda progress: report([progress]))
    _refuse_nothing(evidence)
    results = measure(plan, Path(source_options.source).name, evidence)
    warn_of_cold_start(origin)
    show(results)
    _write(results, page, figures, plots)
    if results.leak_check.leaks:
        sys.exit(1)


def _arms(
    settings: Settings, bundles: Sequence[Path], described: Sequence[str], file: Path | None, *, baselines: bool
) -> Sequence[Arm]:
    found = of_arms.bundle_arms(bundles, settings)
    found += [of_arms.parse_arm(text, settings) for text in described]
    if file:
        found += of_arms.read_arms(file, settings)
    if baselines:
        found += of_arms.baseline_arms(settings)
    return of_arms.validate_arms(found)


def _moment(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        message = f"--judge-from {text!r} is no time like 2026-03-01T08:00"
        raise SettingsError(message) from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _require_extra() -> None:
    """Refuse to work for minutes where the report could not be written in the end.

    Raises:
        ClickscoreError: What the report needs is not installed.
    """
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        message = f"--report and --plots need the backtest extra ({', '.join(missing)} missing): make setup-train"
        raise ClickscoreError(message)


def _refuse_nothing(evidence: Evidence) -> None:
    """Refuse a log of which nothing could be judged.

    Raises:
        ClickscoreError: The reasons, in words.
    """
    if not len(evidence.columns):
        reasons = [f"{count:,} x {reason}" for reason, count in evidence.book.left_out.most_common() if count]
        message = f"none of {evidence.records:,} records could be judged: {'; '.join(reasons) or 'the log is empty'}"
        raise ClickscoreError(message)


def show(results: Results) -> None:
    """Print the outcome: the arms side by side, then what to make of it."""
    k = results.cutoff
    console = Console(highlight=False, soft_wrap=True)
    heads = (f"hit rate@{k}", f"MRR@{k}", "new items", "coverage", "bias", "PR-AUC")
    table = Table("arm", *heads, box=SIMPLE)
    for arm in results.arms:
        rate = arm.ranking[f"hit_rate@{k}"]
        table.add_row(
            arm.name,
            f"{100 * rate.value:.1f} % ({100 * rate.low:.1f}-{100 * rate.high:.1f})",
            *map(narrative.percent, (arm.ranking[f"mrr@{k}"].value, arm.discovery.value, arm.coverage)),
            f"{arm.popularity_bias:.2f}",
            f"{arm.purchase.pr_auc.value:.3f}" if arm.purchase else "",
        )
    console.print(table)
    left = ", ".join(f"{count:,} {reason.split(':')[0]}" for reason, count in results.left_out.items())
    console.print(f"{results.judged:,} of {results.records:,} records judged; left out: {left or 'none'}")
    for sentence in (*narrative.verdict(results), narrative.leak_check(results)):
        console.print(sentence)
    for sentence in narrative.warnings(results):
        console.print(f"Beware: {sentence}")
    console.print("This is agreement with what users did under another system's recommendations, not an effect.")


def _write(results: Results, page: Path | None, figures: Path | None, folder: Path | None) -> None:
    try:
        if figures:
            figures.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
        if not (page or folder):
            return
        from clickscore.backtest.html_report import render_report  # noqa: PLC0415
        from clickscore.backtest.plots import plots  # noqa: PLC0415 (matplotlib takes a moment to load)

        drawn = plots(results)
        if page:
            page.write_text(render_report(results, drawn), encoding="utf-8")
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            for name, svg in drawn.items():
                (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    except OSError as exc:
        message = f"{exc.filename} cannot be written: {exc.strerror or exc}"
        raise OutputFileError(message) from exc
