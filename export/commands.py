"""Command `clickscore export`: from a checkpoint to a bundle. What needs torch is imported when it runs."""

from pathlib import Path

import click

from model.commands import missing_extra

CANDIDATES = 64


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
@click.option("--trainable", is_flag=True, help="Put the checkpoint into the bundle, for `train --from BUNDLE`.")
def export(checkpoint: Path, out: Path, top_k: int, trainable: bool) -> None:
    """Export a CHECKPOINT folder of `clickscore train` as a bundle that a worker serves.

    The graph is run in ONNX Runtime and compared with the model on the held-out sessions; one that does not agree is
    not written. The bundle's metrics are those of the held-out sessions, before the model learned them, too.

    \b
    Example:
      clickscore export checkpoint --out bundle
      clickscore worker --bundle bundle
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    try:
        from export.ship import ship  # noqa: PLC0415 (serving has no torch, and its help lists this command)
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    parity, manifest = ship(checkpoint, out, top_k, trainable=trainable)
    click.echo(
        f"parity: {parity.same_ranking:.2%} of {parity.beginnings:,} rankings the same, scores within "
        f"{parity.score_difference:.2g}, probabilities within {parity.probability_difference:.2g}"
    )
    for name, value in manifest.metrics.items():
        click.echo(f"  {name} {value:g}")
    if manifest.calibration:
        for name, before in manifest.calibration.before.items():
            click.echo(f"  calibrated: validation {name} {before:.4f} -> {manifest.calibration.after[name]:.4f}")
    click.echo(f"wrote bundle {manifest.version}: {manifest.items:,} items, {manifest.candidates} candidates, in {out}")
