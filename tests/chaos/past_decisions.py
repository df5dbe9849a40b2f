"""Past decisions: change the shop, the bundle and the policy under kills, then make every decision again and compare.

python -m tests.chaos.past_decisions [--seed N] [--decisions N]
"""

import argparse
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.events import read_epoch
from clickscore.schemas.topics import ADS, CAMPAIGNS, CATALOGUE, EVENTS, RECOMMENDATIONS, Topic
from clickscore.stream.scoring.bundle import check_bundle
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.settings import environment_of
from tests.brokers import running_broker
from tests.bundles import small_bundle
from tests.chaos.stage import say
from tests.integration.event_log import campaigns, catalogue, event_log
from tests.integration.live import ROOT, Installation, installation

STEPS = 50
"""Steps of the run: each changes the shop, and is followed by events."""
CHANGES = 20
"""Changed items of a step: 1,000 in all."""
CAMPAIGN_STEPS = range(2, STEPS, 2)
"""Steps that also change a campaign."""
CAMPAIGN_CHANGES = 20
KILL_STEPS = (5, 13, 22, 31, 44)
JOIN_STEPS = (9, 36)
"""Steps in which a third worker joins; it leaves in the next step."""
SWITCH_STEPS = {17: {"bundle": 1}, 27: {"policy": 1}}
"""Steps in which all workers start again with another bundle or policy."""
ROLLOUT_STEP = 38
"""Step in which the third bundle takes over by a rollout, without a restart."""
PAUSE_S = 0.4
"""Time between the changes of the shop and the events of a step, s: more than `epoch_ms`."""
POLICY = 'version = "proof-1"\nowner = "tests"\nk = 6\n\n[limit]\nreminders = 1\n'


class Versions(NamedTuple):
    """Bundles and policies of a run, in the order of their use."""

    bundles: Sequence[Path]
    policies: Sequence[str]
    content_hash: str
    """Content hash of the bundle that takes over by a rollout."""


class Outcome(NamedTuple):
    """Result of a run."""

    facts: dict[str, int]
    """What happened, counted in the topics."""
    verdicts: Counter[str]
    """Number of decisions by verdict."""
    seconds: float
    """Time to make the decisions again, s."""


def run(broker: str, folder: Path, seed: int, decisions: int) -> Outcome:
    """Decide under changes and faults, then make a sample of the decisions again.

    Args:
        broker: Bootstrap servers.
        folder: An empty folder.
        seed: Seed of events and changes.
        decisions: Number of decisions to make again.
    """
    store = BundleStore(str(folder / "store"), check_bundle)
    bundles = [small_bundle(folder / f"bundle-{items}", items) for items in (300, 280, 260)]
    content_hash = [store.push(bundle).content_hash for bundle in bundles][-1]
    policy = folder / "proof.toml"
    policy.write_text(POLICY)
    settings = {"control_share": 0.1, "max_events": 20, "epoch_ms": 50, "session_timeout_ms": 3_000, "reasons": 2}
    with installation(broker, folder, **settings, bundle_store=str(folder / "store")) as live:
        _decide(live, Versions(bundles, ["default", str(policy)], content_hash), random.Random(seed), decisions)
        published = {topic.name: _decisions(live, topic) for topic in (RECOMMENDATIONS, ADS)}
        records = {**published[RECOMMENDATIONS.name], **published[ADS.name]}
        ids = random.Random(seed).sample(sorted(records), decisions)
        started_at = time.monotonic()
        verdicts = _explain(live, ids, ["--policy", str(policy)])
        seconds = time.monotonic() - started_at
        return Outcome(_facts(live, records), verdicts, seconds)


def _decide(live: Installation, versions: Versions, dice: random.Random, decisions: int) -> None:
    """Let workers decide on events while the shop changes and workers are killed and replaced."""
    log = event_log(int(decisions * 1.3) // STEPS * STEPS, dice.randrange(1_000), privacy=0.01)
    size = len(log) // STEPS
    chunks = [log[start : start + size] for start in range(0, len(log), size)]
    present: dict[str, Any] = {"bundle": str(versions.bundles[0]), "policy": versions.policies[0]}
    live.fill_catalogue(catalogue(), campaigns())
    running = [live.start_worker(**present) for _ in range(2)]
    changes = _shop_changes(dice)
    for step, chunk in enumerate(chunks):
        live.fill_catalogue(*next(changes))
        if step in KILL_STEPS:
            running.pop(dice.randrange(len(running))).kill()
            running.append(live.start_worker(**present))
        if step in JOIN_STEPS:
            running.append(live.start_worker(**present))
        if step - 1 in JOIN_STEPS:
            running.pop(0).stop()
        if step == ROLLOUT_STEP:
            _run(live, ["rollout", "set", versions.content_hash], "")
        if step in SWITCH_STEPS:
            change = SWITCH_STEPS[step]
            present |= {"bundle": str(versions.bundles[change["bundle"]])} if "bundle" in change else {}
            present |= {"policy": versions.policies[change["policy"]]} if "policy" in change else {}
            live.stop_workers()
            running = [live.start_worker(**present) for _ in range(2)]
        time.sleep(PAUSE_S)
        live.produce(chunk)
        for worker in running:
            worker.wait_restored()
        say(f"step {step + 1} of {STEPS}")
    live.wait_finished()
    live.stop_workers()


def _shop_changes(dice: random.Random) -> Iterator[tuple[list[Item], list[Campaign]]]:
    """Yield the changed items and campaigns of each step."""
    remaining = CAMPAIGN_CHANGES
    for step in itertools.count():
        items = [
            msgspec.structs.replace(item, stock=dice.randrange(2), hidden=dice.random() < 0.1)
            for item in dice.sample(catalogue(), CHANGES)
        ]
        changed: list[Campaign] = []
        if step in CAMPAIGN_STEPS and remaining:
            remaining -= 1
            changed = [msgspec.structs.replace(dice.choice(campaigns()), bid=round(dice.uniform(0.1, 5), 2))]
        yield items, changed


def _decisions(live: Installation, topic: Topic) -> dict[str, dict[str, Any]]:
    """Return the published decisions of a topic by id."""
    values = [record.value or b"" for records in live.read(topic).values() for record in records]
    decoded = [msgspec.json.decode(value) for value in values]
    return {decision["decision_id"]: decision for decision in decoded}


def _explain(live: Installation, ids: Sequence[str], arguments: Sequence[str]) -> Counter[str]:
    """Return the number of decisions by verdict, as `clickscore explain` finds them."""
    done = _run(live, ["explain", "-", "--brief", *arguments], "\n".join(ids))
    verdicts = Counter(line.split("  ")[1] for line in done.stdout.splitlines())
    say(done.stderr.strip())
    for line in [line for line in done.stdout.splitlines() if not line.endswith("  equal")][:20]:
        say(line)
    return verdicts


def _run(live: Installation, arguments: Sequence[str], text: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of an installation.

    Args:
        live: The installation.
        arguments: Command and options.
        text: Standard input.
    """
    return subprocess.run(
        [sys.executable, "-m", "clickscore.stream", *arguments],
        cwd=ROOT,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", **environment_of(live.settings)},
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def _facts(live: Installation, decisions: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Return what happened, as the topics and the decisions show it."""
    epochs = sum(read_epoch(record.value) is not None for records in live.read(EVENTS).values() for record in records)
    return {
        "decisions published": len(decisions),
        "epochs": epochs,
        "changes of items": len(live.read(CATALOGUE)[0]) - len(catalogue()),
        "changes of campaigns": len(live.read(CAMPAIGNS)[0]) - len(campaigns()),
        "bundles": len({decision["bundle"] for decision in decisions.values() if decision["bundle"]}),
        "policies": len({decision["policy"] for decision in decisions.values()}),
        "kills": len(KILL_STEPS),
        "workers that joined and left": len(JOIN_STEPS),
    }


def main() -> None:
    """Run the proof, and exit with 1 unless all decisions are equal."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.past_decisions", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="seed of events and changes")
    parser.add_argument("--decisions", type=int, default=10_000, help="decisions to make again")
    options = parser.parse_args()
    say(f"seed {options.seed}")
    with (
        tempfile.TemporaryDirectory(prefix="clickscore-past-") as folder,
        running_broker(Path(folder, "kafka")) as broker,
    ):
        work = Path(folder, "work")
        work.mkdir()
        outcome = run(broker, work, options.seed, options.decisions)
    for name, count in outcome.facts.items():
        sys.stdout.write(f"{count:>10,}  {name}\n")
    for verdict, count in outcome.verdicts.most_common():
        sys.stdout.write(f"{count:>10,}  {verdict}\n")
    sys.stdout.write(f"{outcome.seconds:>10.0f}  seconds for these\n")
    sys.exit(outcome.verdicts != Counter({"equal": options.decisions}))


if __name__ == "__main__":
    main()
