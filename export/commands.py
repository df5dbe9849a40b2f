"""Commands that write bundles: `clickscore export`, `import-onnx`, `recalibrate` and `catalogue encode`.

The commands import the train extra when they run, because the help of the serving environment lists them, too.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, TaskID

from clickscore.export.bundle_options import CANDIDATES, PRECISIONS
from clickscore.model.bundle_folder import BundleFolder
from clickscore.model.commands import missing_extra
from clickscore.model.session_files import DatasetReport
from clickscore.schemas.manifest import HEADS, Manifest


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle folder: a new one.")
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=CANDIDATES,
    show_default=True,
    help="Number of candidates per session; all items where the catalogue has fewer.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="int8: find candidates with 8-bit products and score them in fp32. With the native operator, which pip builds "
    "where a C compiler exists, faster from about 50,000 items on.",
)
@click.option(
    "--mean-with",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    metavar="CHECKPOINT",
    help="Rank by the mean score of CHECKPOINT and this one: the same sessions, trained with another --seed; "
    "repeatable. A call takes almost twice the time with two checkpoints.",
)
@click.option(
    "--trainable",
    is_flag=True,
    help="Put the checkpoint into the bundle, so that `train --from BUNDLE` can fine-tune it.",
)
@click.option(
    "--unfinished", is_flag=True, help="Export a training that has not ended. The manifest and `bundle check` say so."
)
@click.option(
    "--session-neighbours/--no-session-neighbours",
    default=True,
    show_default=True,
    help="Put the index of similar training sessions into the graph, where the training found that it helps.",
)
@click.option("--verbose", is_flag=True, help="Print every metric of the manifest.")
def export(
    checkpoint: Path,
    *,
    out: Path,
    top_k: int,
    precision: str,
    mean_with: tuple[Path, ...],
    trainable: bool,
    unfinished: bool,
    session_neighbours: bool,
    verbose: bool,
) -> None:
    """Export a CHECKPOINT folder of `clickscore train` as a bundle that a worker serves.

    The export runs the graph in ONNX Runtime and compares it with the model on the held-out sessions. It refuses a
    graph that does not agree. The bundle's metrics are held-out metrics, measured before the final pass may have
    trained on these sessions. The loss by --precision int8 is measured on the same sessions and written into the
    manifest; a worker refuses a bundle whose overlap is below its setting min_overlap. A training that has not ended is
    refused: go on with it, or name --unfinished.

    \b
    Example:
      clickscore export checkpoint --out bundle
      clickscore worker --bundle bundle
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    try:
        from clickscore.export.export_bundle import export_bundle  # noqa: PLC0415 (serving has no torch)
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    parity, manifest = export_bundle(
        checkpoint,
        out,
        top_k,
        precision=precision,
        mean_with=mean_with,
        trainable=trainable,
        unfinished=unfinished,
        session_neighbours=session_neighbours,
    )
    click.echo(
        f"parity: {parity.same_ranking:.2%} of {parity.prefixes:,} rankings equal, scores within "
        f"{parity.score_difference:.2g}, probabilities within {parity.probability_difference:.2g}, "
        f"reasons within {parity.reason_difference:.2g}"
    )
    if fidelity := manifest.fidelity:
        click.echo(
            f"{manifest.precision}: {fidelity.overlap:.3%} of the best 20 of {fidelity.beginnings:,} prefixes, "
            f"HR@20 {fidelity.hr:+.4f}, MRR@20 {fidelity.mrr:+.4f}"
        )
    if index := manifest.session_neighbours:
        click.echo(
            f"session neighbours: {index.sessions:,} sessions, {index.bytes / 2**20:.1f} MB, factor {index.factor:g}"
        )
    for sentence in _describe_metrics(manifest.metrics):
        click.echo(sentence)
    if verbose:
        _print_metrics(manifest)
    if manifest.unfinished:
        click.echo(f"beware: the training has not ended ({manifest.unfinished})")
    click.echo(f"wrote bundle {manifest.version}: {manifest.items:,} items, {manifest.candidates} candidates, in {out}")
    click.echo(f"next: clickscore worker --bundle {out}")


def _describe_metrics(metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield what the held-out metrics of a bundle say, in sentences; nothing for a bundle without metrics."""
    if metrics.get("ranked_events"):
        yield (
            f"On {metrics['sessions']:,.0f} held-out sessions the next item is among the first 20 in "
            f"{100 * metrics['hit_rate@20']:.1f} % of the cases, and among the 20 most popular items in "
            f"{100 * metrics['popular_hit_rate@20']:.1f} %."
        )
    if metrics.get("purchase_rate"):
        yield (
            f"Purchases are predicted with a PR-AUC of {metrics['purchase_pr_auc']:.3f} (by chance "
            f"{metrics['purchase_rate']:.3f}), and their probability is off by "
            f"{100 * metrics['purchase_calibration_error']:.1f} points on average."
        )


def _print_metrics(manifest: Manifest) -> None:
    """Print every metric, and what calibration changed."""
    hidden = () if manifest.metrics.get("purchase_rate", 1) else ("purchase_",)  # they say nothing without a purchase
    for name, value in manifest.metrics.items():
        if not name.startswith(hidden):
            click.echo(f"  {name} {value:g}")
    if manifest.calibration:
        for name, value in manifest.calibration.before.items():
            if not name.startswith(hidden):
                click.echo(f"  calibrated: validation {name} {value:.4f} -> {manifest.calibration.after[name]:.4f}")


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--items",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Item ids, one per line: line n, from 1, is the item of row n; row 0 is padding.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle folder: a new one.")
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="OURS=THEIRS",
    help="Name of a tensor in the contract, and its name in the graph; repeatable.",
)
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=CANDIDATES,
    show_default=True,
    help="Number of candidates to take of item_scores.",
)
@click.option(
    "--max-length", type=click.IntRange(min=1), default=50, show_default=True, help="Largest number of events to read."
)
@click.option(
    "--framework", default="unknown", show_default=True, help="Name and version of the framework, for the manifest."
)
@click.option(
    "--padding-column",
    is_flag=True,
    help="Drop column 0 of item_scores, which scores the padding row (RecBole and others return such a column).",
)
def import_onnx(
    model: Path,
    items: Path,
    *,
    out: Path,
    names: tuple[str, ...],
    top_k: int,
    max_length: int,
    framework: str,
    padding_column: bool,
) -> None:
    """Make a bundle of a MODEL file (ONNX) that another framework exported.

    The graph reads items, and may read actions, ages and lengths. It returns rows with scores, or item_scores of the
    whole catalogue, of which the import takes the top k. It may return action_probabilities and purchase; decisions
    state null for an output that it lacks. The import casts other number formats, and takes weights in a second file
    into the bundle. It runs every item, alone and in a batch, and refuses a graph that a worker could not serve.

    \b
    Example:
      clickscore import-onnx keras.onnx --items items.txt --name item_scores=output_2 --framework "keras 3" --out bundle
      clickscore worker --bundle bundle
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    try:
        from clickscore.export.import_onnx import import_bundle  # noqa: PLC0415 (as above)
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    pairs = [name.partition("=") for name in names]
    if any(not (ours and equals and theirs) for ours, equals, theirs in pairs):
        message = f"--name takes OURS=THEIRS, such as item_scores=output_2, not {' '.join(names)!r}"
        raise click.UsageError(message)
    manifest, unused = import_bundle(
        model,
        items,
        out,
        names={theirs: ours for ours, _, theirs in pairs},
        candidates=top_k,
        max_length=max_length,
        framework=framework,
        padding_column=padding_column,
    )
    if absent := manifest.absent_heads:
        hint = f"; the graph also returns {', '.join(unused)}, which --name can map" if unused else ""
        click.echo(f"the graph has no {' and no '.join(absent)}, so decisions state null there{hint}")
    click.echo(f"wrote bundle {manifest.version}: {manifest.items:,} items, {manifest.candidates} candidates, in {out}")


@click.command()
@click.argument("bundle", type=BundleFolder())
@click.argument("sessions", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle folder: a new one.")
@click.option(
    "--refit",
    is_flag=True,
    help="Also fit trees and a regression on the SESSIONS, and let them replace each head that they beat: for a shop "
    "whose habits the bundle does not know. It takes minutes.",
)
def recalibrate(bundle: Path, sessions: tuple[Path, ...], *, out: Path, refit: bool) -> None:
    """Correct the level of a BUNDLE's probabilities on recent SESSIONS, without training.

    Rates of actions and purchases move by hour and day, and from shop to shop. The correction is a scale and a bounded
    shift of the logits of each head. A head stays as it is unless the correction lowers its cross-validated log loss by
    more than two standard errors. Items, scores and reasons stay bit for bit as they are. The new bundle has a content
    hash of its own, and its manifest has the shifts (`level`). An earlier correction is replaced.

    The SESSIONS should be newer than those that the bundle was trained on, and some hundred of them. Fewer than 50 are
    refused, and fewer than 150 with --refit.

    \b
    Example:
      clickscore tail closed-sessions --json --until-end > recent.jsonl
      clickscore recalibrate bundle recent.jsonl --out fresher
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    try:
        from clickscore.export.recalibrate import recalibrate_bundle  # noqa: PLC0415 (as above)
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    manifest = recalibrate_bundle(bundle, sessions, out, refit_heads=refit, on_read=_print_dropped)
    if refit and not (manifest and manifest.level and manifest.level.refit):
        click.echo("no head was fitted anew: trees and regression do not beat the bundle by two standard errors")
    if manifest is None or manifest.level is None:
        click.echo("the level fits the recent sessions, within two standard errors: no bundle was written")
        return
    level = manifest.level
    names = {"next_action_log_loss": "log loss of the next action", "purchase_log_loss": "log loss of a purchase"}
    for name, words in (names | {"purchase_calibration_error": "calibration error of a purchase"}).items():
        click.echo(f"{words}, after {level.events:,} events: {level.before[name]:.4f} -> {level.after[name]:.4f}")
    shifts = ", ".join(f"{name} {shift:+.2f}" for name, shift in level.action_shifts.items())
    click.echo(f"shifts of the logits: purchase later {level.purchase_shift:+.2f}; next action: {shifts}")
    if level.refit:
        click.echo(f"fitted anew: {' and '.join(level.refit.heads)}; cross-validated on {level.refit.events:,} events:")
        for head, (name, words) in zip(HEADS, names.items(), strict=True):
            if head in level.refit.heads:
                click.echo(f"{words}: {level.refit.before[name]:.4f} -> {level.refit.after[name]:.4f}")
    click.echo(f"wrote bundle {manifest.version}, in {out}")
    click.echo(f"next: clickscore worker --bundle {out}")


def _print_dropped(report: DatasetReport) -> None:
    """Print what the session files hold and the command does not use."""
    for text in report.list_dropped():
        click.echo(text)


@click.group()
def catalogue() -> None:
    """Work with the items of a catalogue."""


@catalogue.command()
@click.argument("bundle", type=BundleFolder())
@click.option(
    "--items",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The whole catalogue as JSON lines, in the format of the topic catalogue-items (.gz, too).",
)
@click.option(
    "--encoder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of a language model in Hugging Face's layout: tokenizer.json with model.onnx, or with config.json and "
    "model.safetensors.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle folder: a new one.")
def encode(bundle: Path, items: Path, encoder: Path, out: Path) -> None:
    """Add new items to a BUNDLE by their texts, without training (item cold start).

    A language model turns title, category and brand of each item into a vector. A kernel map, fitted on known items
    with co-occurrences in sessions, predicts the item vector of a new item from its text and price. Cross-validation on
    known items chooses the number of nearest anchors and the penalty of new items. Nothing is downloaded: the language
    model is a local folder.

    BUNDLE must be exported with --trainable. The new bundle is trainable, too: fine-tune it on sessions with the new
    items later (train --from), or encode again for a newer catalogue. The bundle caches the vectors of texts.

    \b
    Example:
      clickscore export checkpoint --out bundle --trainable
      clickscore catalogue encode bundle --items catalogue.jsonl --encoder all-MiniLM-L6-v2 --out wider
      clickscore worker --bundle wider
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    try:
        from clickscore.export.encode_items import encode_items  # noqa: PLC0415 (as above)
        from clickscore.model.text_encoder import open_text_encoder  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    with Progress(console=Console(stderr=True, markup=False)) as progress:
        tasks: dict[str, TaskID] = {}

        def report_progress(step: str, completed: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step)
            progress.update(tasks[step], completed=completed, total=total)

        encoded = encode_items(bundle, items, open_text_encoder(encoder), out, report_progress)
    params, hit_rates, queries = encoded.choice
    click.echo(
        f"fitted on {encoded.anchors:,} items that the model has met in sessions: {params.nearest_anchors} nearest "
        f"known items for each new item, new-item penalty {params.new_item_penalty:g}"
    )
    click.echo(
        f"hit rate@20 over {queries:,} cross-validated queries, in which known items play the new ones in turn: "
        f"{hit_rates.overall:.1%} overall, {hit_rates.mapped:.1%} of items as if new, {hit_rates.known:.1%} of others"
    )
    if encoded.without_text:
        click.echo(f"left out: {encoded.without_text:,} new items with neither title, category nor brand")
    manifest = encoded.manifest
    click.echo(f"wrote bundle {manifest.version}: {manifest.items:,} items, {encoded.new:,} of them new, in {out}")
    if encoded.is_recalibrated:
        click.echo(f"next: clickscore recalibrate {out} SESSIONS: the new bundle lacks the corrected level of {bundle}")
