"""Isolated check: check a bundle in a process of its own, because a broken graph can end the process that runs it.

`python -m clickscore.stream.scoring.isolated_check FOLDER` prints the problems of a bundle as a JSON list.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from clickscore.stream.scoring.bundle import check_bundle

CHECK_SECONDS = 600
"""Time limit of a check, s: a graph of a million items takes some seconds."""
NICENESS = 15
"""Added niceness of the process: a worker that serves beside the check keeps nearly all of a busy core."""
COMMAND = (sys.executable, "-m", "clickscore.stream.scoring.isolated_check")


def check_bundle_isolated(
    folder: Path, command: Sequence[str] = COMMAND, limit_seconds: float = CHECK_SECONDS
) -> list[str]:
    """Return the problems of a bundle, as `check_bundle` does. A graph that crashes or never ends is a problem.

    Args:
        folder: Folder of the bundle.
        command: Program that prints the problems of the folder in its last argument, as a JSON list.
        limit_seconds: Time limit of the check, s.
    """
    try:
        process = subprocess.run(
            [*command, str(folder)], stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return [f"the check has not ended within {limit_seconds:g} s: the graph does not end"]
    if process.returncode:
        reason = (
            signal.Signals(-process.returncode).name
            if process.returncode < 0
            else process.stderr[-500:].decode(errors="replace")
        )
        return [f"the graph ends the process that runs it ({reason})"]
    return msgspec.json.decode(process.stdout, type=list[str])


if __name__ == "__main__":  # pragma: no cover (runs in the process of its own)
    os.nice(NICENESS)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answer:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a graph can make ONNX Runtime print to the standard output
        answer.write(msgspec.json.encode(check_bundle(Path(sys.argv[1]))))
