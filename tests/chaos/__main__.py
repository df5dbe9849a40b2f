"""Chaos: run every scene, print the table of docs/reliability.md, and exit with 1 if anything is off.

python -m tests.chaos [--seed N] [--only SCENE,...]
"""

import argparse
import logging
import random
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.chaos import results_table
from tests.chaos.changed_logs import run_cut_log, run_growth, run_new_topic, run_retention
from tests.chaos.full_disk import NoDiskError, run_full_disk
from tests.chaos.judge import Verdict
from tests.chaos.lost_nodes import run_cluster
from tests.chaos.stage import Result, say
from tests.chaos.storm import run_exactly_once, run_stalls, run_storm

Scene = Callable[[Path, int], Result]

SCENES: dict[str, Scene] = {
    "storm": lambda folder, seed: run_storm(folder, seed, kills=24, stalls=8, broker_kills=3, broker_holds=2),
    "stalls": lambda folder, seed: run_stalls(folder, seed, stalls=50),
    "retention": run_retention,
    "cut-log": run_cut_log,
    "new-topic": run_new_topic,
    "growth": run_growth,
    "cluster": run_cluster,
    "full-disk": run_full_disk,
}
LONG_SCENES: dict[str, Scene] = {
    "exactly-once": lambda folder, seed: run_exactly_once(folder, seed, kills=100, stalls=10, rebalances=10),
}
"""Scenes that run only where they are named, since each takes most of the 20 minutes of the others."""


def main() -> None:
    """Run the scenes that the command line names, all by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults under load, and a judge")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="seed of events and faults")
    parser.add_argument("--only", default=",".join(SCENES), help=f"scenes to run, of {', '.join(SCENES | LONG_SCENES)}")
    options = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a client tells of every broker that is killed
    say(f"seed {options.seed}")
    results: list[Result] = []
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory(prefix="clickscore-chaos-") as folder:
            try:
                result = (SCENES | LONG_SCENES)[name](Path(folder), options.seed)
            except NoDiskError as exc:
                say(f"{name}: skipped, {exc}")
                continue
            except Exception:  # noqa: BLE001 (a scene that fails is a row of the table, and the next scene still runs)
                result = Result(name, options.seed, Verdict())
                result.verdict.note("scene", traceback.format_exc())
        say(f"{name}: {'good' if result.is_good else 'OFF'} after {result.seconds:.0f} s")
        if not result.is_good:
            say(results_table.faults([result]))
        results.append(result)
    sys.stdout.write(f"{results_table.markdown(results)}\n{results_table.faults(results)}\n")
    sys.exit(not all(result.is_good for result in results))


if __name__ == "__main__":
    main()
