"""Commands of training and evaluation: `train`, `tune`, `split`, `evaluate`, `evaluate-events`, `evaluate-reasons`.

Modules that need torch are imported when a command runs, so that serving can list the commands without torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from clickscore.model.bundle_folder import BundleFolder
from clickscore.model.config import PRESETS, TrainConfig, format_preset, override, read_preset
from clickscore.model.dataset import load_dataset, load_fine_tuning_data
from clickscore.model.errors import TrainingError
from clickscore.model.evaluation.comparison import describe_comparison, estimate_share, measure_baselines
from clickscore.model.finite_range import FiniteRange
from clickscore.model.item_attributes import read_catalogue
from clickscore.model.json_output import FormerJsonCommand, JsonOutput, json_options
from clickscore.model.output_file import OUTPUT_FILE
from clickscore.model.own_source import refuse_own_source
from clickscore.model.session_files import DatasetReport
from clickscore.model.threads import choose_threads, wait_passively

if TYPE_CHECKING:
    from clickscore.model.evaluation.head_evaluation import PrefixLengthResults
    from clickscore.model.split import SplitKey

EXTRA_MODULES = {"torch", "onnx", "optuna", "sklearn", "lightgbm", "tokenizers", "transformers"}
"""Modules of the extras `train` and `encode`."""
THREADS_HELP = "Number of CPU threads. Default: the number of cores, or 1 for a small model (dim of 64 or less)."
TABLE_WIDTH = 120
"""Width of printed tables, in columns: with 8 figures a row they do not fit into 80."""
FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
SESSION_FILE = click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("files", nargs=-1, type=SESSION_FILE, metavar="[SESSIONS]...")
@click.option("--sessions", multiple=True, type=SESSION_FILE, help="The same as SESSIONS; repeatable.")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Checkpoint folder: a new one, or that of a killed run, which then continues.",
)
@click.option(
    "--from",
    "origin",
    type=FOLDER,
    help="Warm start: fine-tune this checkpoint, or bundle exported with --trainable, on SESSIONS that are new to it.",
)
@click.option(
    "--neighbours-only",
    is_flag=True,
    help="With --from: count which items occur together again, and train nothing. It takes seconds.",
)
@click.option("--items", type=FILE, help="Catalogue as JSON lines: gives the trees prices and categories.")
@click.option(
    "--preset",
    metavar="NAME|FILE",
    help=f"Size of model and training: {', '.join(PRESETS)}, or a file of `tune`. Default: default.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Maximum passes over the sessions. Default: 4, or 8 for a small data set.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), help="Seed of weights, batch order and dropout. Default: the preset's."
)
@click.option("--threads", type=click.IntRange(min=1), help=THREADS_HELP)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a field of model.config, such as dim=128; repeatable.",
)
def train(
    *,
    files: tuple[Path, ...],
    sessions: tuple[Path, ...],
    out: Path,
    origin: Path | None,
    neighbours_only: bool,
    items: Path | None,
    preset: str | None,
    epochs: int | None,
    seed: int | None,
    threads: int | None,
    changes: Sequence[str],
) -> None:
    """Train a model on SESSIONS, or fine-tune a trained one on newer SESSIONS (a warm start).

    SESSIONS are files of JSON lines, as in the topic closed-sessions. A file whose name ends in .tsv or .txt holds
    item ids instead: one session a line, the oldest first. All may be compressed (.gz), and - is standard input. The
    newest sessions are set apart for early stopping and for the metrics, and a short final pass trains on them. After a
    kill, the same command continues the training.

    \b
    Example:
      clickscore train sessions.jsonl.gz --out checkpoint --preset small
      clickscore train --from checkpoint --sessions newer.jsonl.gz --out fresher
      clickscore export fresher --out bundle
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    sessions = _join_files(files, sessions)
    if origin and (preset or epochs or seed is not None or changes or items):
        message = "--from uses the settings of the old model: leave out --preset, --epochs, --seed, --set and --items"
        raise click.UsageError(message)
    if neighbours_only and not origin:
        message = "--neighbours-only needs --from: it changes a trained model"
        raise click.UsageError(message)
    config = _read_config(preset or "default", epochs, seed, changes)
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    wait_passively()
    try:
        from clickscore.model.checkpoint import (  # noqa: PLC0415 (serving has no torch, and its help lists this command)
            find_checkpoint,
            load_checkpoint,
            load_pairs,
            load_texts,
            save_texts,
        )
        from clickscore.model.train import fine_tune, format_metrics, refresh_neighbours  # noqa: PLC0415
        from clickscore.model.train import train as train_model  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    baselines: dict[str, float] = {}
    if origin:
        folder, name = find_checkpoint(origin)
        previous = load_checkpoint(folder)
        config = previous.record.config
        _set_threads(threads, config.model.dim)
        newer = load_fine_tuning_data(sessions, config, previous.vocabulary)
        _print_report(newer.report, console)
        lineage = f"{name}: {previous.record.report.summary()}"
        if neighbours_only:
            record = refresh_neighbours(previous, load_pairs(folder), newer, out, lineage=lineage)
        else:
            record = fine_tune(previous, load_pairs(folder), newer, out, lineage=lineage, console=console)
        if texts := load_texts(folder):
            save_texts(out, texts)
    else:
        _set_threads(threads, config.model.dim)
        dataset = load_dataset(sessions, config, read_catalogue(items))
        _print_report(dataset.report, console)
        try:
            record = train_model(dataset, config, out, console)
        except KeyboardInterrupt:
            console.print(f"interrupted: the same command, with --out {out}, continues the training")
            raise
        console.print(f"best epoch: {record.best_epoch} of {len(record.epochs)}")
        baselines = measure_baselines(dataset.training, dataset.held_out, len(dataset.vocabulary) + 1)
    values = format_metrics(record.held_out_metrics)
    console.print(f"held-out metrics (measured before the final pass trains on these sessions): {values}")
    for sentence in _describe_training(record.held_out_metrics, baselines):
        console.print(sentence)
    console.print(f"next: clickscore export {out} --out BUNDLE")


@click.command()
@click.argument("files", nargs=-1, type=SESSION_FILE, metavar="[SESSIONS]...")
@click.option("--sessions", multiple=True, type=SESSION_FILE, help="The same as SESSIONS; repeatable.")
@click.option(
    "--out",
    required=True,
    type=OUTPUT_FILE,
    help="File of the best preset so far. The trials are stored beside the file, under its name with .trials.",
)
@click.option("--preset", default="default", show_default=True, metavar="NAME|FILE", help="Preset of the first trial.")
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Number of trials, with those of earlier runs.",
)
@click.option("--threads", type=click.IntRange(min=1), help=THREADS_HELP)
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change a field of the preset; repeatable.")
def tune(
    *,
    files: tuple[Path, ...],
    sessions: tuple[Path, ...],
    out: Path,
    preset: str,
    trials: int,
    threads: int | None,
    changes: Sequence[str],
) -> None:
    """Search for hyper-parameters that rank SESSIONS better than a preset, and write them as a new preset.

    Each trial is a training without the final pass, and its score is the mean of hit rate and MRR on validation. A
    trial that falls behind the others is stopped early. After a kill, the same command continues the search. Settings
    that cost serving time, such as dim, are not searched: change them with --set.

    \b
    Example:
      clickscore tune --sessions sessions.jsonl.gz --preset small --trials 30 --out preset.toml
      clickscore train sessions.jsonl.gz --out checkpoint --preset preset.toml
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    training_files = _join_files(files, sessions)
    refuse_own_source(out, *training_files)
    config = _read_config(preset, None, None, changes)
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    wait_passively()
    try:
        from clickscore.model.predict import RANKING_SCORE  # noqa: PLC0415 (serving has no torch, and its help lists this command)
        from clickscore.model.tune import tune as search  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    _set_threads(threads, config.model.dim)
    dataset = load_dataset(training_files, config)
    _print_report(dataset.report, console)
    journal = out.with_name(out.name + ".trials")
    try:
        for result in search(dataset, config, trials=trials, journal=journal, console=console):
            trial = f"trial {result.best} of {result.trials} from preset {preset}"
            score = f"validation {RANKING_SCORE} {result.score:.4f}, {trial}"
            out.write_text(format_preset(result.config, f"clickscore tune: {score}"), encoding="utf-8")
            console.print(f"best so far: {score}")
    except KeyboardInterrupt:
        console.print(f"interrupted: the same command, with --out {out}, continues the search")
        raise
    console.print(f"next: clickscore train SESSIONS --out CHECKPOINT --preset {out}")


@click.command(cls=FormerJsonCommand)
@click.argument("bundle", type=BundleFolder())
@click.option("--prefixes", required=True, type=FILE, help="Test rows: item ids, a tab, the next item.")
@click.option("--sessions", multiple=True, type=FILE, help="Training sessions for the baselines; repeatable.")
@json_options
def evaluate(*, bundle: Path, prefixes: Path, sessions: tuple[Path, ...], json_output: JsonOutput) -> None:
    """Measure how well a BUNDLE ranks the next item of session prefixes, beside counting baselines.

    ONNX Runtime scores each prefix alone, over the whole catalogue. Items of the prefix may be the next item again.
    Items with the same score as the next item rank before it. An unknown next item is a miss.

    \b
    Example:
      clickscore evaluate bundle --prefixes test.tsv.gz --sessions train.tsv.gz --json-file results.json

    \f
    Args:
        bundle: Folder of the bundle.
        prefixes: File of test rows.
        sessions: Files of training sessions for the baselines.
        json_output: Destinations of the results as JSON.
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    from clickscore.model.evaluation.prefix_evaluation import CUTOFFS, evaluate_prefixes  # noqa: PLC0415 (ONNX Runtime takes a moment to load)

    console = json_output.console()
    with Progress(console=Console(stderr=True, markup=False), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show_progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name)
            progress.update(tasks[name], completed=done, total=total)

        results = evaluate_prefixes(bundle, prefixes, sessions, show_progress)
    metrics = [f"{kind}@{k}" for k in CUTOFFS for kind in ("P", "MRR", "NDCG")]
    table = Table("percent", *(result.name for result in results), title=f"{results[0].rows:,} rows")
    for metric in metrics:
        figures = [result.figures[metric] for result in results]
        table.add_row(metric, *(f"{figure.value:.2f} ({figure.low:.2f}-{figure.high:.2f})" for figure in figures))
    console.print(table)
    console.print("In brackets: 95 % bootstrap interval over rows.")
    at_20 = metrics[-3:]
    table = Table("events of the prefix", "rows", *at_20, title="bundle, by length of the prefix")
    for length, values in results[0].by_length.items():
        table.add_row(length, f"{values['rows']:,.0f}", *(f"{values[metric]:.2f}" for metric in at_20))
    console.print(table)
    bundle_result, *baselines = results
    if baselines:
        hit_rates = {result.name: result.figures["P@20"].value / 100 for result in baselines}
        hit_rate = estimate_share(bundle_result.figures["P@20"].value / 100, bundle_result.rows)
        for sentence in describe_comparison(hit_rate, hit_rates, bundle_result.rows):
            console.print(sentence)
    json_output.write(results)


@click.command("evaluate-events", cls=FormerJsonCommand)
@click.argument("bundle", type=BundleFolder())
@click.option(
    "--sessions", multiple=True, required=True, type=FILE, help="Training sessions of the bundle; repeatable."
)
@click.option("--test", multiple=True, required=True, type=FILE, help="Test sessions; repeatable.")
@click.option("--items", type=FILE, help="Catalogue as JSON lines, with prices and categories.")
@click.option("--truth", type=FILE, help="True probabilities of a simulated test: a file of `simulate --truth`.")
@click.option(
    "--recent",
    multiple=True,
    type=FILE,
    help="Sessions of the test's shop from before the test; repeatable. They recalibrate the bundle.",
)
@click.option(
    "--hide",
    type=FiniteRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the bundle's items that become unknown to bundle and baselines.",
)
@json_options
def evaluate_events(
    *,
    bundle: Path,
    sessions: tuple[Path, ...],
    test: tuple[Path, ...],
    items: Path | None,
    truth: Path | None,
    recent: tuple[Path, ...],
    hide: float,
    json_output: JsonOutput,
) -> None:
    """Measure how well a BUNDLE predicts next action and purchase, beside baselines on the same session prefixes.

    Prefixes have 1, 2, 3, 5 and 10 events without a purchase. The baselines are base rates, a Markov chain, logistic
    regression and LightGBM, fitted in the same run on the bundle's training sessions; and the base rate of the test,
    which nobody can know beforehand. With --truth, probabilities are compared with the true ones as well.

    The test may come from another shop. With --recent, the bundle is also recalibrated on earlier sessions of that
    shop, as by `recalibrate`, refitted, as by `recalibrate --refit`, and base rate and LightGBM are fitted on them.

    \b
    Example:
      clickscore split sessions.jsonl.gz --by time --training train.jsonl.gz --test test.jsonl.gz
      clickscore train train.jsonl.gz --out checkpoint
      clickscore export checkpoint --out bundle
      clickscore evaluate-events bundle --sessions train.jsonl.gz --test test.jsonl.gz
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    wait_passively()
    try:
        from clickscore.model.evaluation.head_evaluation import evaluate_heads  # noqa: PLC0415 (serving has no scikit-learn)
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    console = json_output.console(TABLE_WIDTH)
    with Console(stderr=True, markup=False).status("") as status:
        results = evaluate_heads(
            *(bundle, sessions, test, status.update), items=items, truth=truth, recent=recent, hidden_share=hide
        )
    for group in results.by_events:
        console.print(_heads_table(group))
        if group.truth_errors:
            console.print(_truth_error_table(group))
        lead = group.lead
        console.print(f"PR-AUC of the bundle minus LightGBM: {lead.value:+.4f} ({lead.low:+.4f} to {lead.high:+.4f})")
    if results.fallback_share:
        console.print(
            f"The bundle knows no item of {results.fallback_share:.1%} of the rows: fallback to the base rate."
        )
    console.print(
        "noise: mean calibration error (ECE) of perfectly calibrated probabilities on as many rows. "
        "In brackets: 95 % bootstrap interval over rows."
    )
    json_output.write(results)


@click.command("evaluate-reasons", cls=FormerJsonCommand)
@click.argument("checkpoint", type=FOLDER)
@click.option("--prefixes", required=True, type=FILE, help="Test rows: item ids, a tab, the next item.")
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    help="Rows to sample; a row has 3 known events or more.",
)
@json_options
def evaluate_reasons(*, checkpoint: Path, prefixes: Path, rows: int, json_output: JsonOutput) -> None:
    """Measure whether the reasons of a CHECKPOINT's bundle name the events that move its scores (faithfulness).

    Each method orders a session's events by importance. Events are removed in this order (deletion) or added in this
    order (insertion), and the score of the best item, and of the best five, is measured. CHECKPOINT may be a bundle
    that was exported with --trainable.

    \b
    Example:
      clickscore evaluate-reasons checkpoint --prefixes test.tsv.gz
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    try:
        from clickscore.model.checkpoint import find_checkpoint  # noqa: PLC0415 (serving has no torch)
        from clickscore.model.evaluation.reason_faithfulness import TOP_ITEMS, evaluate_reasons  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    console = json_output.console(TABLE_WIDTH)
    with Console(stderr=True, markup=False).status("") as status:
        results = evaluate_reasons(find_checkpoint(checkpoint)[0], prefixes, rows, status.update)
    metrics = ("deletion", "insertion", "first", "exit", "lead")
    for title, suffix in (("the best item", ""), (f"the best {TOP_ITEMS} items", f"@{TOP_ITEMS}")):
        table = Table("order", *metrics, title=f"explained: {title}, of {results.sessions:,} sessions")
        for order in results.orders:
            figures = [order.figures[metric + suffix] for metric in metrics]
            cells = (f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})" for figure in figures)
            table.add_row(order.name, *cells)
        console.print(table)
    console.print(
        "Log-probability of the item, in nats. deletion: mean loss while events are removed, the most important first. "
        "insertion: mean loss while events are added in this order. first: loss without the most important event. "
        f"exit: share of items that are not among the best {TOP_ITEMS} without this event. lead: advantage of the "
        "contributions over this order, deletion plus insertion. In brackets: 95 % bootstrap interval over sessions."
    )
    json_output.write(results)


def _heads_table(group: "PrefixLengthResults") -> Table:
    events = f"after {group.events} event{'s' * (group.events > 1)}" if group.events else "all"
    names = ("PR-AUC", "ROC-AUC", "log loss", "Brier", "ECE", "noise", "action F1", "action log loss")
    table = Table("", *names, title=f"{events}: {group.rows:,} rows, a purchase follows {group.base_rate:.2%}")
    for name, figures in group.models.items():
        table.add_row(name, *(f"{value:.4f}" for value in msgspec.structs.astuple(figures)))
    return table


def _truth_error_table(group: "PrefixLengthResults") -> Table:
    names = ("mean difference", "ECE", "share of log loss", "share of PR-AUC")
    table = Table("against the truth", *names)
    for name, errors in group.truth_errors.items():
        table.add_row(name, *(f"{value:.4f}" for value in msgspec.structs.astuple(errors)))
    return table


@click.command()
@click.argument("source", type=FILE, metavar="SESSIONS")
@click.option("--training", required=True, type=OUTPUT_FILE, help="Training file.")
@click.option("--test", required=True, type=OUTPUT_FILE, help="Test file.")
@click.option("--by", type=click.Choice(["time", "user"]), default="time", show_default=True, help="Key of the split.")
@click.option("--share", type=FiniteRange(0.01, 0.99), default=0.3, show_default=True, help="Share of the test.")
def split(*, source: Path, training: Path, test: Path, by: "SplitKey", share: float) -> None:
    """Split a file of closed SESSIONS into a training file and a test file.

    By time, the test has the newest sessions, and sessions that were open at the border are in neither file. By user,
    a hash of the user id decides.

    \b
    Example:
      clickscore split sessions.jsonl.gz --by time --training train.jsonl.gz --test test.jsonl.gz
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    from clickscore.model.split import split_sessions  # noqa: PLC0415 (what no other command needs)

    training_count, test_count, dropped = split_sessions(source, training, test, by, share)
    click.echo(f"{training_count:,} training sessions, {test_count:,} test sessions, {dropped:,} open at the border")


def _set_threads(threads: int | None, dim: int) -> None:
    """Set the number of torch's threads, if the command line or the size of the model decides it."""
    import torch  # noqa: PLC0415 (serving has no torch)

    if number := choose_threads(threads, dim):
        torch.set_num_threads(number)


def _describe_training(held_out_metrics: Mapping[str, float], baselines: Mapping[str, float]) -> list[str]:
    """Return the held-out hit rate beside those of the baselines, in sentences.

    Args:
        held_out_metrics: Metrics of the model on the held-out sessions.
        baselines: Hit rates of baselines on the same sessions; empty after a warm start, where the old sessions are
            absent, so that only the ranking by popularity is known.
    """
    rows = int(held_out_metrics["ranked_events"])
    if not rows:
        return ["No held-out event is followed by an item, so the model cannot be compared with popular items."]
    hit_rate = estimate_share(held_out_metrics["hit_rate@20"], rows)
    return describe_comparison(hit_rate, baselines or {"popularity": held_out_metrics["popular_hit_rate@20"]}, rows)


def _join_files(files: tuple[Path, ...], sessions: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the session files of argument and option together."""
    if not (files or sessions):
        message = "no sessions are named: name one file or more, such as sessions.jsonl.gz"
        raise click.UsageError(message)
    return *files, *sessions


def missing_extra(exc: ModuleNotFoundError) -> Exception:
    """Return the error for a missing module: a hint if an extra brings the module, else the exception itself."""
    if exc.name not in EXTRA_MODULES:
        return exc
    return TrainingError(f"this command needs the training environment ({exc.name} is missing): make setup-train")


def _read_config(preset: str, epochs: int | None, seed: int | None, changes: Sequence[str]) -> TrainConfig:
    """Return the config of a preset with the changes of the command line."""
    pairs = [change.partition("=") for change in changes]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        message = f"--set takes NAME=VALUE, not {wrong[0]!r}"
        raise TrainingError(message)
    flags = {name: str(value) for name, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    return override(read_preset(preset), {name: value for name, _, value in pairs} | flags)


def _print_report(report: DatasetReport, console: Console) -> None:
    """Print the numbers of sessions that were read, dropped and used."""
    console.print(f"read {report.lines:,} lines of {len(report.files)} file(s)")
    for text in report.list_dropped():
        console.print(f"  {text}")
    console.print(f"  {report.sessions:,} sessions with {report.events:,} events, {report.items:,} known items")
    other_parts = f", validation {report.validation:,}, held out {report.held_out:,}" if report.validation else ""
    console.print(f"  training {report.training:,}{other_parts} sessions")
