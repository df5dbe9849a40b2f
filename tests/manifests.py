"""Manifests of bundles, for tests."""

from clickscore.schemas.manifest import LevelCorrection, Manifest

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


def level_until(closed_until: int) -> LevelCorrection:
    """Return a correction on sessions up to a closing time, ms."""
    return LevelCorrection(
        sessions=100,
        events=500,
        closed_from=closed_until - 1,
        closed_until=closed_until,
        action_scale=1.0,
        action_shifts={},
        purchase_scale=1.0,
        purchase_shift=0.5,
        before={},
        after={},
    )
