"""Rollouts of a worker: follow the topic, load bundles from the store in the background, and release unused ones."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import NamedTuple

import msgspec

from clickscore.schemas.events import Epoch
from clickscore.schemas.manifest import version_of
from clickscore.schemas.outcome_counts import PartitionReport
from clickscore.schemas.rollouts import EpochRollout, Rollout
from clickscore.stream.errors import BundleError
from clickscore.stream.kafka.rollout_log import RolloutLog
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.scoring.stored_bundles import return_memory
from clickscore.stream.worker.prometheus_metrics import Metrics

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Time between two looks for bundles that are needed or no longer needed, s; a change of the topic is seen at once."""
POLL_S = 0.02
"""Pause between two looks whether an awaited bundle is loaded, s."""
RETRY_S = 60.0
"""Time until a bundle that was refused is tried again, s: a storage may be out of reach for a while."""
LOADED_AT_ONCE = 2
"""Number of bundles that are loaded at the same time: the champion must not wait behind a slow challenger."""

LoadBundle = Callable[[str], Scorer]
"""Loads the bundle of a content hash, in a thread; raises BundleError for a bundle that cannot be served."""


class BundleSource(NamedTuple):
    """Where a worker's bundles come from, and where they go."""

    load: LoadBundle
    loaded: MutableMapping[str, Scorer]
    """Loaded bundles by content hash: the pipeline reads this table."""


Start = Callable[[Callable[[], Awaitable[None]]], "asyncio.Task[None]"]
"""Starts work in the background; an error of the work stops the worker."""


class RolloutKeeper:
    """Keeps the bundles loaded that the rollout and the epochs of the partitions name.

    A new rollout takes effect once all its bundles are loaded: `choose` says what the next epoch of a partition names.
    """

    def __init__(
        self,
        *,
        name: str,
        rollout_log: RolloutLog,
        source: BundleSource,
        pipeline: Pipeline,
        metrics: Metrics,
        start: Start,
        clock: Callable[[], float],
        wait_ms: int,
    ) -> None:
        """Build the keeper, without bundles.

        Args:
            name: Name of the rollout.
            rollout_log: Reads the topic of rollouts.
            source: Loads bundles.
            pipeline: Knows the epoch of each partition.
            metrics: Counts loaded and refused bundles.
            start: Starts the loop that follows the topic.
            clock: Returns the wall-clock time, s.
            wait_ms: Longest wait for the bundles that an epoch names, ms.
        """
        self.refused: dict[str, str] = {}
        """Reason why a bundle cannot be served, by content hash."""
        self._name = name
        self._log = rollout_log
        self._load_bundle = source.load
        self._bundles = source.loaded
        self._pipeline = pipeline
        self._metrics = metrics
        self._start = start
        self._clock = clock
        self._wait_s = wait_ms / 1000
        self._following: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._retry_at: dict[str, float] = {}
        self._unread: dict[int, list[Epoch]] = {}  # epochs that the gate has passed on, and no batch has begun yet
        self._forgone: set[str] = set()  # bundles that are not waited for any more
        self._is_memory_due = False

    @property
    def rollout(self) -> Rollout | None:
        """Newest rollout; None where there is none."""
        return self._log.table.rollouts.get(self._name)

    @property
    def loaded(self) -> list[str]:
        """Content hashes of the loaded bundles."""
        return sorted(self._bundles)

    def scorer(self, bundle: str | None) -> Scorer | None:
        """Return the scorer of a bundle; None where it is not loaded."""
        return self._bundles.get(bundle) if bundle else None

    def reports(self, rollout: Rollout) -> dict[int, PartitionReport]:
        """Return the report of each partition on the present state of a rollout."""
        return self._log.table.reports(rollout)

    async def prepare(self) -> None:
        """Read the rollout, load its bundles, and follow the topic, once. The wait for the bundles is bounded."""
        if self._following is None:
            await self._log.load()
            self._following = self._start(lambda: self._log.follow(self._note_change))
            if self.rollout is not None:
                await self.reach(self.rollout.bundles)

    async def _note_change(self) -> None:
        self._changed.set()

    def assign(self, partitions: Iterable[int]) -> None:
        """Keep the bundles of exactly these partitions."""
        self._unread = {partition: [] for partition in partitions}

    def choose(self, present: EpochRollout | msgspec.UnsetType) -> EpochRollout | msgspec.UnsetType:
        """Return the rollout that the next epoch of a partition names: the newest one whose bundles are loaded.

        Args:
            present: Rollout of the partition's epoch, which stays while bundles are loaded, and where they are refused.
        """
        if self._following is None:
            return present
        rollout = self.rollout
        if rollout is None:
            return msgspec.UNSET
        chosen = rollout.deciding
        if chosen.challenger in self.refused:
            chosen = EpochRollout(champion=chosen.champion)
        if all(bundle in self._bundles for bundle in chosen.bundles):
            return chosen
        if isinstance(present, EpochRollout) and any(bundle in self.refused for bundle in present.bundles):
            return msgspec.UNSET
        return present

    def missing(self, partition: int, epochs: Sequence[Epoch]) -> list[str]:
        """Return the bundles that a batch must wait for, and keep all bundles that it needs.

        Args:
            partition: Partition of the batch.
            epochs: Epochs among the records of the batch.
        """
        state = self._pipeline.partitions.get(partition)
        if epochs:
            self._unread.setdefault(partition, []).extend(epochs)
        present = [state.epoch] if state is not None and state.epoch is not None else []
        return [
            bundle
            for bundle in _bundles_of([*present, *epochs])
            if bundle not in self._bundles and bundle not in self._forgone
        ]

    async def reach(self, bundles: Iterable[str]) -> bool:
        """Wait until bundles are loaded; return whether they are.

        The wait is bounded: without a bundle the decisions go on with the bundle of the settings.
        """
        awaited = list(bundles)
        self._load_all(bundle for bundle in awaited if bundle not in self.refused)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                while any(  # noqa: ASYNC110 (a wait is rare: a bundle is loaded before an epoch names it)
                    bundle not in self._bundles and bundle not in self.refused for bundle in awaited
                ):
                    await asyncio.sleep(POLL_S)
        lacking = [bundle for bundle in awaited if bundle not in self._bundles]
        if lacking:
            self._forgone.update(lacking)
            self._metrics.incomplete_epochs.inc()
            log.error(
                "the bundles %s are not loaded, so decisions go on with the bundle of the settings: %s",
                ", ".join(version_of(bundle) for bundle in lacking),
                "; ".join(self.refused.get(bundle, "loading takes too long") for bundle in lacking),
            )
        return not lacking

    async def run(self) -> None:
        """Load needed bundles and release unused ones until cancelled."""
        while True:
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            self._changed.clear()

    async def look(self) -> None:
        """Start to load the bundles that are needed, and release those that are not."""
        needed = self._needed()
        now = self._clock()
        self._load_all(bundle for bundle in needed if self._retry_at.get(bundle, 0) <= now)
        for bundle in set(self.refused).difference(needed):
            del self.refused[bundle]
            self._retry_at.pop(bundle, None)
        if self._is_memory_due:  # a batch that was under way at the release has ended by now
            self._is_memory_due = False
            await asyncio.to_thread(return_memory)
        unused = {bundle: self._bundles.pop(bundle) for bundle in list(self._bundles) if bundle not in needed}
        if unused:
            log.info("released the bundles %s", ", ".join(version_of(bundle) for bundle in unused))
            self._is_memory_due = True
            await asyncio.to_thread(unused.clear)  # a large graph takes a while to free
        self._metrics.loaded_bundles.set(len(self._bundles))

    def _needed(self) -> list[str]:
        """Return the bundles of the rollout, of all present epochs, and of the epochs in batches on their way."""
        bundles = dict.fromkeys(self.rollout.bundles if self.rollout else ())
        for partition, unread in self._unread.items():
            state = self._pipeline.partitions.get(partition)
            epoch = state.epoch if state is not None else None
            if epoch is not None:
                unread[:] = [later for later in unread if later.number > epoch.number]
                bundles |= dict.fromkeys(_bundles_of([epoch]))
            bundles |= dict.fromkeys(_bundles_of(unread))
        return list(bundles)

    def _load_all(self, bundles: Iterable[str]) -> None:
        for bundle in bundles:
            if bundle not in self._bundles and bundle not in self._loading and len(self._loading) < LOADED_AT_ONCE:
                task = self._loading[bundle] = asyncio.create_task(self._load(bundle))
                task.add_done_callback(lambda _, bundle=bundle: self._loading.pop(bundle))

    async def _load(self, bundle: str) -> None:
        """Load a bundle in a thread of its own; a bundle that cannot be served is refused loudly."""
        started_at = self._clock()
        try:
            scorer = await asyncio.to_thread(self._load_bundle, bundle)
        except BundleError as exc:
            self.refused[bundle] = str(exc)
            self._retry_at[bundle] = self._clock() + RETRY_S
            self._metrics.refused_bundles.inc()
            log.error("the bundle %s of the rollout %s is refused: %s", version_of(bundle), self._name, exc)  # noqa: TRY400 (the error has words)
        else:
            self._bundles[bundle] = scorer
            self.refused.pop(bundle, None)
            self._retry_at.pop(bundle, None)
            self._forgone.discard(bundle)
            log.info("loaded the bundle %s in %.1f s", version_of(bundle), self._clock() - started_at)
        self._changed.set()


def _bundles_of(epochs: Iterable[Epoch]) -> list[str]:
    """Return the content hashes of the bundles that epochs name, each once."""
    bundles = [
        bundle for epoch in epochs if isinstance(epoch.rollout, EpochRollout) for bundle in epoch.rollout.bundles
    ]
    return list(dict.fromkeys(bundles))
