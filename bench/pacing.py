"""Pacing: a simulated day of campaigns with budgets, beside the offline optimum: `python -m bench.pacing`.

The auctions, the accounts, the leases and the controllers are those of the product. Traffic, clicks, the delay of
records and the death of a worker are simulated.
"""

import copy
import heapq
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import log
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from bench.pacing_plot import draw_curves
from clickscore.schemas.catalogue import Campaign
from clickscore.schemas.durations import DAY_MS, HOUR_MS, MINUTE_MS
from clickscore.schemas.leases import MICROS, BudgetLease, SpendReport, to_micros
from clickscore.schemas.outcomes import AdCharge
from clickscore.stream.budgets.accounts import BudgetAccounts
from clickscore.stream.budgets.allocator import Allocator, Budget
from clickscore.stream.budgets.pacing import SMALL_UNITS, target_share
from clickscore.stream.policy.auction import Bidder, Slot, make_bidder, rank, sell

FIRST_DAY = 20_454
"""First simulated day, days since 1970: 2026-01-01."""
SWING = 0.6
"""The busiest minute has 1 + SWING times the mean traffic, the quietest 1 - SWING times (Yahoo's pacing simulator)."""
BUSIEST_MS = 20 * HOUR_MS
GAMMA = 3.77
"""The logarithm of a daily budget is gamma distributed with this shape (Yahoo's pacing simulator)."""
CATEGORIES = 40
RESERVE = 0.002
RECORD_DELAY_MS = 150
"""Time until a written record is read, ms: a batch of the writer and one of the reader."""
TAKEOVER_MS = 20_000
"""Time until the partitions of a dead worker go on: 10 s until it is missed, and the restore of the state."""
MINUTES = DAY_MS // MINUTE_MS
CLICK_DELAY_MS = 20_000
"""Mean time from page to click, ms."""
SLOT = (Slot(0, 1.0),)
CHUNK = 10_000
"""Pages whose random numbers are drawn at once."""
MAX_DRAWS = 60
"""Random numbers of a page: two, and two for each of its campaigns."""
MAX_VARIABLES = 5_000
"""Variables of a linear program at most."""
SPENDABLE = 1.2
"""Cost of all pages of a campaign, as a multiple of its budget, from which the campaign could spend the budget."""


class Market(NamedTuple):
    """The campaigns of a shop."""

    campaigns: Sequence[Campaign]
    click_rates: NDArray[np.float64]
    """Mean probability of a click, by campaign."""
    by_category: Sequence[Sequence[int]]
    """Campaigns that target a category."""
    popularity: NDArray[np.float64]
    """Share of the pages, by category."""


def make_market(campaigns: int, rng: np.random.Generator) -> Market:
    """Return campaigns with random bids, click rates and targets."""
    targets = [
        frozenset(rng.choice(CATEGORIES, int(rng.integers(3, 9)), replace=False).tolist()) for _ in range(campaigns)
    ]
    made = [
        Campaign(campaign_id=f"campaign-{number:02}", item_id=f"item-{number}", bid=round(float(bid), 2))
        for number, bid in enumerate(rng.lognormal(-0.7, 0.3, campaigns))
    ]
    weights = 1 / np.arange(2, CATEGORIES + 2) ** 0.7
    by_category = [[number for number, own in enumerate(targets) if row in own] for row in range(CATEGORIES)]
    return Market(made, rng.lognormal(-3.2, 0.3, campaigns), by_category, weights / weights.sum())


class Pages(NamedTuple):
    """The pages of a day, in order of time."""

    times: NDArray[np.int64]
    partitions: NDArray[np.int64]
    categories: NDArray[np.int64]
    seed: int
    """Seed of the draws of each page, so that two runs have the same pages."""

    def rows(self) -> Iterator[tuple[int, int, "PageRecord"]]:
        """Yield time, partition and record of each page."""
        columns = (self.times.tolist(), self.partitions.tolist(), self.categories.tolist())
        for start in range(0, len(self.times), CHUNK):
            chunk = slice(start, start + CHUNK)
            times, partitions, categories = (column[chunk] for column in columns)
            draws = np.random.default_rng((self.seed, start)).random((len(times), MAX_DRAWS)).tolist()
            records = map(PageRecord, categories, draws)
            yield from zip(times, partitions, records, strict=True)


class PageRecord(NamedTuple):
    """A page as a record of the log."""

    category: int
    draws: list[float]
    """Random numbers: whether and when the user clicks, and then a click rate and a quality for each campaign."""


class Click(NamedTuple):
    """A click on an ad, with the price to charge in millionths."""

    campaign_id: str
    price: int


Record = PageRecord | Click | SpendReport | BudgetLease
"""Record of a partition's log."""


def make_pages(day: int, size: int, partitions: int, market: Market, rng: np.random.Generator) -> Pages:
    """Return the pages of a day, whose traffic swings over the day."""
    grid = np.arange(DAY_MS // MINUTE_MS + 1) * MINUTE_MS
    rate = 1 + SWING * np.cos(2 * np.pi * (grid - BUSIEST_MS) / DAY_MS)
    shares = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2)])
    times = np.sort(np.interp(rng.random(size), shares / shares[-1], grid)).astype(np.int64)
    return Pages(
        np.minimum(times, DAY_MS - 1) + day * DAY_MS,
        rng.integers(0, partitions, size),
        rng.choice(CATEGORIES, size, p=market.popularity),
        int(rng.integers(0, 2**31)),
    )


@dataclass
class Opportunities:
    """What a campaign could have bought on a day, at the prices of the rivals."""

    values: "array[float]" = field(default_factory=lambda: array("d"))
    """Bid times probability of each page."""
    costs: "array[float]" = field(default_factory=lambda: array("d"))
    """Expected cost of each page."""


@dataclass
class Run:
    """What came of a day."""

    spent: NDArray[np.int64]
    """Charged millionths up to the end of each minute, by campaign."""
    targets: NDArray[np.float64]
    """Planned millionths up to the end of each minute, by campaign."""
    values: NDArray[np.float64]
    """Expected value of the shown ads, by campaign."""
    opportunities: list[Opportunities]
    uncharged: int = 0
    """Millionths of clicks that no lease could pay."""
    records: int = 0
    """Records of reports and leases."""


class Death(NamedTuple):
    """The death of a worker."""

    partitions: Sequence[int] = ()
    """Partitions of the worker."""
    begin: int = 0
    """Time of the death, ms."""
    end: int = 0
    """Time at which another worker goes on with the partitions, ms."""


NO_DEATH = Death()


class Shop:
    """Partitions with their accounts, and the allocator of partition 0."""

    def __init__(self, market: Market, budgets: Mapping[str, Budget], partitions: int) -> None:
        self.market = market
        self.budgets = budgets
        self.accounts = [BudgetAccounts(partition) for partition in range(partitions)]
        self.allocator = Allocator()
        self.number_of = {campaign.campaign_id: number for number, campaign in enumerate(market.campaigns)}

    def run(self, pages: Pages, death: Death = NO_DEATH) -> Run:
        """Run a day.

        Args:
            pages: Pages of the day.
            death: The death of a worker; by default nothing dies.
        """
        return DayRun(self, pages, death).run()


class DayRun:
    """A running day: the logs of the partitions, and the delays of their records."""

    def __init__(self, shop: Shop, pages: Pages, death: Death) -> None:
        size = len(shop.market.campaigns)
        opportunities = [Opportunities() for _ in range(size)]
        self._result = Run(
            np.zeros((MINUTES, size), np.int64), np.zeros((MINUTES, size)), np.zeros(size), opportunities
        )
        self._shop = shop
        self._pages = pages
        self._death = death
        self._midnight = int(pages.times[0]) // DAY_MS * DAY_MS
        self._order = count()
        self._waiting: list[tuple[int, int, int, Record]] = []  # (time, order, partition, record)
        self._backlog: list[tuple[int, int, Record]] = []  # (time, partition, record) of the dead worker's partitions
        self._minute = 0

    def run(self) -> Run:
        """Run the day to its end."""
        for time, partition, page in self._pages.rows():
            while self._waiting and self._waiting[0][0] <= time:
                time_ms, _, target, record = heapq.heappop(self._waiting)
                self._deliver(time_ms, target, record)
            self._note_minutes((time - self._midnight) // MINUTE_MS)
            self._deliver(time, partition, page)
        self._note_minutes(MINUTES)
        accounts = [account for own in self._shop.accounts for account in own.campaigns.values()]
        self._result.uncharged = sum([account.owed for account in accounts])
        return self._result

    def _write(self, time: int, partition: int, record: Record) -> None:
        heapq.heappush(self._waiting, (time, next(self._order), partition, record))

    def _deliver(self, time: int, partition: int, record: Record) -> None:
        """Give a record to the worker of its partition; the partitions of a dead worker wait."""
        death = self._death
        if partition in death.partitions and death.begin <= time < death.end:
            self._backlog.append((time, partition, record))
            return
        while self._backlog and time >= death.end:
            self._read(time, *self._backlog.pop(0))
        self._read(time, time, partition, record)

    def _read(self, wall_ms: int, time: int, partition: int, record: Record) -> None:
        """Process a record of a log.

        Args:
            wall_ms: Time of the clock, ms.
            time: Event time of the record, ms.
            partition: Partition of the log.
            record: The record.
        """
        accounts = self._shop.accounts[partition]
        if isinstance(record, BudgetLease):
            accounts.apply(record)
            return
        if isinstance(record, SpendReport):
            lease = self._shop.allocator.receive(record, self._shop.budgets.get)
            if lease is not None:
                self._result.records += 1
                self._write(wall_ms + RECORD_DELAY_MS, record.partition, lease)
            return
        for report in accounts.advance(time):
            self._result.records += 1
            self._write(wall_ms + RECORD_DELAY_MS, 0, report)
        if isinstance(record, Click):
            accounts.charge(_charge(record, time))
        else:
            self._show(wall_ms, partition, record)

    def _note_minutes(self, end: int) -> None:
        """Note spend and plan of the minutes up to a minute of the day."""
        shape, day = self._shop.allocator.shape, self._midnight // DAY_MS
        number_of = self._shop.number_of
        while self._minute < end:
            for accounts in self._shop.accounts:
                for campaign_id, account in accounts.campaigns.items() if accounts.day == day else ():
                    self._result.spent[self._minute, number_of[campaign_id]] += account.spent
            share = target_share("even", shape.share_between(0, DAY_MS, (self._minute + 1) * MINUTE_MS))
            for campaign_id, budget in self._shop.budgets.items():
                self._result.targets[self._minute, number_of[campaign_id]] = (budget.daily or 0) * share
            self._minute += 1

    def _show(self, wall_ms: int, partition: int, page: PageRecord) -> None:
        """Sell the slot of a page, and let the user click or not.

        Args:
            wall_ms: Time of the clock, ms.
            partition: Partition of the page.
            page: The page.
        """
        market, budgets, draws = self._shop.market, self._shop.budgets, page.draws
        own = market.by_category[page.category]
        if not own:
            return
        accounts = self._shop.accounts[partition]
        accounts.enter([market.campaigns[number].campaign_id for number in own])
        bidders: list[Bidder] = []
        traits: list[tuple[int, float, float]] = []
        for number, rate_draw, quality_draw in zip(own, draws[2::2], draws[3::2], strict=False):
            campaign = market.campaigns[number]
            probability = min(0.5, market.click_rates[number] * (0.25 + 2.25 * rate_draw * rate_draw))
            quality = 0.5 + quality_draw / 2
            traits.append((number, probability, quality))
            multiplier = accounts.multiplier(campaign.campaign_id) if budgets else 1.0
            if multiplier is not None:
                bidders.append(make_bidder(campaign, probability, quality, multiplier))
        ranked = rank(bidders)
        self._note_opportunities(ranked, traits)
        for sale in sell(ranked, SLOT, RESERVE, "second_price"):
            campaign_id, probability = sale.bidder.campaign.campaign_id, sale.bidder.probability
            self._result.values[self._shop.number_of[campaign_id]] += sale.bidder.campaign.bid * probability
            accounts.reserve(campaign_id, to_micros(sale.price * probability))
            if draws[0] < probability:
                delay = int(-log(1 - draws[1]) * CLICK_DELAY_MS)
                self._write(wall_ms + delay, partition, Click(campaign_id, to_micros(sale.price)))

    def _note_opportunities(self, ranked: Sequence[Bidder], traits: Sequence[tuple[int, float, float]]) -> None:
        """Note for each campaign of a page what the page was worth, and what it would have cost.

        Args:
            ranked: Campaigns that took part, the best first.
            traits: Number, probability and quality of each campaign, with or without a lease.
        """
        best = ranked[0] if ranked else None
        second = ranked[1].score if len(ranked) > 1 else 0.0
        for number, probability, quality in traits:
            campaign = self._shop.market.campaigns[number]
            rival = 0.0 if best is None else second if best.campaign is campaign else best.score
            value, cost = campaign.bid * probability, max(rival, RESERVE) / quality
            if cost <= value:
                self._result.opportunities[number].values.append(value)
                self._result.opportunities[number].costs.append(cost)


def _charge(click: Click, ts: int) -> AdCharge:
    """Return the charge of a click."""
    amount = click.price / MICROS
    return AdCharge(
        charge_id="",
        campaign_id=click.campaign_id,
        decision_id="",
        slot=0,
        placement="beside",
        bid_per="click",
        ts=ts,
        gross=amount,
        net=amount,
        reason="charged",
    )


def make_budgets(market: Market, pages: Pages, share: float, rng: np.random.Generator) -> dict[str, Budget]:
    """Return daily budgets; what can be spent of all is a share of what would be spent without budgets.

    Args:
        market: The campaigns.
        pages: Pages of a day.
        share: The share, 0 to 1.
        rng: Random numbers.
    """
    step = max(1, len(pages.times) // 20_000)
    sample = Pages(pages.times[::step], pages.partitions[::step], pages.categories[::step], pages.seed)
    shop = Shop(market, {}, int(pages.partitions.max()) + 1)
    shop.run(sample)
    spends = np.zeros(len(market.campaigns))
    for accounts in shop.accounts:
        for campaign_id, account in accounts.campaigns.items():
            spends[shop.number_of[campaign_id]] += account.expected * step
    amounts = np.exp(rng.gamma(GAMMA, 1.0, len(market.campaigns)))
    low, high = 0.0, float(spends.max())
    for _ in range(60):
        scale = (low + high) / 2
        too_much = np.minimum(amounts * scale, spends).sum() > share * spends.sum()
        low, high = (low, scale) if too_much else (scale, high)
    return {
        campaign.campaign_id: Budget(int(amount * low), None, to_micros(campaign.bid))
        for campaign, amount in zip(market.campaigns, amounts, strict=True)
    }


def offline_value(opportunities: Opportunities, budget: float) -> float:
    """Return the largest value that a campaign could have bought within a budget, at the prices of the day.

    Pages of nearly the same cost for a value are one variable of the linear program.

    Args:
        opportunities: Value and cost of each page.
        budget: Budget in the currency.
    """
    values, costs = np.array(opportunities.values), np.array(opportunities.costs)
    if not len(values):
        return 0.0
    order = np.argsort(costs / values)
    groups = np.array_split(order, min(len(order), MAX_VARIABLES))
    value = np.array([values[group].sum() for group in groups])
    cost = np.array([costs[group].sum() for group in groups])
    return -float(linprog(-value, A_ub=cost[None], b_ub=[budget], bounds=(0, 1), method="highs").fun)


class Verdict(NamedTuple):
    """How a day went."""

    spendable: NDArray[np.bool_]
    """Whether a campaign could spend its budget: all its pages together cost more."""
    small: NDArray[np.bool_]
    """Whether a budget pays for few clicks."""
    use: NDArray[np.float64]
    """Spend as a share of the budget."""
    distance: NDArray[np.float64]
    """Root mean square of the distance to the target curve, as a share of the budget."""
    optimum: NDArray[np.float64]
    """Value of the offline optimum."""
    overspend: int
    """Millionths above the budgets."""


def judge(run: Run, budgets: Mapping[str, Budget]) -> Verdict:
    """Return how a day went."""
    amounts = np.array([budget.daily or 0 for budget in budgets.values()])
    units = np.array([budget.unit for budget in budgets.values()])
    reachable = np.array([sum(opportunities.costs) * MICROS for opportunities in run.opportunities])
    distance = np.sqrt((((run.spent - run.targets) / amounts) ** 2).mean(axis=0))
    optimum = [
        offline_value(own, amount / MICROS) for own, amount in zip(run.opportunities, amounts.tolist(), strict=True)
    ]
    return Verdict(
        spendable=reachable > SPENDABLE * amounts,
        small=amounts < SMALL_UNITS * units,
        use=run.spent[-1] / amounts,
        distance=distance,
        optimum=np.array(optimum),
        overspend=int(np.maximum(0, run.spent[-1] - amounts).sum()),
    )


class Day(NamedTuple):
    """A simulated day, with and without the death of a worker."""

    budgets: Mapping[str, Budget]
    calm: Run
    killed: Run


def simulate(
    events: int, campaigns: int, partitions: int, seed: int, *, share: float = 0.4, takeover_ms: int = TAKEOVER_MS
) -> Day:
    """Simulate two days; on the second, half of the partitions lose their worker at noon, the allocator's included.

    Args:
        events: Pages of a day.
        campaigns: Number of campaigns.
        partitions: Number of partitions.
        seed: Seed of the random numbers.
        share: Spendable budgets as a share of what would be spent without budgets.
        takeover_ms: Time until the other worker goes on with the partitions, ms.
    """
    rng = np.random.default_rng(seed)
    market = make_market(campaigns, rng)
    first, second = (make_pages(FIRST_DAY + day, events, partitions, market, rng) for day in range(2))
    budgets = make_budgets(market, first, share, rng)
    shop = Shop(market, budgets, partitions)
    shop.run(first)
    restored_shop = copy.deepcopy(shop)
    noon = int(second.times[0]) // DAY_MS * DAY_MS + DAY_MS // 2
    death = Death(range(partitions // 2), noon, noon + takeover_ms)
    return Day(budgets, shop.run(second), restored_shop.run(second, death))


@click.command()
@click.option("--events", type=click.IntRange(min=1000), default=1_000_000, show_default=True, help="Pages of a day.")
@click.option("--campaigns", type=click.IntRange(1, 100), default=50, show_default=True, help="Campaigns.")
@click.option("--partitions", type=click.IntRange(min=2), default=4, show_default=True, help="Partitions.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random numbers.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write the curves as SVG.")
def main(events: int, campaigns: int, partitions: int, seed: int, plot: Path | None) -> None:
    """Print how the budgets of a simulated day were spent."""
    day = simulate(events, campaigns, partitions, seed)
    verdict = judge(day.killed, day.budgets)
    pacable = verdict.spendable
    if plot:
        plot.write_text(draw(day, verdict), encoding="utf-8")
    change = abs(day.killed.spent[-1] - day.calm.spent[-1]).sum() / day.calm.spent[-1].sum()
    total_change = abs(day.killed.spent[-1].sum() / day.calm.spent[-1].sum() - 1)
    print("| what | bar | measured |\n|---|---|---|")
    for name, bar, text in (
        ("campaigns that could spend their budget", "", f"{pacable.sum()} of {campaigns}"),
        ("of these, small budgets", "", f"{(pacable & verdict.small).sum()}"),
        ("use of the budget, lowest", "98 %", f"{verdict.use[pacable].min():.2%}"),
        ("use of the budget, all together", "98 %", f"{_total_use(day, pacable):.2%}"),
        ("distance to the target, large, mean", "3 %", f"{_mean(verdict.distance[pacable & ~verdict.small]):.2%}"),
        ("distance to the target, large, largest", "3 %", f"{_max(verdict.distance[pacable & ~verdict.small]):.2%}"),
        ("distance to the target, small, mean", "10 %", f"{_mean(verdict.distance[pacable & verdict.small]):.2%}"),
        ("distance to the target, small, largest", "10 %", f"{_max(verdict.distance[pacable & verdict.small]):.2%}"),
        ("value, of the offline optimum", "95 %", f"{day.killed.values.sum() / verdict.optimum.sum():.2%}"),
        ("spend changed by the death, in total", "0.5 %", f"{total_change:.3%}"),
        ("spend changed by the death, by campaign", "0.5 %", f"{change:.3%}"),
        ("overspend, millionths", "0", f"{verdict.overspend}"),
        ("shown but not chargeable", "0.5 %", f"{day.killed.uncharged / day.killed.spent[-1].sum():.3%}"),
        ("reports and leases", "", f"{day.killed.records}"),
    ):
        print(f"| {name} | {bar} | {text} |")
    if verdict.overspend:
        raise SystemExit(1)


def draw(day: Day, verdict: Verdict) -> str:
    """Return the curves of campaigns of all sizes that could spend their budget, as SVG."""
    amounts = np.array([budget.daily or 0 for budget in day.budgets.values()])
    units = amounts / np.array([budget.unit for budget in day.budgets.values()])
    groups: list[tuple[str, list[tuple[str, NDArray[np.float64]]]]] = []
    for title, chosen in (("large budgets", ~verdict.small), ("small budgets", verdict.small)):
        numbers = np.flatnonzero(verdict.spendable & chosen)
        numbers = numbers[np.argsort(amounts[numbers])]
        picked = numbers[np.linspace(0, len(numbers) - 1, min(4, len(numbers))).astype(int)]
        groups.append(
            (
                title,
                [(f"{units[number]:.0f} clicks", day.killed.spent[:, number] / amounts[number]) for number in picked],
            )
        )
    return draw_curves(groups, day.killed.targets[:, 0] / amounts[0])


def _total_use(day: Day, chosen: NDArray[np.bool_]) -> float:
    amounts = np.array([budget.daily or 0 for budget in day.budgets.values()])
    return float(day.killed.spent[-1][chosen].sum() / amounts[chosen].sum())


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _max(values: NDArray[np.float64]) -> float:
    return float(values.max()) if len(values) else 0.0


if __name__ == "__main__":
    main()
