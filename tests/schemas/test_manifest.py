"""Manifest: what a bundle says of the data that it learned from."""

import msgspec
import pytest

from clickscore.schemas.manifest import LevelCorrection
from tests.manifests import MANIFEST, level_until


@pytest.mark.parametrize(
    ("trained_until", "level", "learned_until"),
    [(0, None, 0), (1_500, None, 1_500), (1_500, level_until(2_000), 2_000), (2_500, level_until(2_000), 2_500)],
)
def test_bundle_learned_until_the_end_of_its_training_or_of_its_correction(
    trained_until: int, level: LevelCorrection | None, learned_until: int
) -> None:
    manifest = msgspec.structs.replace(MANIFEST, trained_until=trained_until, level=level)
    assert manifest.learned_until == learned_until
