"""Decisions quality: what rules, goals and ads do in the simulated shop: `python -m bench.decisions_quality`.

Every arm gets the same shop and the same shoppers, in simulated time and without Kafka. The items are those of the
demo, so its bundle knows them; each round has shoppers of its own. The same arguments give the same page.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import click
import msgspec
import numpy as np

from bench.closed_loop import Arm, ClosedLoop, ShopTally
from bench.decision_arms import DEFAULT, ad_arms, goal_arms, rule_arms
from bench.quality_page import render_page
from clickscore.model.packaged_bundle import DEMO, resolve_folder
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.simulator.demo import SEED
from clickscore.stream.simulator.shop.shoppers import Shop, make_population, make_shop

SHOPPERS = 5_000


def make_base_shop() -> Shop:
    """Return the shop of the demo, with a margin for each item: 10 to 60 % of its price."""
    shop = make_shop(SEED, SHOPPERS)
    margins = np.random.default_rng(3).uniform(0.1, 0.6, len(shop.assortment.items)).round(3).tolist()
    items = tuple(
        msgspec.structs.replace(item, margin=margin)
        for item, margin in zip(shop.assortment.items, margins, strict=True)
    )
    return dataclasses.replace(shop, assortment=dataclasses.replace(shop.assortment, items=items))
