"""Closed loop: a simulated shop with shoppers who react to the decisions of a pipeline, without Kafka."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.schemas.decisions import Ad, Choice, Recommendation, decode_decision
from clickscore.schemas.events import AnyEvent, Click, Impression, ItemEvent, Purchase, encode_event
from clickscore.schemas.topics import EVENTS
from clickscore.stream.decision_ids import AD_SUFFIX
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.shop.assortment import CATEGORIES, STYLES, Floats
from clickscore.stream.simulator.shop.live import PACE, LiveShop, Reactions
from clickscore.stream.simulator.shop.shop_events import Truth
from clickscore.stream.simulator.shop.shoppers import (
    INTENTS,
    NO_ITEM,
    STAGES,
    Shop,
    click_probabilities,
    fit_of,
)

START_MS = 1_767_603_600_000  # 2026-01-05 09:00 UTC; no result depends on the day
STEP_MS = 100
"""Simulated time between two looks of the shop at the clock: a decision comes a moment after the event."""
EVENTS_PER_SECOND = 200.0

_CATEGORY_ROWS = {name: row for row, (name, _, _) in enumerate(CATEGORIES)}
_STYLE_ROWS = {name: row for row, (name, _, _) in enumerate(STYLES)}


class _Record(NamedTuple):
    """A record of the simulated log."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """A way to decide."""

    policy_file: PolicyFile
    has_model: bool = True
    """Whether the model of the demo scores; otherwise popular items are shown."""
    is_oracle: bool = False
    """Whether the true tastes decide, in place of model and policy."""
    campaigns: tuple[Campaign, ...] = ()


@dataclasses.dataclass
class ShopTally:
    """Actions of the shoppers of a shop, counted and as the shop's true probabilities expect.

    An expected click is the true probability of a click on an item, once read. An expected order is the probability of
    the click, and then of a purchase of the item in the same visit. Expectations have the same means as counts, and
    less noise.
    """

    visits: int = 0
    pages: int = 0
    """Decided pages."""
    categories: int = 0
    """Categories of the shown list or main shelf, summed over pages."""
    impressions: int = 0
    """Items read in recommendations, on all shelves, ads in the list included."""
    clicks: int = 0
    orders: int = 0
    """Purchases of items found through a decision, in the same visit."""
    expected_clicks: float = 0.0
    expected_orders: float = 0.0
    revenue: float = 0.0
    """Prices of the expected orders."""
    margin: float = 0.0
    """Margins of the expected orders."""
    ads: int = 0
    """Ads in the list, once read."""
    ad_clicks: float = 0.0
    """Expected clicks on ads in the list."""
    ad_spend: float = 0.0
    """Prices of these clicks."""
    shelves: Mapping[str, Reactions] = dataclasses.field(default_factory=dict[str, Reactions])
    """Counted reactions to each shelf, apart from ads."""


class TasteOracle:
    """Knows need, style and intent of each shopper, and shows the items with the highest true click probability."""

    def __init__(self, shop: Shop) -> None:
        self._items = shop.assortment.items
        self._rows = {item.item_id: row for row, item in enumerate(self._items)}
        self._weights = shop.assortment.weights

    def choose(self, event: AnyEvent, truth: Truth, out_of_stock: Iterable[str], k: int) -> tuple[Choice, ...]:
        """Return the `k` items in stock with the highest probability of a click; popular items first among equals."""
        on_screen = self._rows[event.item_id] if isinstance(event, ItemEvent) else NO_ITEM
        clicks = click_probabilities(
            np.arange(len(self._items)),
            _CATEGORY_ROWS[truth.need],
            _STYLE_ROWS[truth.style],
            INTENTS.index(truth.intent),
            on_screen,
        )
        clicks[[self._rows[item] for item in out_of_stock]] = -1.0
        best = np.lexsort((-self._weights, -clicks))[:k]
        return tuple(
            Choice(item_id=self._items[row].item_id, score=0.0, propensity=1.0, reason="oracle")
            for row in best.tolist()
        )


class ClosedLoop:
    """A shop, and a pipeline for the decisions."""

    def __init__(self, arm: Arm, shop: Shop, scorer: Scorer, purchases: Floats) -> None:
        """Open the shop.

        Args:
            arm: How to decide.
            shop: Items and shoppers.
            scorer: Scorer of the demo's bundle.
            purchases: Probability of a purchase of a clicked item: (intents, stages, fits).
        """
        usual = Settings()
        settings = usual.replace(
            gap_ms=usual.sessions.gap_ms // PACE,
            lateness_ms=usual.sessions.lateness_ms // PACE,
            popularity_refresh_ms=usual.sessions.popularity_refresh_ms // PACE,
        )
        self._catalogue = Catalogue()
        self._change_items(shop.assortment.items)
        for campaign in arm.campaigns:
            self._catalogue.update_campaign(campaign.campaign_id.encode(), encode(campaign))
        self._pipeline = Pipeline(
            settings.sessions,
            settings.policy,
            EVENTS.name,
            self._catalogue,
            scorer if arm.has_model else None,
            policy_file=arm.policy_file,
        )
        self._shop = LiveShop(shop, "bench", rate=EVENTS_PER_SECOND)
        self._oracle = TasteOracle(shop) if arm.is_oracle else None
        self._k = arm.policy_file.size(settings.policy)
        self._items = {item.item_id: (row, item) for row, item in enumerate(shop.assortment.items)}
        self._purchases = purchases
        self._partitions = settings.kafka.partitions
        self._offsets: dict[int, int] = {}
        self._truths: dict[str, tuple[AnyEvent, Truth]] = {}
        self._prices: dict[tuple[str, str], float] = {}
        self._sessions: set[str] = set()
        self._tally = ShopTally()

    def run(self, seconds: int) -> ShopTally:
        """Let the shop be open for some simulated seconds; return the actions of the shoppers."""
        for ts in range(START_MS, START_MS + 1_000 * seconds, STEP_MS):
            outgoing = self._shop.advance(ts)
            self._change_items(outgoing.items)
            batches: dict[int, list[_Record]] = {}
            for event, truth in outgoing.events:
                if not truth.repeat:
                    self._count(event, truth)
                self._truths[event.event_id] = event, truth
                partition = partition_of(event.user_id.encode(), self._partitions)
                offset = self._offsets[partition] = self._offsets.get(partition, -1) + 1
                record = _Record(offset, ts, event.user_id.encode(), encode_event(event))
                batches.setdefault(partition, []).append(record)
            for output in self._pipeline.process_all(list(batches.items())):
                self._show(output)
            self._truths.clear()
        self._tally.shelves = self._shop.shelves
        return self._tally

    def _show(self, output: Output) -> None:
        """Show the decisions of a batch to the shoppers."""
        for message in (*output.recommendations, *output.ads):
            decision = decode_decision(message.value or b"")
            if isinstance(decision, Ad):
                base = decision.decision_id.removesuffix(AD_SUFFIX)
                self._prices.update({(base, slot.campaign_id): slot.price for slot in decision.slots})
            else:
                if self._oracle is not None:
                    decision = self._replace_items(decision, self._oracle)
                self._tally.pages += 1
                self._tally.categories += len({self._items[choice.item_id][1].category for choice in decision.items})
            self._shop.receive(decision)

    def _replace_items(self, decision: Recommendation, oracle: TasteOracle) -> Recommendation:
        event, truth = self._truths[decision.event_id]
        choices = oracle.choose(event, truth, self._catalogue.out_of_stock, self._k)
        return msgspec.structs.replace(decision, items=choices)

    def _count(self, event: AnyEvent, truth: Truth) -> None:
        """Count an event. Each event counts once: the shop marks intentional repeats."""
        tally = self._tally
        if event.session_id not in self._sessions:
            self._sessions.add(event.session_id or "")
            tally.visits += 1
        if not isinstance(event, ItemEvent) or event.decision_id is None or event.decision_id.endswith(AD_SUFFIX):
            return
        if isinstance(event, Impression):
            tally.impressions += 1
            self._expect(event, truth)
        elif isinstance(event, Click):
            tally.clicks += 1
        elif isinstance(event, Purchase):
            tally.orders += 1

    def _expect(self, event: Impression, truth: Truth) -> None:
        """Add the expectation of an item, once read."""
        tally, click = self._tally, truth.click or 0.0
        row, item = self._items[event.item_id]
        fit = fit_of(np.array([row]), np.array([_CATEGORY_ROWS[truth.need]]), np.array([_STYLE_ROWS[truth.style]]))[0]
        # A shopper who finds the item sold out at the checkout leaves.
        is_sold_out = event.item_id in self._catalogue.out_of_stock
        state = INTENTS.index(truth.intent), STAGES.index(truth.stage), int(fit)
        order = 0.0 if is_sold_out else click * float(self._purchases[state])
        price = item.price or 0.0
        tally.expected_clicks += click
        tally.expected_orders += order
        tally.revenue += order * price
        tally.margin += order * price * (item.margin or 0.0)
        if event.campaign_id is not None and event.decision_id is not None:
            tally.ads += 1
            tally.ad_clicks += click
            tally.ad_spend += click * self._prices[event.decision_id, event.campaign_id]

    def _change_items(self, items: Sequence[Item]) -> None:
        for item in items:
            self._catalogue.update_item(item.item_id.encode(), encode(item))
