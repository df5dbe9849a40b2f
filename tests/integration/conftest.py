"""Fixtures of the tests on a real broker."""

from pathlib import Path

import pytest

from clickscore.export.random_bundle import write_random_bundle
from clickscore.model.config import ModelConfig
from tests.integration.event_log import ITEMS

SMALL = ModelConfig(dim=16, layers=1, heads=2, ffn=32, max_length=20)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle that knows the items of the generated logs, so that a model is in the loop."""
    folder = tmp_path_factory.mktemp("bundle") / "small"
    write_random_bundle(folder, ITEMS, SMALL, candidates=40)
    return folder
