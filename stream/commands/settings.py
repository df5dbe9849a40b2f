"""`clickscore settings`: every setting with its value and source."""

import sys
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from clickscore.model.json_output import JsonOutput, json_options
from clickscore.stream.settings import SETTINGS, load

HIDDEN = "********"


@click.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings file (TOML).")
@json_options
def settings(*, config: Path | None, json_output: JsonOutput) -> None:
    """Show every setting with unit, value and source. Secrets are hidden.

    Every setting can be set by CLICKSCORE_NAME in the environment or by a line of clickscore.toml, and many by a flag.

    \b
    Example:
      CLICKSCORE_GAP_MS=900000 clickscore settings
      clickscore settings --json
    """  # noqa: D301
    loaded, origins = load(file=config)
    values = {name: HIDDEN if value and SETTINGS[name].secret else value for name, value in loaded.values.items()}
    json_output.write(
        {name: {"value": values[name], "unit": row.unit, "from": origins[name]} for name, row in SETTINGS.items()}
    )
    if json_output.to_stdout:
        return
    table = Table("setting", "value", "unit", "from", "what", box=box.SIMPLE_HEAD)
    for name, setting in SETTINGS.items():
        table.add_row(name, str(values[name]), setting.unit, origins[name], setting.sentence)
    # A pipe has no width; 200 columns keep each row on one line.
    Console(width=None if sys.stdout.isatty() else 200, markup=False).print(table)
