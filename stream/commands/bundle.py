"""`clickscore bundle`: look at a bundle before a worker does."""

import sys
from pathlib import Path

import click

from clickscore.stream.scoring.bundle import check_bundle, load_bundle


@click.group()
def bundle() -> None:
    """Look at a bundle: the folder of one shipped model."""


@bundle.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def check(folder: Path) -> None:
    """Say what is wrong with the bundle in FOLDER; exit code 1 where something is.

    \b
    Example:
      clickscore bundle check stream/bundles/demo
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)
    problems = check_bundle(folder)
    for problem in problems:
        click.echo(f"wrong: {problem}")
    if problems:
        sys.exit(1)
    manifest = load_bundle(folder).manifest
    click.echo(f"good: {manifest.version}, made with {manifest.framework}, learned from {manifest.training_data}")
    click.echo(f"{manifest.items} items, sessions of up to {manifest.max_length}, {manifest.candidates} candidates")
    if manifest.fidelity:
        click.echo(f"{manifest.precision}: finds {manifest.fidelity.overlap:.2%} of the exact best 20")
    for name, value in sorted(manifest.metrics.items()):
        click.echo(f"  {name} {value:.4f}")
