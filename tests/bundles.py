"""Untrained bundles for tests: small, quick, and made by the real exporter."""

from pathlib import Path

from clickscore.export.random_bundle import write_random_bundle
from clickscore.model.config import ModelConfig

ITEMS = 300
SMALL = ModelConfig(dim=16, layers=2, heads=2, ffn=64, max_length=50)


def small_bundle(folder: Path, items: int = ITEMS) -> Path:
    """Write a bundle of items `item-1` to `item-N` and return its folder."""
    write_random_bundle(folder, items, SMALL)
    return folder
