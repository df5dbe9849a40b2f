"""Item facts: price and category of items, from a file of catalogue records."""

from pathlib import Path

import msgspec

from model.dataset import lines_of
from model.errors import TrainingError
from model.prefix_features import Catalogue
from schemas.catalogue import decode_item


def read_catalogue(path: Path | None) -> Catalogue:
    """Return what a file of JSON lines, as `catalogue-items` holds them, says of items; nothing without a file.

    Raises:
        TrainingError: It cannot be read, or a line of it is no item.
    """
    catalogue = Catalogue({}, {})
    for number, line in enumerate(lines_of(path) if path else (), start=1):
        try:
            item = decode_item(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            message = f"{path}:{number} is no item of a catalogue: {exc}"
            raise TrainingError(message) from exc
        catalogue.categories[item.item_id] = item.category
        if item.price is not None:
            catalogue.prices[item.item_id] = item.price
    return catalogue
