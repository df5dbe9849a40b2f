"""Stored bundles: load scorers of bundles from the bundle store, while a worker or a replay runs."""

import ctypes
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from clickscore.schemas.manifest import version_of
from clickscore.stream.errors import BundleError
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import ScoringSettings


def load_stored_bundle(settings: ScoringSettings, content_hash: str, *, reasons: bool) -> Scorer:
    """Return a warm scorer of a stored bundle. The bundle is checked in a process of its own before it is loaded.

    Args:
        settings: Bundle store, and how to score.
        content_hash: Content hash of the bundle.
        reasons: Whether to ask the graph for the contribution of each event.

    Raises:
        BundleError: The store cannot be read, has no such bundle, or the bundle cannot be served.
    """
    with tempfile.TemporaryDirectory(prefix="clickscore-bundle-") as folder:  # a loaded graph needs no file
        copy = BundleStore(settings.bundle_store).fetch(content_hash, Path(folder))
        bundle = load_bundle(copy, settings.score_threads, settings.min_overlap)
    return Scorer(bundle, settings.score_batch, reasons=reasons, timer=time.perf_counter)


class StoredBundles(Mapping[str, Scorer]):
    """Scorers of stored bundles by content hash, each loaded when it is first asked for: for a replay."""

    def __init__(self, settings: ScoringSettings, *, reasons: bool) -> None:
        """Open no bundle yet.

        Args:
            settings: Bundle store, and how to score.
            reasons: Whether to ask the graphs for the contribution of each event.
        """
        self._settings = settings
        self._reasons = reasons
        self._scorers: dict[str, Scorer] = {}

    def __getitem__(self, content_hash: str) -> Scorer:
        """Return a scorer.

        Raises:
            BundleError: The bundle cannot be loaded, so the decisions of the log cannot be made again.
        """
        scorer = self._scorers.get(content_hash)
        if scorer is None:
            scorer = self._scorers[content_hash] = self._load(content_hash)
        return scorer

    def __iter__(self) -> Iterator[str]:
        return iter(self._scorers)

    def __len__(self) -> int:
        return len(self._scorers)

    def _load(self, content_hash: str) -> Scorer:
        if not self._settings.bundle_store:
            message = (
                f"the log decides with the bundle {version_of(content_hash)} of a bundle store. "
                "Name the store with --bundle-store or CLICKSCORE_BUNDLE_STORE"
            )
            raise BundleError(message)
        return load_stored_bundle(self._settings, content_hash, reasons=self._reasons)


def return_memory(library: object | None = None) -> None:
    """Give the memory of dropped bundles back to the system: glibc keeps freed pages of other threads.

    Args:
        library: C library of the process; another one than glibc may lack the function. By default the process's own.
    """
    trim = getattr(library or ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
