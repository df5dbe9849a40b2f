"""Decisions quality: what parts of decisions are worth in the simulated shop: `python -m bench.decisions_quality`.

Every arm gets the same shop and the same shoppers, in simulated time and without Kafka. The items are the
items of the demo, known to the demo's bundle; each round has other shoppers. The same arguments give the same page.
"""

import dataclasses
import sys
from collections import defaultdict
from pathlib import Path

import click
import msgspec
import numpy as np

from bench.closed_loop import Arm, ClosedLoop, ShopTally
from bench.decision_arms import DEFAULT, ad_arms, diversity_arms, goal_arms, rule_arms, shelf_arms
from bench.purchase_truth import purchase_probabilities
from bench.quality_page import QualityResults, render_page
from bench.quality_plots import draw_quality_plots
from clickscore.model.packaged_bundle import DEMO, resolve_folder
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.simulator.demo import SEED
from clickscore.stream.simulator.shop.shoppers import Shop, make_population, make_shop

SHOPPERS = 5_000


def make_base_shop() -> Shop:
    """Return the shop of the demo, with a margin for each item: 10 to 60 % of the price."""
    shop = make_shop(SEED, SHOPPERS)
    margins = np.random.default_rng(3).uniform(0.1, 0.6, len(shop.assortment.items)).round(3).tolist()
    items = tuple(
        msgspec.structs.replace(item, margin=margin)
        for item, margin in zip(shop.assortment.items, margins, strict=True)
    )
    return dataclasses.replace(shop, assortment=dataclasses.replace(shop.assortment, items=items))


def run_rounds(rounds: int, seconds: int) -> QualityResults:
    """Let every arm decide for the same shoppers, in some rounds with other shoppers.

    Args:
        rounds: Number of rounds.
        seconds: Simulated opening time of a shop.
    """
    scorer = Scorer(load_bundle(Path(resolve_folder(DEMO))))
    base = make_base_shop()
    purchases = purchase_probabilities(base.chain)
    groups: dict[str, dict[str, Arm]] = {
        "rules": rule_arms(),
        "shelves": shelf_arms(),
        "diversity": diversity_arms(),
        "goals": goal_arms(),
        "ads": ad_arms(base.assortment.items),
    }
    tallies: dict[str, dict[str, list[ShopTally]]] = {name: defaultdict(list) for name in groups}
    for number in range(rounds):
        seed = 1_000 + number
        shop = dataclasses.replace(base, seed=seed, population=make_population(seed, SHOPPERS))
        for group, arms in groups.items():
            for name, arm in arms.items():
                tallies[group][name].append(ClosedLoop(arm, shop, scorer, purchases).run(seconds))
        sys.stderr.write(f"round {number + 1} of {rounds}\n")
    default = tallies["rules"][DEFAULT]
    return QualityResults(
        rounds=rounds,
        seconds=seconds,
        default=default,
        rules=tallies["rules"],
        shelves={"one list": default, **tallies["shelves"]},
        diversity={DEFAULT: default, **tallies["diversity"]},
        goals={DEFAULT: default, **tallies["goals"]},
        ads={"no ads": default, **tallies["ads"]},
    )


@click.command()
@click.option("--rounds", type=click.IntRange(min=2), default=5, show_default=True, help="Shops with other shoppers.")
@click.option("--seconds", type=click.IntRange(min=10), default=25, show_default=True, help="Opening time of a shop.")
@click.option(
    "--docs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("docs"),
    show_default=True,
    help="Folder of the page decisions-quality.md and its plots.",
)
@click.option("--json-file", type=click.Path(dir_okay=False, path_type=Path), help="Keep the counts of every run here.")
def main(rounds: int, seconds: int, docs: Path, json_file: Path | None) -> None:
    """Compare policies in the simulated shop, and write page and plots."""
    results = run_rounds(rounds, seconds)
    if json_file:
        json_file.write_bytes(msgspec.json.encode(results))
    for name, svg in draw_quality_plots(results).items():
        (docs / "plots" / f"decisions-{name}.svg").write_text(svg, encoding="utf-8")
    (docs / "decisions-quality.md").write_text(render_page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
