"""Item facts: price and category of items, from a file of catalogue records."""

from pathlib import Path

import msgspec

from model.dataset import lines_of
from model.errors import TrainingError
from model.prefix_features import ItemFacts, facts_of
from model.vocabulary import Vocabulary
from schemas.catalogue import decode_item


def read_facts(path: Path | None, vocabulary: Vocabulary) -> ItemFacts:
    """Return what a file of JSON lines, as `catalogue-items` holds them, says of a vocabulary; nothing without a file.

    Raises:
        TrainingError: It cannot be read, or a line of it is no item.
    """
    prices: dict[str, float] = {}
    categories: dict[str, str] = {}
    for number, line in enumerate(lines_of(path) if path else (), start=1):
        try:
            item = decode_item(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            message = f"{path}:{number} is no item of a catalogue: {exc}"
            raise TrainingError(message) from exc
        categories[item.item_id] = item.category
        if item.price is not None:
            prices[item.item_id] = item.price
    return facts_of(vocabulary.items, prices, categories)
