"""`clickscore bundle`: check a bundle before a worker loads it."""

import sys
from pathlib import Path

import click

from clickscore.model.json_output import JsonOutput, json_options
from clickscore.stream.commands.options import BundleFolder
from clickscore.stream.scoring.bundle import check_bundle, load_bundle
from clickscore.stream.terminal_text import safe_text


@click.group()
def bundle() -> None:
    """Check a bundle: the folder of one shipped model."""


@bundle.command()
@click.argument("folder", type=BundleFolder())
@json_options
def check(*, folder: Path, json_output: JsonOutput) -> None:
    """Check the bundle in FOLDER; print its problems and exit with code 1 if there are any.

    The name demo stands for the packaged bundle.

    \b
    Example:
      clickscore bundle check demo
      clickscore bundle check bundle --json
    """  # noqa: D301 (\\b tells click to keep the line breaks)
    problems = check_bundle(folder)
    for problem in problems:
        json_output.echo(f"problem: {safe_text(problem)}")
    manifest = None if problems else load_bundle(folder).manifest
    json_output.write({"problems": problems, "manifest": manifest})
    if manifest is None:
        sys.exit(1)
    origin = f"good: {manifest.version}, made with {manifest.framework}, learned from {manifest.training_data}"
    json_output.echo(safe_text(origin))
    json_output.echo(
        f"{manifest.items} items, sessions of up to {manifest.max_length}, {manifest.candidates} candidates"
    )
    if manifest.absent_heads:
        json_output.echo(f"the model has no {' and no '.join(manifest.absent_heads)}: decisions state null there")
    if manifest.unfinished:
        json_output.echo(f"beware: exported from a training that had not ended ({manifest.unfinished})")
    if manifest.fidelity:
        json_output.echo(f"{manifest.precision}: recall@20 against the fp32 graph is {manifest.fidelity.overlap:.2%}")
    for name, value in sorted(manifest.metrics.items()):
        json_output.echo(f"  {safe_text(name)} {value:.4f}")
