"""ONNX Runtime's ceiling: repeat the exact graph calls of a replay: `python -m bench.ort_ceiling LOG BUNDLE SECONDS`.

The process first collects the calls from the middle of the log. Then it writes a ready line, waits for a line on stdin,
and repeats the calls on one thread. So several processes can start at the same moment.
"""

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from bench.command import child_environment
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.file_source import make_file_spec
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings

READY = b"ready\n"
WARM_UP_EVENTS = 200_000
"""Events at the start of the log that only warm up the sessions, until session lengths are stable."""
RECORDED_SESSIONS = 16_000
"""Events whose calls are repeated."""


class Ceiling(msgspec.Struct, frozen=True):
    """Speed of one process."""

    per_second: float
    """Scored events per second."""
    cpu_us: float
    """CPU time per event, microseconds."""


class _RecordingScorer(Scorer):
    """Scorer that records its calls of the graph."""

    def __init__(self, settings: Settings) -> None:
        self._calls: list[dict[str, np.ndarray]] = []
        super().__init__(
            load_bundle(Path(settings.scoring.bundle), settings.scoring.score_threads, settings.scoring.min_overlap),
            settings.scoring.score_batch,
        )
        self._calls.clear()  # of its trying whether padding is harmless

    @property
    def recorded_sessions(self) -> int:
        """Number of sessions in the recorded calls."""
        return sum(len(feeds["lengths"]) for feeds in self._calls)

    def repeat(self) -> None:
        """Repeat all recorded calls and do nothing else."""
        for feeds in self._calls:
            self._session.run(self._outputs, feeds)

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self._calls.append(feeds)
        return super()._run(feeds)


def measure_ceiling(log: Path, bundle: Path, seconds: float, processes: int) -> list[Ceiling]:
    """Run several processes at the same time, each on one thread, and return the speed of each.

    Args:
        log: Event log.
        bundle: Folder of the bundle.
        seconds: Duration of the measurement.
        processes: Number of processes.
    """
    command = [sys.executable, "-m", "bench.ort_ceiling", str(log), str(bundle), str(seconds)]
    children = [
        subprocess.Popen(command, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(processes)
    ]
    for child in children:
        if not (child.stdout and child.stdout.readline() == READY):
            raise RuntimeError("ONNX Runtime could not be measured alone")
    for child in children:
        if child.stdin:
            child.stdin.write(b"\n")
            child.stdin.close()
    return [msgspec.json.decode(child.stdout.read() if child.stdout else b"", type=Ceiling) for child in children]


def record_calls(log: Path, settings: Settings) -> _RecordingScorer:
    """Return a scorer with the recorded calls for events from the middle of a log."""
    scorer = _RecordingScorer(settings)
    pipeline = Pipeline(settings.sessions, settings.policy, "clickstream-events", Catalogue(), scorer)
    origin = make_file_spec(log, "clickscore", settings.kafka.partitions)
    events_read = 0
    with origin.open(settings, range(origin.partitions), None) as source:
        for batches in source.batches():
            events_read += sum(len(records) for _, records in batches)
            if events_read <= WARM_UP_EVENTS:
                pipeline.advance_all(batches)
                continue
            pipeline.process_all(batches)
            if scorer.recorded_sessions >= RECORDED_SESSIONS:
                break
    return scorer


def main(log: Path, bundle: Path, seconds: float) -> None:
    scorer = record_calls(log, Settings.of(bundle=str(bundle)))
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    sys.stdin.readline()
    started_at, cpu, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started_at < seconds:
        scorer.repeat()
        done += scorer.recorded_sessions
    alone = Ceiling(done / (time.perf_counter() - started_at), (time.process_time() - cpu) / done * 1e6)
    sys.stdout.buffer.write(msgspec.json.encode(alone))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
