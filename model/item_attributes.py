"""Item attributes: prices, categories and texts of items from a file of catalogue records."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from clickscore.model.errors import DataError
from clickscore.model.prefix_features import CatalogueAttributes
from clickscore.model.session_files import read_lines
from clickscore.schemas.catalogue import Item, decode_item

_SEPARATORS_TO_SPACES = str.maketrans(dict.fromkeys("._/>|", " "))
"""Separators of category paths, as in `shoes.running` or `shoes > running`."""


def read_catalogue(path: Path | None) -> CatalogueAttributes:
    """Return prices and categories from a file of JSON lines in the format of `catalogue-items`, if given.

    Raises:
        DataError: The file cannot be read, or a line is not an item.
    """
    catalogue = CatalogueAttributes({}, {})
    for item in read_items(path) if path else ():
        catalogue.categories[item.item_id] = item.category
        if item.price is not None:
            catalogue.prices[item.item_id] = item.price
    return catalogue


def read_items(path: Path) -> Iterator[Item]:
    """Yield the items of a file of JSON lines in the format of `catalogue-items`.

    Raises:
        DataError: The file cannot be read, or a line is not an item.
    """
    for number, line in enumerate(read_lines(path), start=1):
        try:
            yield decode_item(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            message = f"{path}:{number} is not a catalogue item: {exc}"
            raise DataError(message) from exc


def item_text(item: Item) -> str:
    """Return an item's text for a language model: title, category path as words, brand."""
    parts = (item.title, item.category.translate(_SEPARATORS_TO_SPACES), item.brand)
    return ", ".join(words for part in parts if (words := " ".join(part.split())))
