"""`clickscore items`: the items of recorded events as catalogue records, with the price and category last seen."""

import gzip
from pathlib import Path
from typing import get_args

import click

from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.events import ItemEvent, decode_record
from clickscore.stream.errors import OutputFileError
from clickscore.stream.event_files.formats.registry import Format
from clickscore.stream.event_files.reader import EventFile


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "file_format", type=click.Choice(get_args(Format)), default="clickscore", show_default=True)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="JSON lines; .gz, too.")
def items(*, file: Path, file_format: Format, out: Path) -> None:
    """Write the items of the events of FILE as a catalogue, for a shop that has none at hand.

    Training reads price and category from it: `clickscore train --items`.

    \b
    Example:
      clickscore items events.csv.gz --format rees46 --out items.jsonl.gz
    """  # noqa: D301
    found: dict[str, Item] = {}
    with EventFile(file, file_format) as lines:
        for line in lines:
            event = _event(line.value)
            if event is None:
                continue
            before = found.get(event.item_id)
            found[event.item_id] = Item(
                item_id=event.item_id,
                category=event.category or (before.category if before else ""),
                price=event.price if event.price is not None else before.price if before else None,
            )
    try:
        with gzip.open(out, "wb") if out.suffix == ".gz" else out.open("wb") as written:
            written.writelines(encode(item) + b"\n" for item in found.values())
    except OSError as exc:
        message = f"{out} cannot be written: {exc.strerror}"
        raise OutputFileError(message) from exc
    click.echo(f"{len(found):,} items", err=True)


def _event(value: bytes) -> ItemEvent | None:
    """Return the event of a line, none where it is about no item."""
    try:
        record = decode_record(value)
    except ValueError:  # an error in words, or a broken line, which `events check` tells
        return None
    return record if isinstance(record, ItemEvent) else None
