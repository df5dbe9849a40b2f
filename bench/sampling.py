"""Sampling: profile a worker's threads with py-spy."""

import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.machine import ROOT

SAMPLES_PER_SECOND = 200
LOCATIONS_SHOWN = 30
_OURS = (ROOT / "stream", ROOT / "schemas")
_ENTRIES = ("run_worker", "main", "worker", "<module>", "with_settings.<locals>.decorate.<locals>.run")
"""Entry functions that are skipped, because the main thread does all its work inside them."""


class Profile:
    """Samples of one run."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._file = folder / f"{name.replace('/', ' a ')}.samples"

    @contextmanager
    def sampling(self, pid: int, seconds: float) -> Generator[None]:
        """Sample a process for some seconds, beside the block."""
        py_spy = Path(sys.executable).parent / "py-spy"
        command = [py_spy, "record", "--pid", str(pid), "--rate", str(SAMPLES_PER_SECOND), "--format", "raw"]
        options = ["--threads", "--function", "--full-filenames", "--nonblocking", "--duration", str(round(seconds))]
        with self._file.with_suffix(".log").open("wb") as log:
            sampler = subprocess.Popen(
                [*command, *options, "--output", str(self._file)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield
            if sampler.wait(seconds + 60):
                output = self._file.with_suffix(".log").read_text(encoding="utf-8")
                message = f"py-spy could not sample {self.name}: {output}"
                raise RuntimeError(message)
        finally:
            sampler.kill()
            sampler.wait()

    def summary(self) -> str:
        """Return the shares as Markdown. A location is the product's innermost function, or else the library's."""
        threads: Counter[str] = Counter()
        places: Counter[tuple[str, str]] = Counter()
        for line in self._file.read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            thread, *frames = stack.split(";")
            name = thread.rpartition(": ")[2]
            threads[name] += int(count)
            places[name, _location(frames)] += int(count)
        total = max(1, sum(threads.values()))
        rows = [f"| {name} | all | {count / total:.1%} |" for name, count in threads.most_common()]
        rows += [
            f"| {name} | `{location}` | {count / total:.1%} |"
            for (name, location), count in places.most_common(LOCATIONS_SHOWN)
        ]
        return "\n".join(
            [f"Where the time of `{self.name}` goes:", "", "| thread | place | share |", "|---|---|---|", *rows]
        )


def _location(frames: Sequence[str]) -> str:
    """Return the innermost function of the product, or else of the library."""
    if not frames:
        return "outside Python"
    for frame in reversed(frames):
        function, path = _parts(frame)
        if any(path.is_relative_to(folder) for folder in _OURS) and function not in _ENTRIES:
            return f"{path.relative_to(ROOT)} {function}"
    function, path = _parts(frames[-1])
    parts = path.parts
    file = "/".join(parts[parts.index("site-packages") + 1 :]) if "site-packages" in parts else path.name
    return f"{file} {function}"


def _parts(frame: str) -> tuple[str, Path]:
    function, _, path = frame.partition(" (")
    return function, Path(path.rstrip(")"))
