"""Stored bundles: scorers from the bundle store, while a worker or a replay runs."""

from pathlib import Path

import pytest

from clickscore.stream.errors import BundleError
from clickscore.stream.scoring.bundle import check_bundle
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.scoring.stored_bundles import StoredBundles, load_stored_bundle, return_memory
from clickscore.stream.settings import ScoringSettings
from tests.bundles import small_bundle
from tests.scored_requests import make_request


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def content_hash(store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = small_bundle(tmp_path_factory.mktemp("bundles") / "small")
    return BundleStore(str(store), check_bundle).push(folder).content_hash


def settings_of(store: Path) -> ScoringSettings:
    return ScoringSettings(bundle_store=str(store))


def test_bundle_of_the_store_scores(store: Path, content_hash: str):
    scorer = load_stored_bundle(settings_of(store), content_hash, reasons=False)
    (scores,) = scorer.score([make_request("item-1")])
    assert scores is not None
    assert scorer.version == content_hash[:12]


def test_unknown_bundle_is_named(store: Path, content_hash: str):
    with pytest.raises(BundleError, match="has no bundle"):
        load_stored_bundle(settings_of(store), content_hash[::-1], reasons=False)


def test_bundle_is_loaded_when_it_is_first_asked_for(store: Path, content_hash: str):
    bundles = StoredBundles(settings_of(store), reasons=False)
    assert list(bundles) == []
    scorer = bundles.get(content_hash)
    assert bundles[content_hash] is scorer
    assert (list(bundles), len(bundles)) == ([content_hash], 1)


def test_log_of_a_store_needs_the_store(content_hash: str):
    with pytest.raises(BundleError, match="Name the store with --bundle-store"):
        StoredBundles(ScoringSettings(), reasons=False)[content_hash]


def test_memory_can_be_returned_at_any_time():
    return_memory()
    return_memory("a C library without the function")
