"""Item facts: what a file of catalogue records says of items: price and category, and their texts."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from clickscore.model.dataset import read_lines
from clickscore.model.errors import TrainingError
from clickscore.model.prefix_features import CatalogueAttributes
from clickscore.schemas.catalogue import Item, decode_item

_APART = str.maketrans(dict.fromkeys("._/>|", " "))


def read_catalogue(path: Path | None) -> CatalogueAttributes:
    """Return what a file of JSON lines, as `catalogue-items` holds them, says of items; nothing without a file.

    Raises:
        TrainingError: It cannot be read, or a line of it is no item.
    """
    catalogue = CatalogueAttributes({}, {})
    for item in read_items(path) if path else ():
        catalogue.categories[item.item_id] = item.category
        if item.price is not None:
            catalogue.prices[item.item_id] = item.price
    return catalogue


def read_items(path: Path) -> Iterator[Item]:
    """Yield the items of a file of JSON lines, as `catalogue-items` holds them.

    Raises:
        TrainingError: It cannot be read, or a line of it is no item.
    """
    for number, line in enumerate(read_lines(path), start=1):
        try:
            yield decode_item(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            message = f"{path}:{number} is no item of a catalogue: {exc}"
            raise TrainingError(message) from exc


def item_text(item: Item) -> str:
    """Return what a language model reads of an item: title, category as words, brand; empty where there is none."""
    parts = (item.title, item.category.translate(_APART), item.brand)
    return ", ".join(words for part in parts if (words := " ".join(part.split())))
