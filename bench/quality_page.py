"""Quality page: docs/decisions-quality.md from the counts of the simulated shops."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean

import msgspec

from bench.closed_loop import EVENTS_PER_SECOND, ShopTally
from bench.decision_arms import CAMPAIGNS, SHELVES
from bench.paired_change import paired_change

Tallies = Mapping[str, Sequence[ShopTally]]
"""Counts of each round, by arm."""


class QualityResults(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of all arms."""

    rounds: int
    seconds: int
    """Simulated opening time of a shop."""
    default: Sequence[ShopTally]
    """Counts of the default policy: the control."""
    rules: Tallies
    shelves: Tallies
    diversity: Tallies
    goals: Tallies
    ads: Tallies


def click_rate(tally: ShopTally) -> float:
    """Return the expected clicks for 100 read items."""
    return 100 * tally.expected_clicks / tally.impressions


def visit_clicks(tally: ShopTally) -> float:
    """Return the expected clicks for 100 visits, on all shelves."""
    return 100 * tally.expected_clicks / tally.visits


def categories(tally: ShopTally) -> float:
    """Return the mean number of categories of a list."""
    return tally.categories / tally.pages


def order_rate(tally: ShopTally) -> float:
    """Return the expected orders of recommended items for 1,000 visits."""
    return 1_000 * tally.expected_orders / tally.visits


def revenue(tally: ShopTally) -> float:
    """Return the revenue of the expected orders for 100 visits."""
    return 100 * tally.revenue / tally.visits


def margin(tally: ShopTally) -> float:
    """Return the margin of the expected orders for 100 visits."""
    return 100 * tally.margin / tally.visits


def ad_spend(tally: ShopTally) -> float:
    """Return the spend of advertisers for 100 visits."""
    return 100 * tally.ad_spend / tally.visits


def ad_share(tally: ShopTally) -> float:
    """Return the share of ads among the read items, in percent."""
    return 100 * tally.ads / tally.impressions


Figure = Callable[[ShopTally], float]

_HEAD = """# What decisions are worth
In the simulated shop the shoppers react, and what they like is known. So it can say what no log can: what a rule, a
shelf, a goal or an ad costs and brings. `make bench-decisions` writes this page and its plots: {rounds} shops of
{seconds} simulated seconds with {rate:.0f} events a second, the demo's bundle, and the same shoppers for every line.
The intervals (95 %, Student's t, paired) are over the shops. They say nothing of a shop with other habits.

- **Clicks** are for 100 items that were read, by the true probability of a click on each.
- **Orders** are of items that were clicked, in the same visit, for 1,000 visits: the true probability of a click, times
  the probability that a shopper in this state then buys the item. A sold-out item is not bought.
- **Revenue** is the price of these orders, for 100 visits.

Expectations have less noise than counts. For the default policy {clicks:,} clicks were counted, and
{expected_clicks:,.0f} were expected. {orders} orders were counted, and {expected_orders:.0f} were expected: most visits
go on when their shop closes, and the expectation assumes that the shopper clicks no further recommendation. So compare
the lines, and do not read the orders as a forecast.
"""

_RULES = """
## Rules
Each line is compared with the default policy. `oracle of the tastes` knows what each shopper looks for and likes, and
shows the items in stock with the highest probability of a click. The rule `hide.unavailable` has no line: here every
item is sold everywhere.

"""

_SHELVES = """
## Shelves
The policy `shelves` shows further lists below the first ([`policy.md`](policy.md#shelves)), so clicks are for 100
visits here, on all shelves. A shopper who clicks nothing on a shelf looks at the next as likely as at the first. All
lines are compared with one plain list: what a shelf is worth is the difference from `shelves`. `complement` and
`buy_again` stay empty in so short a time, since they need purchases of many users, or of the user's earlier visits.

"""

_SHELF_CLICKS = """
What each shelf of `shelves` gets, counted over all shops. A shopper reads lower shelves only without a click above:

"""

_DIVERSITY = """
## Diversity
`diversity` ([`policy.md`](policy.md#diversity)) trades likeness for variety: the mean number of categories among the
items of a list says how much. A shopper here looks for items of one category. A shop whose visitors look around may
find otherwise.

"""

_GOALS = """
## Goals
`[goals]` of a policy ([`policy.md`](policy.md#goals)) moves a list from relevance towards money. Each item got a
random margin of 10 to 60 % of the price. These shoppers do not look at prices: clicks and purchases depend on the fit
of an item. A real shop that shows dearer items loses more orders than this one.

![Clicks against revenue, and against margin](plots/decisions-goals.svg)

"""

_RECORDED = """
On recorded events of JD.com, whose shoppers saw other lists, the same goals lose hits and bring nothing back. The log
cannot show what people would have bought: [`policy.md`](policy.md#goals) has the table, and the commands.

![Order value against hits on the next item, on recorded events](plots/jdata-goals.svg)
"""

_ADS = """
## Ad load
{campaigns} campaigns bid for the places 2, 5 and 8 of the list, each on the pages of its item's category. A sponsored
item is clicked like any other item of the same fit. A floor of 0.5 means: an ad has at least half the quality of the
item that it displaces.

![Clicks and spend against the share of ads](plots/decisions-ads.svg)

"""

_PACING = """
## Pacing
How campaigns spend their daily budgets on a simulated day of 1,000,000 pages, beside the plan:
[`ads.md`](ads.md#pacing) says what they reach.

![Spend of large and small budgets over the day, beside the plan](plots/pacing.svg)
"""


def render_page(results: QualityResults) -> str:
    """Return the page in Markdown."""
    default = results.default
    head = _HEAD.format(
        rounds=results.rounds,
        seconds=results.seconds,
        rate=EVENTS_PER_SECOND,
        clicks=sum(tally.clicks for tally in default),
        expected_clicks=sum(tally.expected_clicks for tally in default),
        orders=sum(tally.orders for tally in default),
        expected_orders=sum(tally.expected_orders for tally in default),
    )
    parts = [
        head,
        _RULES,
        _table(results.rules, default, {"clicks": click_rate, "orders": order_rate, "revenue": revenue}),
        _SHELVES,
        _table(results.shelves, default, {"clicks": visit_clicks, "orders": order_rate, "revenue": revenue}),
        _SHELF_CLICKS,
        _shelf_table(results.shelves[SHELVES]),
        _DIVERSITY,
        _table(
            results.diversity,
            default,
            {"clicks": click_rate, "orders": order_rate, "revenue": revenue},
            plain={"categories": categories},
        ),
        _GOALS,
        _table(results.goals, default, {"clicks": click_rate, "revenue": revenue, "margin": margin}),
        _RECORDED,
        _ADS.format(campaigns=CAMPAIGNS),
        _table(
            results.ads,
            default,
            {"clicks": click_rate, "revenue": revenue},
            plain={"ads, %": ad_share, "spend for 100 visits": ad_spend},
        ),
        _PACING,
    ]
    return "".join(parts)


def _shelf_table(tallies: Sequence[ShopTally]) -> str:
    """Return a table of the counted reactions to each shelf."""
    names = dict.fromkeys(name for tally in tallies for name in tally.shelves)
    pages = sum(tally.pages for tally in tallies)
    lines = [_row(["shelf", "items read for 100 pages", "clicks for 100 items that were read"]), _row(["---"] * 3)]
    for name in names:
        shown = [tally.shelves[name] for tally in tallies if name in tally.shelves]
        read, clicks = sum(counts.impressions for counts in shown), sum(counts.clicks for counts in shown)
        lines.append(_row([f"`{name}`", f"{100 * read / pages:.1f}", f"{100 * clicks / max(1, read):.1f}"]))
    return "\n".join(lines) + "\n"


def _table(
    arms: Tallies,
    control: Sequence[ShopTally],
    figures: Mapping[str, Figure],
    plain: Mapping[str, Figure] | None = None,
) -> str:
    """Return a table with each figure and the change from the control.

    Args:
        arms: Counts by arm.
        control: Counts of the control.
        figures: Figures to compare with the control.
        plain: Figures without a comparison.
    """
    plain = plain or {}
    titles = ["decisions", *plain]
    for name in figures:
        titles += [name, "change"]
    lines = [_row(titles), _row(["---"] * len(titles))]
    for arm, tallies in arms.items():
        cells = [arm, *(f"{mean(map(figure, tallies)):.1f}" for figure in plain.values())]
        for figure in figures.values():
            values, controls = list(map(figure, tallies)), list(map(figure, control))
            cells += [f"{mean(values):.1f}", "" if values == controls else str(paired_change(values, controls))]
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
