"""Runner: run the cases of a target in processes, and notice a case that crashes, hangs, or grows too large."""

import os
import random
import resource
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.judge import FaultError, Outcomes

KEPT_CASES = 5
"""Cases with a fault of a target whose files are kept."""


class Target(NamedTuple):
    """A way into the product, and its bounds."""

    name: str
    run: Callable[[random.Random, Path], Outcomes]
    values: int = 1
    """Values of a case, about."""
    seconds: float = 60.0
    """Bound of a case: many times what it takes on a busy machine."""
    megabytes: int = 500
    """Bound of the memory of a process."""


@dataclass
class Report:
    """What became of the values of a target."""

    name: str
    sent: int = 0
    """Number of values sent."""
    outcomes: Outcomes = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Values that were swallowed or refused without words."""
    megabytes: int = 0
    """Largest memory of a process."""

    @property
    def is_good(self) -> bool:
        """Whether every value has an outcome, and nothing crashed or hung."""
        return not (self.crashes or self.stuck or self.faults) and self.outcomes.total() == self.sent


class Verdict(NamedTuple):
    """Answer of a process to a case: its outcomes, or a fault or a crash in words."""

    outcomes: Outcomes
    fault: str = ""
    crash: str = ""
    megabytes: int = 0


def run_target(target: Target, values: int, seed: str, *, kept: Path, deadline: float, processes: int = 0) -> Report:
    """Send at least a number of values to a target.

    Args:
        target: The target.
        values: Number of values.
        seed: Seed of the cases.
        kept: Folder for the files of cases with a fault.
        deadline: Time of `time.monotonic()` after which no case begins.
        processes: Number of processes; as many as the machine has cores by default.
    """
    report = Report(target.name)
    lock = threading.Lock()
    cases = iter(range(-(-values // target.values)))

    def next_case() -> int | None:
        with lock:
            return next(cases, None) if time.monotonic() < deadline else None

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for index, verdict in _verdicts(target, seed, Path(folder), next_case):
                with lock:
                    _book(report, target, index, verdict)
                    is_bad = bool(verdict.crash or verdict.fault) or verdict.megabytes > target.megabytes
                    if is_bad and len(report.crashes) + len(report.stuck) + len(report.faults) <= KEPT_CASES:
                        name = target.name.replace(" ", "-")
                        shutil.copytree(folder, kept / f"{name}-{index}", dirs_exist_ok=True)

    threads = [threading.Thread(target=work) for _ in range(processes or os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return report


def _book(report: Report, target: Target, index: int, verdict: Verdict) -> None:
    report.megabytes = max(report.megabytes, verdict.megabytes)
    report.outcomes += verdict.outcomes
    report.sent += verdict.outcomes.total()
    if verdict.crash == STUCK or verdict.megabytes > target.megabytes:
        report.stuck.append(f"case {index}: {verdict.crash or f'{verdict.megabytes} MB of memory'}")
    elif verdict.crash:
        report.crashes.append(f"case {index}: {verdict.crash}")
    elif verdict.fault:
        report.faults.append(f"case {index}: {verdict.fault}")
    else:
        return
    report.sent += 0 if verdict.outcomes else target.values


STUCK = "it does not end"


def _verdicts(
    target: Target, seed: str, folder: Path, next_case: Callable[[], int | None]
) -> Iterator[tuple[int, Verdict]]:
    """Yield case and verdict; a process that crashes, hangs or grows too large is replaced."""
    context = get_context("spawn")
    index = next_case()
    while index is not None:
        parent, child = context.Pipe()
        process = context.Process(target=serve_cases, args=(child, target.run, f"{seed}:{target.name}", folder))
        process.start()
        child.close()
        is_fit = True
        while is_fit and index is not None:
            verdict = _ask(parent, index, target.seconds)
            is_fit = not verdict.crash.startswith((STUCK, DIED)) and verdict.megabytes <= target.megabytes
            if verdict.crash == DIED:
                process.join()
                verdict = verdict._replace(crash=f"{DIED} with code {process.exitcode}")
            yield index, verdict
            index = next_case()
        parent.close()
        process.kill()
        process.join()


DIED = "the process ended"


def _ask(connection: Connection, index: int, seconds: float) -> Verdict:
    try:
        connection.send(index)
        return connection.recv() if connection.poll(seconds) else Verdict(Counter(), crash=STUCK)
    except (EOFError, ConnectionError):
        return Verdict(Counter(), crash=DIED)


def serve_cases(
    connection: Connection, run: Callable[[random.Random, Path], Outcomes], seed: str, folder: Path
) -> None:
    """Run the cases whose numbers arrive, until the connection ends: the work of a process."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())  # ONNX Runtime writes about every broken graph
    while True:
        try:
            index = connection.recv()
        except (EOFError, ConnectionError):
            return
        connection.send(run_case(run, f"{seed}:{index}", folder))


def run_case(run: Callable[[random.Random, Path], Outcomes], seed: str, folder: Path) -> Verdict:
    """Return the verdict on a case.

    Args:
        run: Sends the values of a case.
        seed: Seed of the case.
        folder: Folder for the files of the case.
    """
    try:
        outcomes, fault, crash = run(random.Random(seed), folder), "", ""
    except FaultError as exc:
        outcomes, fault, crash = Counter[str](), str(exc)[:2_000], ""
    except Exception:  # noqa: BLE001 (a crash of the product in any form)
        outcomes, fault, crash = Counter[str](), "", traceback.format_exc()[-2_000:]
    unit = 1024 if sys.platform == "linux" else 1024 * 1024
    return Verdict(outcomes, fault, crash, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit)
