"""Garbage collection: seldom, but not switched off."""

import subprocess
import sys

SCRIPT = """
import gc
from clickscore.stream.gc_tuning import THRESHOLDS, tune_gc
tune_gc()
assert gc.isenabled() and gc.get_threshold() == THRESHOLDS, gc.get_threshold()
assert gc.get_freeze_count() > 1000
cycle = []
cycle.append(cycle)
del cycle
assert gc.collect() > 0
"""


def test_cycles_are_still_collected():
    subprocess.run(
        [sys.executable, "-c", SCRIPT], check=True
    )  # in a child process, since the change lasts as long as the process
