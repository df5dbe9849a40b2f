"""`clickscore items`: write the items of recorded events as catalogue records, with the last price and category."""

import gzip
from pathlib import Path
from typing import get_args

import click

from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.events import ItemEvent, decode_record
from clickscore.stream.errors import OutputFileError
from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.formats.registry import Format


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "file_format", type=click.Choice(get_args(Format)), default="clickscore", show_default=True)
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File of JSON lines; gzip for .gz."
)
def items(*, file: Path, file_format: Format, out: Path) -> None:
    """Write the items of the events in FILE as a catalogue, for a shop without a catalogue file.

    `clickscore train --items` reads price and category from this file.

    \b
    Example:
      clickscore items events.csv.gz --format rees46 --out items.jsonl.gz
    """  # noqa: D301
    catalogue: dict[str, Item] = {}
    with EventFile(file, file_format) as lines:
        for line in lines:
            event = _item_event(line.value)
            if event is None:
                continue
            last = catalogue.get(event.item_id) or Item(item_id=event.item_id)
            catalogue[event.item_id] = Item(
                item_id=event.item_id,
                category=event.category or last.category,
                price=event.price if event.price is not None else last.price,
            )
    try:
        with gzip.open(out, "wb") if out.suffix == ".gz" else out.open("wb") as stream:
            stream.writelines(encode(item) + b"\n" for item in catalogue.values())
    except OSError as exc:
        message = f"{out} cannot be written: {exc.strerror}"
        raise OutputFileError(message) from exc
    click.echo(f"{len(catalogue):,} items", err=True)


def _item_event(value: bytes) -> ItemEvent | None:
    """Return the event of a line; absent for a search and for a line that is no event."""
    try:
        record = decode_record(value)
    except ValueError:  # `clickscore events check` reports such lines
        return None
    return record if isinstance(record, ItemEvent) else None
