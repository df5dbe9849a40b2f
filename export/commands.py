"""Commands that write bundles: `clickscore export`, `import-onnx` and `catalogue encode`.

What needs the train extra is imported when it runs.
"""

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, TaskID

from clickscore.export.bundle_options import CANDIDATES, PRECISIONS
from clickscore.model.commands import missing_extra


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle folder: a new one.")
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=CANDIDATES,
    show_default=True,
    help="Candidates that the graph returns a session; all items where there are fewer.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="int8 finds candidates in whole numbers and scores these in fp32: quicker from some 50,000 items on.",
)
@click.option("--trainable", is_flag=True, help="Put the checkpoint into the bundle, for `train --from BUNDLE`.")
def export(checkpoint: Path, out: Path, top_k: int, precision: str, trainable: bool) -> None:
    """Export a CHECKPOINT folder of `clickscore train` as a bundle that a worker serves.

    The graph is run in ONNX Runtime and compared with the model on the held-out sessions; one that does not agree is
    not written. The bundle's metrics are those of the held-out sessions, before the model learned them, too. What
    --precision int8 loses is measured on these and written into the manifest; a worker refuses a bundle that loses
    more than its setting min_overlap allows.

    \b
    Example:
      clickscore export checkpoint --out bundle
      clickscore worker --bundle bundle
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    try:
        from clickscore.export.export_bundle import export_bundle  # noqa: PLC0415 (serving has no torch)
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    parity, manifest = export_bundle(checkpoint, out, top_k, precision=precision, trainable=trainable)
    click.echo(
        f"parity: {parity.same_ranking:.2%} of {parity.prefixes:,} rankings the same, scores within "
        f"{parity.score_difference:.2g}, probabilities within {parity.probability_difference:.2g}, "
        f"reasons within {parity.reason_difference:.2g}"
    )
    if near := manifest.fidelity:
        click.echo(
            f"{manifest.precision}: {near.overlap:.3%} of the best 20 of {near.beginnings:,} beginnings, "
            f"HR@20 {near.hr:+.4f}, MRR@20 {near.mrr:+.4f}"
        )
    for name, value in manifest.metrics.items():
        click.echo(f"  {name} {value:g}")
    if manifest.calibration:
        for name, before in manifest.calibration.before.items():
            click.echo(f"  calibrated: validation {name} {before:.4f} -> {manifest.calibration.after[name]:.4f}")
    click.echo(f"wrote bundle {manifest.version}: {manifest.items:,} items, {manifest.candidates} candidates, in {out}")


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--items",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Item ids, one a line: line n, from 1, is the item of row n; row 0 is padding.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle folder: a new one.")
@click.option("--name", "names", multiple=True, metavar="OURS=THEIRS", help="What a tensor is called in the graph.")
@click.option("--top-k", type=click.IntRange(min=1), default=CANDIDATES, show_default=True, help="Of item_scores.")
@click.option(
    "--max-length", type=click.IntRange(min=1), default=50, show_default=True, help="Events that it reads at most."
)
@click.option("--framework", default="unknown", show_default=True, help="What made it, for the manifest.")
def import_onnx(
    model: Path, items: Path, *, out: Path, names: tuple[str, ...], top_k: int, max_length: int, framework: str
) -> None:
    """Make a bundle of a MODEL file (ONNX) that another framework exported.

    The graph reads items, and if it likes actions, ages and lengths; it returns action_probabilities, purchase, and
    rows with scores, or item_scores of the whole catalogue, of which the best are taken inside the graph. It is asked
    about sessions alone and beside longer ones, and refused where the answers differ.

    \b
    Example:
      clickscore import-onnx keras.onnx --items items.txt --name item_scores=output_2 --framework "keras 3" --out bundle
      clickscore worker --bundle bundle
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    try:
        from clickscore.export.import_onnx import import_bundle  # noqa: PLC0415 (as above)
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    called = [name.partition("=") for name in names]
    if wrong := [ours for ours, equals, theirs in called if not (ours and equals and theirs)]:
        message = f"--name takes OURS=THEIRS, not {wrong[0]!r}"
        raise click.UsageError(message)
    manifest = import_bundle(
        model,
        items,
        out,
        names={theirs: ours for ours, _, theirs in called},
        candidates=top_k,
        max_length=max_length,
        framework=framework,
    )
    click.echo(f"wrote bundle {manifest.version}: {manifest.items:,} items, {manifest.candidates} candidates, in {out}")


@click.group()
def catalogue() -> None:
    """What to do with the items of a catalogue."""


@catalogue.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--items",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The whole catalogue, JSON lines as catalogue-items holds them (.gz, too): known items teach, new ones join.",
)
@click.option(
    "--encoder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Language model, a folder as Hugging Face lays it out: tokenizer.json with model.onnx, or with config.json "
    "and model.safetensors.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle folder: a new one.")
def encode(bundle: Path, items: Path, encoder: Path, out: Path) -> None:
    """Let a BUNDLE recommend items that it never saw, by their texts, without training.

    A language model turns title, category and brand of each item into a vector. A new item gets its place among the
    model's own from the items nearest to it by text and price that the model has met in sessions. How many, and how far
    new items stand back behind known ones, is chosen on known items that are taken out and put back. Nothing is
    downloaded: the language model is a folder of yours.

    BUNDLE was exported with --trainable, and so is what comes out: top it up with sessions on the new items later
    (train --from), or encode again when newer items have come. Texts that have been read once are remembered in it.

    \b
    Example:
      clickscore export checkpoint --out bundle --trainable
      clickscore catalogue encode bundle --items catalogue.jsonl --encoder all-MiniLM-L6-v2 --out wider
      clickscore worker --bundle wider
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    try:
        from clickscore.export.encode_items import encode as encode_items  # noqa: PLC0415 (as above)
        from clickscore.model.text_encoder import open_text_encoder  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    with Progress(console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name)
            progress.update(tasks[name], completed=done, total=total)

        found = encode_items(bundle, items, open_text_encoder(encoder), out, tell)
    params, hit_rates, queries = found.choice
    click.echo(
        f"learned from {found.teachers:,} items that the model has met in sessions: {params.nearest_anchors} nearest "
        f"known items for each new item, new-item penalty {params.new_item_penalty:g}"
    )
    click.echo(
        f"hit rate@20 over {queries:,} cross-validated queries, in which known items play the new ones in turn: "
        f"{hit_rates.overall:.1%} overall, {hit_rates.mapped:.1%} of items as if new, {hit_rates.known:.1%} of others"
    )
    if found.without_text:
        click.echo(f"left out: {found.without_text:,} new items with neither title, category nor brand")
    click.echo(
        f"wrote bundle {found.manifest.version}: {found.manifest.items:,} items, {found.new:,} of them new, in {out}"
    )
