"""Alone: what ONNX Runtime does on the very calls of a replay: `python -m bench.alone LOG BUNDLE SECONDS`.

The calls are gathered first, from the middle of the log. Then it says so, waits for a line on stdin, and makes them
over and over on one thread. So several can be let go at the same moment.
"""

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from bench.command import environment
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.file_source import file_origin
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings

READY = b"ready\n"
BEFORE = 200_000
"""Events of the log that come first, by which sessions have grown as long as they will be."""
GATHERED = 16_000
"""Events whose calls are made over and over."""


class Alone(msgspec.Struct, frozen=True):
    """How fast one process was."""

    per_second: float
    """Events whose sessions were scored."""
    cpu_us: float
    """CPU time of one."""


class _Noting(Scorer):
    """Keeps what it feeds to the graph."""

    def __init__(self, settings: Settings) -> None:
        self._calls: list[dict[str, np.ndarray]] = []
        super().__init__(
            load_bundle(Path(settings.bundle), settings.score_threads, settings.min_overlap), settings.score_batch
        )
        self._calls.clear()  # of its trying whether padding is harmless

    @property
    def noted(self) -> int:
        """Sessions in its calls."""
        return sum(len(feeds["lengths"]) for feeds in self._calls)

    def repeat(self) -> None:
        """Make all calls once more, and nothing beside."""
        for feeds in self._calls:
            self._session.run(self._outputs, feeds)

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self._calls.append(feeds)
        return super()._run(feeds)


def measure_alone(log: Path, bundle: Path, seconds: float, processes: int) -> list[Alone]:
    """Let so many processes score at the same time, each on a thread of its own; return how fast each was."""
    command = [sys.executable, "-m", "bench.alone", str(log), str(bundle), str(seconds)]
    children = [
        subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(processes)
    ]
    for child in children:
        if not (child.stdout and child.stdout.readline() == READY):
            raise RuntimeError("ONNX Runtime could not be measured alone")
    for child in children:
        if child.stdin:
            child.stdin.write(b"\n")
            child.stdin.close()
    return [msgspec.json.decode(child.stdout.read() if child.stdout else b"", type=Alone) for child in children]


def gather(log: Path, settings: Settings) -> _Noting:
    """Return a scorer that has noted its calls on events from the middle of a log."""
    scorer = _Noting(settings)
    pipeline = Pipeline(settings, "clickstream-events", Catalogue(), scorer)
    origin = file_origin(log, "clickscore", settings.partitions)
    taken = 0
    with origin.open(settings, range(origin.partitions), None) as source:
        for batches in source.batches():
            taken += sum(len(records) for _, records in batches)
            if taken <= BEFORE:
                pipeline.advance_all(batches)
                continue
            pipeline.process_all(batches)
            if scorer.noted >= GATHERED:
                break
    return scorer


def main(log: Path, bundle: Path, seconds: float) -> None:
    scorer = gather(log, Settings(bundle=str(bundle)))
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    sys.stdin.readline()
    began, cpu, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        scorer.repeat()
        done += scorer.noted
    alone = Alone(done / (time.perf_counter() - began), (time.process_time() - cpu) / done * 1e6)
    sys.stdout.buffer.write(msgspec.json.encode(alone))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
