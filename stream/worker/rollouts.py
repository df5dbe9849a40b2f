"""Rollouts of a worker: follow the topic, load bundles from the store in the background, and release unused ones."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from clickscore.schemas.events import Epoch
from clickscore.schemas.manifest import version_of
from clickscore.schemas.outcome_counts import PartitionReport
from clickscore.schemas.rollouts import EpochRollout, Rollout
from clickscore.stream.errors import BundleError, PolicyError
from clickscore.stream.kafka.rollout_log import RolloutLog
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.policy_file import PolicyFile
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
LoadPolicy = Callable[[str], PolicyFile]
"""Loads the policy of a label, in a thread; raises BundleError or PolicyError for a policy that cannot be used."""


class RolloutParts(NamedTuple):
    """Where bundles and policies of a rollout come from, and where they go: the pipeline reads the two tables."""

    load_bundle: LoadBundle
    load_policy: LoadPolicy
    bundles: MutableMapping[str, Scorer]
    """Loaded bundles by content hash."""
    policies: MutableMapping[str, PolicyFile]
    """Loaded policies by label."""


Start = Callable[[Callable[[], Awaitable[None]]], "asyncio.Task[None]"]
"""Starts work in the background; an error of the work stops the worker."""


class RolloutKeeper:
    """Keeps the bundles and policies loaded that the rollout and the epochs of the partitions name.

    A new rollout takes effect once all of them are loaded: `choose` says what the next epoch of a partition names.
    """

    def __init__(
        self,
        *,
        name: str,
        rollout_log: RolloutLog,
        parts: RolloutParts,
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
            parts: Loads bundles and policies.
            pipeline: Knows the epoch of each partition.
            metrics: Counts loaded and refused bundles.
            start: Starts the loop that follows the topic, and each loading.
            clock: Returns the wall-clock time, s.
            wait_ms: Longest wait for the bundles that an epoch names, ms.
        """
        self.refused: dict[str, str] = {}
        """Reason why a bundle cannot be served, by content hash."""
        self._name = name
        self._log = rollout_log
        self._parts = parts
        self._bundles = parts.bundles
        self._policies = parts.policies
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
        """Newest rollout; None without a rollout."""
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
                await self._wait_for(self.rollout.deciding.parts)

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
            chosen = EpochRollout(champion=chosen.champion, policy=chosen.policy)
        if all(map(self._has, chosen.parts)):
            return chosen
        if isinstance(present, EpochRollout) and any(part in self.refused for part in present.parts):
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
        parts = _parts_of([*present, *epochs])
        return [part for part in parts if not self._has(part) and part not in self._forgone]

    def _has(self, part: str) -> bool:
        """Return whether a bundle or a policy is loaded."""
        return part in self._bundles or part in self._policies

    async def reach(self, parts: Sequence[str]) -> None:
        """Wait until the bundles and policies that an epoch names are loaded.

        The wait is bounded: without them the decisions go on with bundle and policy of the settings.
        """
        await self._wait_for(parts)
        missing = [part for part in parts if not self._has(part)]
        if missing:
            self._forgone.update(missing)
            self._metrics.incomplete_epochs.inc()
            log.error(
                "%s are not loaded, so decisions go on with bundle and policy of the settings: %s",
                ", ".join(map(short_name, missing)),
                "; ".join(self.refused.get(part, "loading takes too long") for part in missing),
            )

    async def _wait_for(self, parts: Sequence[str]) -> None:
        """Load bundles and policies; return once each is loaded or refused, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                while pending := [part for part in parts if not self._has(part) and part not in self.refused]:
                    self._load_all(pending)  # again and again: only `LOADED_AT_ONCE` of them are loaded at a time
                    await asyncio.sleep(POLL_S)

    async def run(self) -> None:
        """Load needed bundles and release unused ones until cancelled."""
        while True:
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            self._changed.clear()

    async def look(self) -> None:
        """Start to load what is needed, and release what is not."""
        needed = self._needed()
        now = self._clock()
        rollout = self.rollout
        has_challenger = rollout is not None and self.scorer(rollout.challenger) is not None
        self._pipeline.shadow_share = rollout.shadow_share if rollout is not None and has_challenger else 0.0
        self._load_all(part for part in needed if self._retry_at.get(part, 0) <= now)
        for part in set(self.refused).difference(needed):
            del self.refused[part]
            self._retry_at.pop(part, None)
        self._forgone.intersection_update(needed)
        if self._is_memory_due:  # a batch that was under way at the release has ended by now
            self._is_memory_due = False
            await asyncio.to_thread(return_memory)
        for label in [label for label in self._policies if label not in needed]:
            del self._policies[label]
        unused = {bundle: self._bundles.pop(bundle) for bundle in list(self._bundles) if bundle not in needed}
        if unused:
            log.info("released the bundles %s", ", ".join(map(short_name, unused)))
            self._is_memory_due = True
            await asyncio.to_thread(unused.clear)  # a large graph takes a while to free
        self._metrics.loaded_bundles.set(len(self._bundles))

    def _needed(self) -> list[str]:
        """Return the parts of the rollout, of all present epochs, and of the epochs in batches on their way."""
        parts = dict.fromkeys(self.rollout.parts if self.rollout else ())
        for partition, unread in self._unread.items():
            state = self._pipeline.partitions.get(partition)
            epoch = state.epoch if state is not None else None
            if epoch is not None:
                unread[:] = [later for later in unread if later.number > epoch.number]
                parts |= dict.fromkeys(_parts_of([epoch]))
            parts |= dict.fromkeys(_parts_of(unread))
        return list(parts)

    def _load_all(self, parts: Iterable[str]) -> None:
        for part in parts:
            if not self._has(part) and part not in self._loading and len(self._loading) < LOADED_AT_ONCE:
                task = self._loading[part] = self._start(partial(self._load, part))
                task.add_done_callback(lambda _, part=part: self._loading.pop(part))

    async def _load(self, part: str) -> None:
        """Load a bundle or a policy in a thread of its own; what cannot be used is refused loudly.

        Any other error than those of bundles, policies and the disk is a bug, and stops the worker.
        """
        started_at = self._clock()
        try:
            if is_policy(part):
                self._policies[part] = await asyncio.to_thread(self._parts.load_policy, part)
            else:
                self._bundles[part] = await asyncio.to_thread(self._parts.load_bundle, part)
        except (BundleError, PolicyError, OSError) as exc:
            self.refused[part] = str(exc)
            self._retry_at[part] = self._clock() + RETRY_S
            self._metrics.refused_bundles.inc()
            log.error("%s of the rollout %s is refused: %s", short_name(part), self._name, exc)  # noqa: TRY400 (the error has words)
        except Exception as exc:
            self.refused[part] = str(exc) or type(exc).__name__  # the wait for it ends
            raise
        else:
            self.refused.pop(part, None)
            self._retry_at.pop(part, None)
            self._forgone.discard(part)
            log.info("loaded %s in %.1f s", short_name(part), self._clock() - started_at)
        self._changed.set()


def is_policy(part: str) -> bool:
    """Return whether a part of a rollout is the label of a policy; a content hash has no such sign."""
    return "@" in part


def short_name(part: str) -> str:
    """Return the version of a bundle, or the label of a policy."""
    return part if is_policy(part) else version_of(part)


def _parts_of(epochs: Iterable[Epoch]) -> list[str]:
    """Return the bundles and policies that epochs name, each once."""
    parts = [part for epoch in epochs if isinstance(epoch.rollout, EpochRollout) for part in epoch.rollout.parts]
    return list(dict.fromkeys(parts))
