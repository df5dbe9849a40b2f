"""Output: write the lines of each partition to a file of its own, and merge the files at the end.

Compressed lines are written in blocks of a fixed size, each a gzip member of its own. So the bytes of a file do not
depend on the times of checkpoints: an interrupted and resumed replay writes the same bytes as any other replay.
"""

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

from clickscore.schemas.errors import OutputFileError
from clickscore.stream.replay.replay_checkpoint import (
    CheckpointState,
    PartitionFileState,
    ReplayCheckpoint,
    ReplayTally,
    decode_checkpoint,
    decode_snapshot,
    encode_state,
)
from clickscore.stream.replay.source import Position
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.state.partition import PartitionState

BLOCK_BYTES = 1024 * 1024
"""Bytes of a block before compression. Part of the output's format: another size gives other bytes."""

GZIP_LEVEL = 2
"""Level 2 makes decisions 12 times smaller; level 6 makes decisions 14 times smaller and takes four times as long."""

MAX_QUEUED_BLOCKS = 4
"""Blocks that may wait for the compressing thread: bounds the memory to 4 MiB for each partition."""


class PartitionFile:
    """Output file of a partition."""

    def __init__(self, path: Path, state: PartitionFileState, pool: ThreadPoolExecutor | None) -> None:
        """Open the file, and cut it to its state at the last checkpoint.

        Args:
            path: Path of the file.
            state: Progress at the last checkpoint.
            pool: Thread that compresses blocks; None writes plain lines.
        """
        self._file = path.open("r+b" if state.length else "wb")
        self._file.truncate(state.length)
        self._file.seek(state.length)
        self._pool = pool
        self._pending = bytearray(state.pending)
        self._compressing: deque[Future[bytes]] = deque()

    def write(self, lines: Iterable[bytes]) -> None:
        """Write lines."""
        text = b"\n".join([*lines, b""])
        if self._pool is None:
            self._file.write(text)
            return
        pending = self._pending
        pending += text
        while len(pending) >= BLOCK_BYTES:
            self._compress(bytes(pending[:BLOCK_BYTES]), self._pool)
            del pending[:BLOCK_BYTES]

    def sync(self) -> PartitionFileState:
        """Return the progress, after a sync to disk."""
        self._write_compressed(0)
        self._file.flush()
        os.fsync(self._file.fileno())
        return PartitionFileState(self._file.tell(), bytes(self._pending))

    def finish(self) -> None:
        """Compress the last block, which may be shorter."""
        if self._pending and self._pool:
            self._compress(bytes(self._pending), self._pool)
            self._pending.clear()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _compress(self, block: bytes, pool: ThreadPoolExecutor) -> None:
        self._compressing.append(pool.submit(_gzip_member, block))
        self._write_compressed(MAX_QUEUED_BLOCKS)

    def _write_compressed(self, queue_limit: int) -> None:
        """Write compressed blocks, until at most `queue_limit` blocks wait."""
        while len(self._compressing) > queue_limit:
            self._file.write(self._compressing.popleft().result())


def _gzip_member(block: bytes) -> bytes:
    """Return a block as a gzip member: equal bytes for equal blocks."""
    compressor = zlib.compressobj(GZIP_LEVEL, wbits=31)  # zlib writes no time into the header
    return compressor.compress(block) + compressor.flush()


class PartitionOutputs:
    """Outputs of the partitions of a process, with its checkpoint; a context manager.

    Raises:
        OutputFileError: A file cannot be written.
    """

    def __init__(self, folder: Path, worker: int, partitions: Iterable[int], *, compressed: bool) -> None:
        """Prepare to write.

        Args:
            folder: Folder of the replay.
            worker: Number of the process, from 0.
            partitions: Partitions of the process.
            compressed: Whether the lines are compressed.
        """
        self._folder = folder
        self._checkpoint = folder / f"checkpoint-{worker}"
        self._partitions = list(partitions)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compress") if compressed else None
        self._files: dict[int, PartitionFile] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def load(self, settings: SessionSettings, topic: str) -> tuple[ReplayCheckpoint | None, dict[int, PartitionState]]:
        """Open the files at the last checkpoint; return the checkpoint, if any, and the states of the partitions.

        Args:
            settings: SessionSettings of the sessions, for the states.
            topic: Name of the replayed topic, for the ids of decisions.
        """
        checkpoint, states = None, {}
        if self._checkpoint.exists():
            checkpoint, states = self._read(settings, topic)
        files = checkpoint.files if checkpoint else {}
        with _writing(self._folder):
            for partition in self._partitions:
                state = files.get(partition, PartitionFileState())
                self._files[partition] = PartitionFile(partition_path(self._folder, partition), state, self._pool)
        return checkpoint, states

    def write(self, partition: int, lines: Iterable[bytes]) -> None:
        """Write lines of a partition."""
        with _writing(self._folder):
            self._files[partition].write(lines)

    def save(
        self, position: Position, tally: ReplayTally, states: Mapping[int, PartitionState], *, done: bool = False
    ) -> None:
        """Write a checkpoint, which replaces the last checkpoint completely or not at all.

        Args:
            position: Position in the source.
            tally: Counts so far.
            states: State of each partition.
            done: Whether the process has finished; the last blocks are then written, too.
        """
        with _writing(self._folder):
            if done:
                for file in self._files.values():
                    file.finish()
            files = {partition: file.sync() for partition, file in self._files.items()}
            blocks = itertools.chain(
                [encode_state(ReplayCheckpoint(position=position, tally=tally, files=files, done=done))],
                (encode_state(CheckpointState(partition, state.contents())) for partition, state in states.items()),
            )
            _replace_file(self._checkpoint, blocks)

    def _read(self, settings: SessionSettings, topic: str) -> tuple[ReplayCheckpoint, dict[int, PartitionState]]:
        states: dict[int, PartitionState] = {}
        with self._checkpoint.open("rb") as file:
            checkpoint = decode_checkpoint(_read_block(file))
            while block := _read_block(file):
                snapshot = decode_snapshot(block)
                records = (ChangelogRecord(key, value, -1) for key, value in snapshot.contents.items())
                states[snapshot.partition] = restore(records, f"{topic}-{snapshot.partition}", settings)
        return checkpoint, states


def merge_partitions(folder: Path, partitions: int, out: Path) -> None:
    """Join the files of the partitions, in order, to the output, and delete the folder.

    Args:
        folder: Folder of the replay.
        partitions: Number of partitions.
        out: Path of the output.

    Raises:
        OutputFileError: The output cannot be written.
    """
    merged = folder / "whole"
    with _writing(out):
        with merged.open("wb") as target:
            copy_partitions(folder, partitions, target)
            if out.suffix == ".gz" and not target.tell():
                target.write(_gzip_member(b""))  # an empty file would not be a gzip file
        merged.replace(out)
        shutil.rmtree(folder)


def copy_partitions(folder: Path, partitions: int, target: IO[bytes]) -> None:
    """Write the files of the partitions, in order, to an open file.

    Args:
        folder: Folder of the replay.
        partitions: Number of partitions.
        target: Open file.
    """
    for partition in range(partitions):
        path = partition_path(folder, partition)
        if path.exists():
            with path.open("rb") as source:
                shutil.copyfileobj(source, target, BLOCK_BYTES)


def partition_path(folder: Path, partition: int) -> Path:
    """Return the path of the output of a partition."""
    return folder / f"partition-{partition}"


def _replace_file(path: Path, blocks: Iterable[bytes]) -> None:
    """Write blocks, each after its length, to a file that replaces an older file in one step."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as file:
        for block in blocks:
            file.write(len(block).to_bytes(8))
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_block(file: IO[bytes]) -> bytes:
    """Return the next block of a file of `_replace_file`; empty bytes at the end."""
    return file.read(int.from_bytes(file.read(8)))


@contextlib.contextmanager
def _writing(path: Path) -> Generator[None]:
    """Turn an OSError in the block into an OutputFileError."""
    try:
        yield
    except OSError as exc:
        message = f"{path} cannot be written: {exc.strerror or exc}"
        raise OutputFileError(message) from exc
