"""Garbage collection: make Python's cycle collector run seldom, since batches and requests make few cycles."""

import gc

THRESHOLDS = (100_000, 20, 50)
"""Thresholds of `gc.set_threshold`. The objects of a batch live until its end and form no cycles. With Python's own
thresholds the collector took a quarter of the time of a replay, and of a worker without a model."""


def tune_gc() -> None:
    """Collect once, exempt all present objects from collection, and collect seldom from now on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
