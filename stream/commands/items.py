"""`clickscore items`: write the items of recorded events as catalogue records, with the last price and category."""

import gzip
import sys
from pathlib import Path

import click

from clickscore.model.output_file import OUTPUT_FILE_OR_STDOUT
from clickscore.model.own_source import refuse_own_source
from clickscore.schemas.catalogue import encode
from clickscore.schemas.errors import OutputFileError
from clickscore.stream.commands.options import format_option
from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.recorded_items import collect_items


@click.command()
@click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
@format_option
@click.option(
    "--out",
    required=True,
    type=OUTPUT_FILE_OR_STDOUT,
    help="File of JSON lines; gzip for .gz; - is standard output.",
)
def items(*, file: Path, file_format: str, out: Path) -> None:
    """Write the items of the events in FILE as a catalogue, for a shop without a catalogue file.

    `clickscore train --items` reads price and category from this file.

    \b
    Example:
      clickscore items events.csv.gz --format rees46 --out items.jsonl.gz

    \f
    Args:
        file: File of events.
        file_format: Format of the file.
        out: File of the catalogue; `-` is standard output.
    """  # noqa: D301
    refuse_own_source(out, file)
    with EventFile(file, file_format) as lines:
        catalogue = collect_items(lines)
        lines.require_event()
    try:
        _write_lines(out, [encode(item) + b"\n" for item in catalogue])
    except OSError as exc:
        message = f"{out} cannot be written: {exc.strerror}"
        raise OutputFileError(message) from exc
    click.echo(f"{len(catalogue):,} items", err=True)


def _write_lines(out: Path, lines: list[bytes]) -> None:
    """Write lines to a file; `-` is standard output."""
    if str(out) == "-":
        sys.stdout.buffer.writelines(lines)
        return
    with gzip.open(out, "wb") if out.suffix == ".gz" else out.open("wb") as stream:
        stream.writelines(lines)
