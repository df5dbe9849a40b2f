"""Overlays: ranges of the changelog with foreign records, such as the late snapshots of a stalled worker."""

import asyncio
from typing import NamedTuple


class Overlay(NamedTuple):
    """Records of a changelog partition between two writes of this worker, from another writer."""

    partition: int
    start: int
    """Offset of the first foreign record."""
    end: int
    """Offset after the last foreign record."""


class Overlays:
    """Overlays that wait for a repair."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Overlay] = asyncio.Queue()
        self._pending: set[Overlay] = set()

    def note(self, overlay: Overlay) -> None:
        """Note an overlay to repair."""
        self._pending.add(overlay)
        self._queue.put_nowait(overlay)

    async def next_overlay(self) -> Overlay:
        """Wait for an overlay and return it; the overlay stays pending until `resolve`."""
        while (overlay := await self._queue.get()) not in self._pending:
            pass  # a restore has read the whole changelog meanwhile
        return overlay

    def is_pending(self, partition: int) -> bool:
        """Return whether a partition has an overlay without a repair."""
        return any(overlay.partition == partition for overlay in self._pending)

    def resolve(self, overlay: Overlay) -> None:
        """Drop an overlay: the newest states are written again."""
        self._pending.discard(overlay)

    def resolve_partition(self, partition: int) -> None:
        """Drop all overlays of a partition: a restore reads and repairs the whole changelog."""
        self._pending = {overlay for overlay in self._pending if overlay.partition != partition}
