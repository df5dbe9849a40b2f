"""Garbage: how often Python looks for cycles among what a batch makes."""

import gc

THRESHOLDS = (100_000, 20, 50)
"""What a batch makes lives until its end, and nothing of it is a cycle: looking for cycles at Python's usual pace took
a quarter of the time of a worker without a model, and of a replay."""


def tune_gc() -> None:
    """Look for garbage seldom from now on, and no more among what is there already."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
