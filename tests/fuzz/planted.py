"""Planted faults: readers and programs with the faults that the fuzz must find."""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.lines import Line
from tests.fuzz import readers
from tests.fuzz.judge import Outcomes


class FaultyFile:
    """A reader that swallows a line, or fails there."""

    def __init__(self, path: Path, file_format: str, fails: bool) -> None:
        self._path = path
        self._format = file_format
        self._fails = fails
        self.ignored = 0

    def __iter__(self) -> Iterator[Line]:
        with EventFile(self._path, self._format) as file:
            lines = list(file)
            self.ignored = file.ignored
        swallowed = lines[7].number
        if self._fails:
            raise KeyError(swallowed)
        yield from (line for line in lines if line.number != swallowed)


@contextmanager
def swallowing(path: Path, file_format: str) -> Iterator[FaultyFile]:
    yield FaultyFile(path, file_format, fails=False)


@contextmanager
def failing(path: Path, file_format: str) -> Iterator[FaultyFile]:
    yield FaultyFile(path, file_format, fails=True)


@contextmanager
def silent(path: Path, file_format: str) -> Iterator[FaultyFile]:
    if file_format:
        raise InputFileError("")
    yield FaultyFile(path, file_format, fails=True)


def swallow(chance: random.Random, folder: Path) -> Outcomes:
    return readers.fuzz_text(chance, folder, readers=(swallowing,))


def fail(chance: random.Random, folder: Path) -> Outcomes:
    return readers.fuzz_text(chance, folder, readers=(failing,))


def refuse_silently(chance: random.Random, folder: Path) -> Outcomes:
    return readers.fuzz_text(chance, folder, readers=(silent,))


def never_end(chance: random.Random, folder: Path) -> Outcomes:
    time.sleep(3_600)
    return Counter({"events": 1})


def abort(chance: random.Random, folder: Path) -> Outcomes:
    os.abort()


def grow(chance: random.Random, folder: Path) -> Outcomes:
    return Counter({"events": len(bytearray(b"x" * 200_000_000)) // 200_000_000})
