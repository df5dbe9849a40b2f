"""Manifest: what a bundle says of the data that it learned from."""

import msgspec
import pytest

from clickscore.schemas.manifest import LevelCorrection, Manifest

LEVEL = LevelCorrection(
    sessions=100,
    events=500,
    closed_from=1_000,
    closed_until=2_000,
    action_scale=1.0,
    action_shifts={},
    purchase_scale=1.0,
    purchase_shift=0.5,
    before={},
    after={},
)
MANIFEST = Manifest(
    format_version=1,
    content_hash="0" * 64,
    framework="f",
    max_length=50,
    items=1,
    candidates=1,
    inputs=(),
    outputs=(),
    metrics={},
)


@pytest.mark.parametrize(
    ("trained_until", "level", "learned_until"),
    [(0, None, 0), (1_500, None, 1_500), (1_500, LEVEL, 2_000), (2_500, LEVEL, 2_500)],
)
def test_bundle_learned_until_the_end_of_its_training_or_of_its_correction(
    trained_until: int, level: LevelCorrection | None, learned_until: int
) -> None:
    manifest = msgspec.structs.replace(MANIFEST, trained_until=trained_until, level=level)
    assert manifest.learned_until == learned_until
