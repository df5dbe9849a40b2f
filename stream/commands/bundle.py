"""`clickscore bundle`: check a bundle before a worker loads it."""

import sys
from pathlib import Path

import click

from clickscore.stream.commands.options import BundleFolder
from clickscore.stream.scoring.bundle import check_bundle, load_bundle
from clickscore.stream.terminal_text import safe_text


@click.group()
def bundle() -> None:
    """Check a bundle: the folder of one shipped model."""


@bundle.command()
@click.argument("folder", type=BundleFolder())
def check(folder: Path) -> None:
    """Check the bundle in FOLDER; print its problems and exit with code 1 if there are any.

    The name demo stands for the packaged bundle.

    \b
    Example:
      clickscore bundle check demo
    """  # noqa: D301 (\\b tells click to keep the line breaks)
    problems = check_bundle(folder)
    for problem in problems:
        click.echo(f"problem: {safe_text(problem)}")
    if problems:
        sys.exit(1)
    manifest = load_bundle(folder).manifest
    origin = f"good: {manifest.version}, made with {manifest.framework}, learned from {manifest.training_data}"
    click.echo(safe_text(origin))
    click.echo(f"{manifest.items} items, sessions of up to {manifest.max_length}, {manifest.candidates} candidates")
    if manifest.absent_heads:
        click.echo(f"the model has no {' and no '.join(manifest.absent_heads)}: decisions state null there")
    if manifest.unfinished:
        click.echo(f"beware: exported from a training that had not ended ({manifest.unfinished})")
    if manifest.fidelity:
        click.echo(f"{manifest.precision}: recall@20 against the fp32 graph is {manifest.fidelity.overlap:.2%}")
    for name, value in sorted(manifest.metrics.items()):
        click.echo(f"  {safe_text(name)} {value:.4f}")
