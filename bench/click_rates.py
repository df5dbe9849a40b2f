"""Click rates: policies in the simulated shop, whose shoppers react: `python -m bench.click_rates`.

Every policy gets the same shop and the same shoppers, in simulated time and without Kafka. The items are those of the
demo, so its bundle knows them; each round has shoppers of its own. The same arguments give the same table.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import click
import msgspec

from bench.former_policy import POLICY_0_1_0
from clickscore.model.packaged_bundle import DEMO, resolve_folder
from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.decisions import decode_decision
from clickscore.schemas.events import encode_event
from clickscore.schemas.topics import EVENTS
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.policy_file import DEFAULT_POLICY, Hide, Limit, PolicyFile, load_policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.demo import SEED
from clickscore.stream.simulator.shop.live import PACE, LiveShop, Reactions
from clickscore.stream.simulator.shop.shoppers import Shop, make_population, make_shop

SHOPPERS = 5_000
START_MS = 1_767_603_600_000  # 2026-01-05 09:00 UTC; no result depends on the day
STEP_MS = 100
"""Simulated time between two looks of the shop at the clock: a decision is there a moment after its event."""


class _Record(NamedTuple):
    """A record of the simulated log."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes


@dataclasses.dataclass
class ClosedLoop:
    """A shop, and a pipeline that decides for it."""

    shop: LiveShop
    pipeline: Pipeline
    catalogue: Catalogue
    partitions: int
    offsets: dict[int, int] = dataclasses.field(default_factory=dict[int, int])
    pages: int = 0
    """Number of decided pages."""

    def run(self, seconds: int) -> Mapping[str, Reactions]:
        """Let the shop be open for some simulated seconds; return the reactions by variant."""
        for ts in range(START_MS, START_MS + 1_000 * seconds, STEP_MS):
            outgoing = self.shop.advance(ts)
            self._change_items(outgoing.items)
            batches: dict[int, list[_Record]] = {}
            for event, _ in outgoing.events:
                partition = partition_of(event.user_id.encode(), self.partitions)
                offset = self.offsets[partition] = self.offsets.get(partition, -1) + 1
                record = _Record(offset, ts, event.user_id.encode(), encode_event(event))
                batches.setdefault(partition, []).append(record)
            for output in self.pipeline.process_all(list(batches.items())):
                self.pages += len(output.recommendations)
                for message in output.recommendations:
                    self.shop.receive(decode_decision(message.value or b""))
        return self.shop.variants

    def _change_items(self, items: Sequence[Item]) -> None:
        for item in items:
            self.catalogue.update_item(item.item_id.encode(), encode(item))


def policies() -> dict[str, PolicyFile]:
    """Return the compared policies by name."""
    hide = DEFAULT_POLICY.hide

    def changed(hide: Hide = hide, reminders: int = DEFAULT_POLICY.limit.reminders) -> PolicyFile:
        limit: Limit = msgspec.structs.replace(DEFAULT_POLICY.limit, reminders=reminders)
        return msgspec.structs.replace(DEFAULT_POLICY, hide=hide, limit=limit)

    return {
        "bought, out of stock and hidden items alone (0.1.0)": POLICY_0_1_0,
        "default": DEFAULT_POLICY,
        "default without `on_screen`": changed(msgspec.structs.replace(hide, on_screen=False)),
        "default without `in_cart`": changed(msgspec.structs.replace(hide, in_cart=False)),
        "default with 0 reminders (`strict`)": load_policy("strict"),
        "default with 1 reminder (`discovery`)": load_policy("discovery"),
        "default with 5 reminders": changed(reminders=5),
        "default with any number of reminders": changed(reminders=POLICY_0_1_0.limit.reminders),
        "default with shelves (`shelves`)": load_policy("shelves"),
        "default with diversity 0.1": msgspec.structs.replace(DEFAULT_POLICY, diversity=0.1),
        "default with diversity 0.3": msgspec.structs.replace(DEFAULT_POLICY, diversity=0.3),
    }


class ClickRates(NamedTuple):
    """How often shoppers click."""

    impressions: float
    """Clicks for 100 impressions of the list, or of the main shelf."""
    pages: float
    """Clicks for 100 pages, on all their shelves."""


def click_rates(policy_file: PolicyFile, shop: Shop, scorer: Scorer, seconds: int) -> ClickRates:
    """Return the reactions to a policy.

    Args:
        policy_file: The policy.
        shop: Items and shoppers.
        scorer: Scorer of the bundle.
        seconds: Simulated opening time.
    """
    usual, catalogue = Settings(), Catalogue()
    settings = usual.replace(
        gap_ms=usual.sessions.gap_ms // PACE,
        lateness_ms=usual.sessions.lateness_ms // PACE,
        popularity_refresh_ms=usual.sessions.popularity_refresh_ms // PACE,
    )
    pipeline = Pipeline(settings.sessions, settings.policy, EVENTS.name, catalogue, scorer, policy_file=policy_file)
    for item in shop.assortment.items:
        catalogue.update_item(item.item_id.encode(), encode(item))
    loop = ClosedLoop(LiveShop(shop, "bench", rate=200.0), pipeline, catalogue, settings.kafka.partitions)
    (reactions,) = [value for variant, value in loop.run(seconds).items() if variant == "model"]
    main = {name for names in msgspec.structs.asdict(policy_file.pages).values() for name in names[:1]}
    other_clicks = sum(shelf.clicks for name, shelf in loop.shop.shelves.items() if name not in main)
    return ClickRates(
        100 * reactions.clicks / max(1, reactions.impressions),
        100 * (reactions.clicks + other_clicks) / max(1, loop.pages),
    )


@click.command()
@click.option("--rounds", type=click.IntRange(min=2), default=5, show_default=True, help="Shops with other shoppers.")
@click.option("--seconds", type=click.IntRange(min=1), default=300, show_default=True, help="Opening time of a shop.")
@click.option(
    "--only", multiple=True, help="Run only the policies whose name has this text, beside that of 0.1.0; repeatable."
)
def main(rounds: int, seconds: int, only: tuple[str, ...]) -> None:
    """Print the clicks of each policy, against the policy of 0.1.0 with the same shoppers."""
    scorer = Scorer(load_bundle(Path(resolve_folder(DEMO))))
    base = make_shop(SEED, SHOPPERS)
    base_name, *later_names = policies()
    names = [base_name, *(name for name in later_names if not only or any(text in name for text in only))]
    rates: dict[str, list[ClickRates]] = {name: [] for name in names}
    for number in range(rounds):
        seed = 1_000 + number
        shop = dataclasses.replace(base, seed=seed, population=make_population(seed, SHOPPERS))
        for name in names:
            rates[name].append(click_rates(policies()[name], shop, scorer, seconds))
        sys.stderr.write(f"round {number + 1} of {rounds}\n")
    print("| policy | clicks for 100 impressions | against 0.1.0 | clicks for 100 pages |\n|---|---|---|---|")
    first = rates[base_name]
    for name, values in rates.items():
        gains = [100 * (value.impressions / base.impressions - 1) for value, base in zip(values, first, strict=True)]
        error = 1.96 * stdev(gains) / len(gains) ** 0.5
        gain = (
            ""
            if name == base_name
            else f"{mean(gains):+.1f} % (95 %: {mean(gains) - error:+.1f} to {mean(gains) + error:+.1f})"
        )
        impressions, pages = (mean(column) for column in zip(*values, strict=True))
        print(f"| {name} | {impressions:.2f} | {gain} | {pages:.2f} |")


if __name__ == "__main__":
    main()
