"""Threads: the CPU threads of a training, and how they wait. Imports nothing that starts threads."""

import os

SINGLE_THREAD_DIM = 64
"""Vectors of up to this size train with one thread by default: the products of a step are so small that a second thread
costs twice the CPU time and saves nothing (`docs/experiments.md`)."""


def wait_passively() -> None:
    """Let the threads of OpenMP sleep between two parallel parts, unless the environment says otherwise.

    By default they spin, and beside other work on the same cores each step waits for a thread that spins. OpenMP reads
    the variable when torch, scikit-learn or LightGBM is imported: call this function before.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def choose_threads(threads: int | None, dim: int) -> int | None:
    """Return the number of threads of a training: the given one, one for a small model, or None for one a core.

    Args:
        threads: Number of the command line, if any.
        dim: Size of the model's vectors.
    """
    return threads or (1 if dim <= SINGLE_THREAD_DIM else None)
