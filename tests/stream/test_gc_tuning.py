import subprocess
import sys

ASKED = """
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


def test_cycles_are_looked_for_still():
    subprocess.run([sys.executable, "-c", ASKED], check=True)  # a process of its own: it holds for good
