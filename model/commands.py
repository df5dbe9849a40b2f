"""Commands of learning and judging: `train`, `tune`, `evaluate`, `evaluate-events`, `evaluate-reasons` and `split`.

What needs torch is imported when it runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from clickscore.model.catalogue_items import read_catalogue
from clickscore.model.config import PRESETS, TrainConfig, format_preset, override, read_preset
from clickscore.model.dataset import load_dataset, load_fine_tuning_data
from clickscore.model.errors import TrainingError
from clickscore.model.session_files import DatasetReport

if TYPE_CHECKING:
    from clickscore.model.evaluation.head_evaluation import PrefixLengthResults
    from clickscore.model.split import SplitKey

EXTRA = {"torch", "onnx", "optuna", "sklearn", "lightgbm", "tokenizers", "transformers"}
"""What the extras train and encode bring."""
TABLE_WIDTH = 120
FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("files", nargs=-1, type=FILE, metavar="[SESSIONS]...")
@click.option("--sessions", multiple=True, type=FILE, help="The same as SESSIONS; repeatable.")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Checkpoint folder: a new one, or one to go on with.",
)
@click.option(
    "--from",
    "origin",
    type=FOLDER,
    help="Top up: a checkpoint, or a bundle that was exported with --trainable. SESSIONS are those it has not seen.",
)
@click.option("--items", type=FILE, help="The catalogue, JSON lines: trees read prices and categories.")
@click.option(
    "--preset",
    metavar="NAME|FILE",
    help=f"Size of model and run: {', '.join(PRESETS)}, or what `tune` wrote. Default: default.",
)
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Passes over the sessions, at most. Default: 4, or 8 if there are few."
)
@click.option("--seed", type=click.IntRange(min=0), help="Of weights, order and dropout. Default: the preset's.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: as many as there are cores.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another field of model.config, such as dim=128; repeatable.",
)
def train(
    *,
    files: tuple[Path, ...],
    sessions: tuple[Path, ...],
    out: Path,
    origin: Path | None,
    items: Path | None,
    preset: str | None,
    epochs: int | None,
    seed: int | None,
    threads: int | None,
    changes: Sequence[str],
) -> None:
    """Train a model on SESSIONS, or top one up with newer ones.

    SESSIONS are files of JSON lines, as the topic closed-sessions holds them, or, where the name ends in .tsv or .txt,
    of item ids, one session a line, the oldest first; .gz too. The newest sessions are kept apart until the end: they
    say when to stop and how good the model is, and are learned in a last, short pass. The same command goes on where a
    killed run stopped.

    \b
    Example:
      clickscore train sessions.jsonl.gz --out checkpoint --preset small
      clickscore train --from checkpoint --sessions newer.jsonl.gz --out fresher
      clickscore export fresher --out bundle
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    sessions = _named(files, sessions)
    if origin and (preset or epochs or seed is not None or changes or items):
        message = "--from goes on with the settings of what it tops up: no --preset, --epochs, --seed, --set or --items"
        raise click.UsageError(message)
    config = _config(preset or "default", epochs, seed, changes)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        import torch  # noqa: PLC0415 (serving has no torch, and its help lists this command)

        from clickscore.model.checkpoint import find_checkpoint, load_checkpoint, load_pairs, load_texts, save_texts  # noqa: PLC0415
        from clickscore.model.train import fine_tune  # noqa: PLC0415
        from clickscore.model.train import train as train_model  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    if threads:
        torch.set_num_threads(threads)

    if origin:
        folder, name = find_checkpoint(origin)
        previous = load_checkpoint(folder)
        newer = load_fine_tuning_data(sessions, previous.record.config, previous.vocabulary)
        _show(newer.report, console)
        lineage = f"{name}: {previous.record.report.summary()}"
        record = fine_tune(previous, load_pairs(folder), newer, out, lineage=lineage, console=console)
        if texts := load_texts(folder):
            save_texts(out, texts)
    else:
        dataset = load_dataset(sessions, config, read_catalogue(items))
        _show(dataset.report, console)
        record = train_model(dataset, config, out, console)
        console.print(f"kept epoch {record.best_epoch} of {len(record.epochs)}")
    figures = ", ".join(
        f"{name} {record.held_out_metrics[name]:.4f}" for name in ("hit_rate@20", "mrr@20", "purchase_pr_auc")
    )
    console.print(f"on the newest sessions, before they were learned, too: {figures}")
    console.print(f"next: clickscore export {out} --out BUNDLE")


@click.command()
@click.argument("files", nargs=-1, type=FILE, metavar="[SESSIONS]...")
@click.option("--sessions", multiple=True, type=FILE, help="The same as SESSIONS; repeatable.")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The best preset so far; the trials are remembered beside it, in a file whose name ends in .trials.",
)
@click.option("--preset", default="default", show_default=True, metavar="NAME|FILE", help="Where the search starts.")
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True, help="In all, earlier runs' too.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: as many as there are cores.")
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change the preset that it starts from; repeatable."
)
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
    """Search for hyper-parameters that rank SESSIONS better than a preset does, and write them as a preset.

    Each trial is a training without its last pass, judged by the MRR on the validation sessions; one that lags behind
    is stopped early. The same command goes on where a killed search stopped. Sizes that serving pays for are not
    searched: set them.

    \b
    Example:
      clickscore tune --sessions sessions.jsonl.gz --preset small --trials 30 --out preset.toml
      clickscore train sessions.jsonl.gz --out checkpoint --preset preset.toml
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    config = _config(preset, None, None, changes)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        import torch  # noqa: PLC0415 (serving has no torch, and its help lists this command)

        from clickscore.model.train import STOPPING_METRIC  # noqa: PLC0415
        from clickscore.model.tune import tune as search  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    if threads:
        torch.set_num_threads(threads)
    dataset = load_dataset(_named(files, sessions), config)
    _show(dataset.report, console)
    journal = out.with_name(out.name + ".trials")
    for result in search(dataset, config, trials=trials, journal=journal, console=console):
        trial = f"trial {result.best} of {result.trials} from preset {preset}"
        score = f"validation {STOPPING_METRIC} {result.score:.4f}, {trial}"
        out.write_text(format_preset(result.config, f"clickscore tune: {score}"), encoding="utf-8")
        console.print(f"best so far: {score}")
    console.print(f"next: clickscore train SESSIONS --out CHECKPOINT --preset {out}")


@click.command()
@click.argument("bundle", type=FOLDER)
@click.option("--prefixes", required=True, type=FILE, help="Rows of the test: item ids, a tab, the item that follows.")
@click.option("--sessions", multiple=True, type=FILE, help="Training sessions, for the baselines; repeatable.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here, too.")
def evaluate(*, bundle: Path, prefixes: Path, sessions: tuple[Path, ...], out: Path | None) -> None:
    """Measure a BUNDLE on beginnings of sessions, beside what counting reaches.

    Every row is asked alone, in ONNX Runtime, over the whole catalogue; items that the session has had may follow
    again, and an item of the same score stands before the right one. An item that the model does not know is a miss.

    \b
    Example:
      clickscore evaluate bundle --prefixes test.tsv.gz --sessions train.tsv.gz --json results.json
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    from clickscore.model.evaluation.prefix_evaluation import CUTOFFS, evaluate_prefixes  # noqa: PLC0415 (ONNX Runtime takes a moment to load)

    console = Console(highlight=False, soft_wrap=True)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name)
            progress.update(tasks[name], completed=done, total=total)

        results = evaluate_prefixes(bundle, prefixes, sessions, tell)
    metrics = [f"{kind}@{k}" for k in CUTOFFS for kind in ("P", "MRR", "NDCG")]
    table = Table("percent", *(result.name for result in results), title=f"{results[0].rows:,} rows")
    for metric in metrics:
        figures = [result.figures[metric] for result in results]
        table.add_row(metric, *(f"{of.value:.2f} ({of.low:.2f}-{of.high:.2f})" for of in figures))
    console.print(table)
    console.print("In brackets: the middle 95 % of what it is on rows drawn from these.")
    last = metrics[-3:]
    table = Table("events before", "rows", *last, title="bundle, by length of the prefix")
    for length, of in results[0].by_length.items():
        table.add_row(length, f"{of['rows']:,.0f}", *(f"{of[metric]:.2f}" for metric in last))
    console.print(table)
    if out:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


@click.command("evaluate-events")
@click.argument("bundle", type=FOLDER)
@click.option("--sessions", multiple=True, required=True, type=FILE, help="What the bundle learned from; repeatable.")
@click.option("--test", multiple=True, required=True, type=FILE, help="Sessions to judge by; repeatable.")
@click.option("--items", type=FILE, help="The catalogue, JSON lines, for prices and categories.")
@click.option("--truth", type=FILE, help="Of a simulated test: what `simulate --truth` wrote.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here, too.")
def evaluate_events(
    *,
    bundle: Path,
    sessions: tuple[Path, ...],
    test: tuple[Path, ...],
    items: Path | None,
    truth: Path | None,
    out: Path | None,
) -> None:
    """Measure how a BUNDLE foretells the next action and a purchase, beside what others make of the same beginnings.

    Judged after 1, 2, 3, 5 and 10 events of sessions without a purchase so far. Beside the bundle: shares, a Markov
    chain, logistic regression and LightGBM, fitted in the same run on the sessions that the bundle learned from. Where
    the truth is known, probabilities are held against it, too.

    \b
    Example:
      clickscore split sessions.jsonl.gz --by time --training train.jsonl.gz --test test.jsonl.gz
      clickscore train train.jsonl.gz --out checkpoint
      clickscore export checkpoint --out bundle
      clickscore evaluate-events bundle --sessions train.jsonl.gz --test test.jsonl.gz
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    try:
        from clickscore.model.evaluation.head_evaluation import evaluate_heads  # noqa: PLC0415 (serving has no scikit-learn)
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    console = Console(highlight=False, width=TABLE_WIDTH)
    with Console(stderr=True).status("") as status:
        results = evaluate_heads(bundle, sessions, test, status.update, items=items, truth=truth)
    for of in results.by_events:
        console.print(_heads_table(of))
        if of.truth_errors:
            console.print(_truth_error_table(of))
        lead = of.lead
        console.print(f"PR-AUC of the bundle less LightGBM's: {lead.value:+.4f} ({lead.low:+.4f} to {lead.high:+.4f})")
    if results.fallback_share:
        console.print(f"The bundle knows no item of {results.fallback_share:.1%} of the rows: the base rate stands in.")
    console.print(
        "noise: what the calibration error would be on average if every probability were right. "
        "In brackets: the middle 95 % over draws of rows."
    )
    if out:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


@click.command("evaluate-reasons")
@click.argument("checkpoint", type=FOLDER)
@click.option("--prefixes", required=True, type=FILE, help="Rows of the test: item ids, a tab, the item that follows.")
@click.option(
    "--rows", type=click.IntRange(min=1), default=1_000, show_default=True, help="Drawn, of 3 known events up."
)
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here, too.")
def evaluate_reasons(*, checkpoint: Path, prefixes: Path, rows: int, out: Path | None) -> None:
    """Measure whether the reasons that a CHECKPOINT's bundle gives are those that move its scores.

    Each order of a session's events, the most important first, is tried on the best item of its answer and on the best
    five: events leave in that order (deletion), or come in it (insertion). CHECKPOINT may be a bundle that was exported
    with --trainable.

    \b
    Example:
      clickscore evaluate-reasons checkpoint --prefixes test.tsv.gz
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    try:
        from clickscore.model.checkpoint import find_checkpoint  # noqa: PLC0415 (serving has no torch)
        from clickscore.model.evaluation.reason_faithfulness import TOP_ITEMS, evaluate_reasons  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    console = Console(highlight=False, width=TABLE_WIDTH)
    with Console(stderr=True).status("") as status:
        results = evaluate_reasons(find_checkpoint(checkpoint)[0], prefixes, rows, status.update)
    metrics = ("deletion", "insertion", "first", "exit", "lead")
    for title, suffix in (("the best item", ""), (f"the best {TOP_ITEMS} items", f"@{TOP_ITEMS}")):
        table = Table("order", *metrics, title=f"explained: {title}, of {results.sessions:,} sessions")
        for order in results.orders:
            figures = [order.figures[metric + suffix] for metric in metrics]
            table.add_row(order.name, *(f"{of.value:.3f} ({of.low:.3f} to {of.high:.3f})" for of in figures))
        console.print(table)
    console.print(
        "Log-probability of the item, in nats. deletion: lost as events leave, the most important first, mean over the "
        "curve. insertion: still missing as they come. first: lost when the first alone leaves. exit: share of items "
        f"that are no longer among the best {TOP_ITEMS} then. lead: of the contributions over this order, deletion and "
        "insertion together. In brackets: the middle 95 % over draws of sessions."
    )
    if out:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


def _heads_table(of: "PrefixLengthResults") -> Table:
    events = f"after {of.events} event{'s' * (of.events > 1)}" if of.events else "all"
    names = ("PR-AUC", "ROC-AUC", "log loss", "Brier", "ECE", "noise", "action F1", "action log loss")
    table = Table("", *names, title=f"{events}: {of.rows:,} rows, a purchase follows {of.base_rate:.2%}")
    for name, figures in of.models.items():
        table.add_row(name, *(f"{value:.4f}" for value in msgspec.structs.astuple(figures)))
    return table


def _truth_error_table(of: "PrefixLengthResults") -> Table:
    names = ("mean difference", "ECE", "share of log loss", "share of PR-AUC")
    table = Table("against the truth", *names)
    for name, errors in of.truth_errors.items():
        table.add_row(name, *(f"{value:.4f}" for value in msgspec.structs.astuple(errors)))
    return table


@click.command()
@click.argument("source", type=FILE, metavar="SESSIONS")
@click.option("--training", required=True, type=click.Path(dir_okay=False, path_type=Path), help="To learn from.")
@click.option("--test", required=True, type=click.Path(dir_okay=False, path_type=Path), help="To judge by.")
@click.option("--by", type=click.Choice(["time", "user"]), default="time", show_default=True, help="What decides.")
@click.option(
    "--share", type=click.FloatRange(0.01, 0.99), default=0.3, show_default=True, help="Of the sessions, for the test."
)
def split(*, source: Path, training: Path, test: Path, by: "SplitKey", share: float) -> None:
    """Split closed SESSIONS into some to learn from and some to judge by.

    By time, the newest are the test, and what was open across the border is in neither; by user, a hash decides.

    \b
    Example:
      clickscore split sessions.jsonl.gz --by time --training train.jsonl.gz --test test.jsonl.gz
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    from clickscore.model.split import split_sessions  # noqa: PLC0415 (what no other command needs)

    learned, judged, neither = split_sessions(source, training, test, by, share)
    click.echo(f"{learned:,} sessions to learn from, {judged:,} to judge by, {neither:,} across the border")


def _named(files: tuple[Path, ...], sessions: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the files of sessions, whichever way they were named."""
    if not (files or sessions):
        message = "name a file of sessions"
        raise click.UsageError(message)
    return *files, *sessions


def missing_extra(exc: ModuleNotFoundError) -> Exception:
    """Return what to raise where a module is missing: a hint if it is one of the train extra's, else the bug itself."""
    if exc.name not in EXTRA:
        return exc
    return TrainingError(f"this needs more than serving does ({exc.name} is missing): make setup-train")


def _config(preset: str, epochs: int | None, seed: int | None, changes: Sequence[str]) -> TrainConfig:
    pairs = [change.partition("=") for change in changes]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        message = f"--set takes NAME=VALUE, not {wrong[0]!r}"
        raise TrainingError(message)
    flags = {name: str(value) for name, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    return override(read_preset(preset), {name: value for name, _, value in pairs} | flags)


def _show(report: DatasetReport, console: Console) -> None:
    """Print what was read, and what became of it."""
    console.print(f"read {report.lines:,} lines of {len(report.files)} file(s)")
    for reason, number in report.dropped.items():
        console.print(f"  left out: {number:,} x {reason}")
    if report.problem:
        console.print(f"  first malformed line: {report.problem}")
    console.print(f"  {report.sessions:,} sessions with {report.events:,} events, {report.items:,} known items")
    apart = f", validation {report.validation:,}, held out {report.held_out:,}" if report.validation else ""
    console.print(f"  training {report.training:,}{apart} sessions")
