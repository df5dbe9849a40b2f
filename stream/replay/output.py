"""Output: what the partitions of a run come to, a file each, merged at the end."""

import contextlib
import itertools
import os
import shutil
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Self

from clickscore.stream.errors import OutputFileError
from clickscore.stream.replay.checkpoint import (
    Checkpoint,
    PartState,
    Remembered,
    Tally,
    decode_checkpoint,
    decode_remembered,
    encode_state,
)
from clickscore.stream.replay.source import Mark
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.partition import ChangelogRecord, PartitionState

BLOCK_BYTES = 1024 * 1024

LEVEL = 2  # of gzip: decisions are 12 times smaller with it, 14 with 6, which takes four times as long

AHEAD = 4
"""Blocks that may wait to be packed."""


class PartFile:
    """The lines that a partition came to, on disk."""

    def __init__(self, path: Path, state: PartState, pool: ThreadPoolExecutor | None) -> None:
        """Go on writing where `state` says; packed by `pool` where there is one, else plain."""
        self._file = path.open("r+b" if state.length else "wb")
        self._file.truncate(state.length)
        self._file.seek(state.length)
        self._pool = pool
        self._pending = bytearray(state.pending)
        self._packing: deque[Future[bytes]] = deque()

    def write(self, lines: Iterable[bytes]) -> None:
        """Write lines."""
        text = b"\n".join([*lines, b""])
        if self._pool is None:
            self._file.write(text)
            return
        pending = self._pending
        pending += text
        while len(pending) >= BLOCK_BYTES:
            self._put(bytes(pending[:BLOCK_BYTES]), self._pool)
            del pending[:BLOCK_BYTES]

    def state(self) -> PartState:
        """Return how far it has been written, once that is on disk."""
        self._drain(0)
        self._file.flush()
        os.fsync(self._file.fileno())
        return PartState(self._file.tell(), bytes(self._pending))

    def finish(self) -> None:
        """Write what is left."""
        if self._pending and self._pool:
            self._put(bytes(self._pending), self._pool)
            self._pending.clear()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _put(self, block: bytes, pool: ThreadPoolExecutor) -> None:
        self._packing.append(pool.submit(_packed, block))
        self._drain(AHEAD)

    def _drain(self, most: int) -> None:
        while len(self._packing) > most:
            self._file.write(self._packing.popleft().result())


def _packed(block: bytes) -> bytes:
    """Return a block as a gzip member, the same for the same block."""
    packer = zlib.compressobj(LEVEL, wbits=31)  # zlib writes no time into the header
    return packer.compress(block) + packer.flush()


class Parts:
    """The parts that one process writes, a context manager.

    Raises:
        OutputFileError: They cannot be written.
    """

    def __init__(self, folder: Path, worker: int, partitions: Iterable[int], *, packed: bool) -> None:
        self._folder = folder
        self._checkpoint = folder / f"checkpoint-{worker}"
        self._partitions = list(partitions)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pack") if packed else None
        self._files: dict[int, PartFile] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def load(self, settings: SessionSettings, source: str) -> tuple[Checkpoint | None, dict[int, PartitionState]]:
        """Open the files where the last checkpoint left them; return it, if there is one, and the states then.

        Args:
            settings: Gap, lateness and bounds.
            source: The topic's name, which the states' partitions are called by.
        """
        checkpoint, states = None, {}
        if self._checkpoint.exists():
            checkpoint, states = self._read(settings, source)
        parts = checkpoint.parts if checkpoint else {}
        with _writing(self._folder):
            for partition in self._partitions:
                state = parts.get(partition, PartState())
                self._files[partition] = PartFile(part_path(self._folder, partition), state, self._pool)
        return checkpoint, states

    def write(self, partition: int, lines: Iterable[bytes]) -> None:
        """Write lines of a partition."""
        with _writing(self._folder):
            self._files[partition].write(lines)

    def save(self, mark: Mark, tally: Tally, states: Mapping[int, PartitionState], *, done: bool = False) -> None:
        """Write a checkpoint, which replaces the last one at once or not at all; with `done`, also what is pending."""
        with _writing(self._folder):
            if done:
                for file in self._files.values():
                    file.finish()
            parts = {partition: file.state() for partition, file in self._files.items()}
            blocks = itertools.chain(
                [encode_state(Checkpoint(mark=mark, tally=tally, parts=parts, done=done))],
                (encode_state(Remembered(partition, state.contents())) for partition, state in states.items()),
            )
            _put(self._checkpoint, blocks)

    def _read(self, settings: SessionSettings, source: str) -> tuple[Checkpoint, dict[int, PartitionState]]:
        states: dict[int, PartitionState] = {}
        with self._checkpoint.open("rb") as file:
            checkpoint = decode_checkpoint(_block(file))
            while block := _block(file):
                found = decode_remembered(block)
                changes = (ChangelogRecord(key, value, -1) for key, value in found.contents.items())
                states[found.partition] = restore(changes, f"{source}-{found.partition}", settings)
        return checkpoint, states


def merge(folder: Path, partitions: int, out: Path) -> None:
    """Put the partitions' files together, in order, as the output; then remove the folder.

    Raises:
        OutputFileError: The output cannot be written.
    """
    whole = folder / "whole"
    with _writing(out):
        with whole.open("wb") as target:
            for partition in range(partitions):
                path = part_path(folder, partition)
                if path.exists():
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, target, BLOCK_BYTES)
            if out.suffix == ".gz" and not target.tell():
                target.write(_packed(b""))
        whole.replace(out)
        shutil.rmtree(folder)


def part_path(folder: Path, partition: int) -> Path:
    """Return where a partition's lines lie."""
    return folder / f"partition-{partition}"


def _put(path: Path, blocks: Iterable[bytes]) -> None:
    """Write blocks, each behind its size, to a file that is there whole or not at all."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        for block in blocks:
            file.write(len(block).to_bytes(8))
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _block(file: IO[bytes]) -> bytes:
    """Return the next block of such a file, an empty one at its end."""
    return file.read(int.from_bytes(file.read(8)))


@contextlib.contextmanager
def _writing(path: Path) -> Generator[None]:
    """Turn errors of the file system in a block into ours."""
    try:
        yield
    except OSError as exc:
        message = f"{path} cannot be written: {exc.strerror or exc}"
        raise OutputFileError(message) from exc
