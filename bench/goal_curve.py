"""Goal curve: clicks against order value on a recorded log, by goals: `python -m bench.goal_curve EVENTS --bundle DIR`.

A log shows the actions of people who saw other lists. So a hit says how often a list has the next item, and no more.
The events need no prices: each item gets a random price, independent of all behaviour.
"""

import math
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import matplotlib as mpl
import msgspec
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clickscore.backtest.plots import COLOURS, STYLE, to_svg
from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.decisions import Recommendation
from clickscore.schemas.events import AnyEvent, ItemEvent, Purchase
from clickscore.stream.deciders import make_policy
from clickscore.stream.due_decisions import DecidedPage, DueDecision
from clickscore.stream.policy.experiments import unit_hash
from clickscore.stream.policy.goal_policy import Goals
from clickscore.stream.policy.pages import decide_page
from clickscore.stream.policy.policy_file import DEFAULT_POLICY
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.replay.decision_pass import load_scorer, watch_decisions
from clickscore.stream.replay.source_options import SourceOptions
from clickscore.stream.request import Scores
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings

MEDIAN_PRICE, PRICE_SPREAD = 20.0, 1.0
"""Median of the random prices, and standard deviation of the logarithm of a price."""
DRAWS = 1_000
"""Draws of users for the intervals (bootstrap)."""
GOALS = {
    "relevance alone": Goals(),
    "click 1, order 0.05": Goals(order=0.05),
    "click 1, order 0.2": Goals(order=0.2),
    "click 1, order 1": Goals(order=1.0),
    "order alone": Goals(click=0.0, order=1.0),
}


class _Shown(NamedTuple):
    """Lists of a past event, by goals."""

    session_id: str
    lists: Sequence[frozenset[str]]


def random_price(item: str) -> float:
    """Return a price that follows from the item's id alone, log-normal over items."""
    first, second = max(unit_hash("first", item), 1e-12), unit_hash("second", item)
    normal = math.sqrt(-2 * math.log(first)) * math.cos(2 * math.pi * second)  # Box and Muller, 1958
    return round(MEDIAN_PRICE * math.exp(PRICE_SPREAD * normal), 2)


class GoalWatch:
    """Decides on every event with each of the goals, and notes hits by user. An instance is a `DecisionWatch`."""

    def __init__(self, scorer: Scorer, settings: Settings) -> None:
        """Prepare the policies.

        Args:
            scorer: The model.
            settings: Settings of the worker.
        """
        policies = [msgspec.structs.replace(DEFAULT_POLICY, goals=goals) for goals in GOALS.values()]
        self._policies = [make_policy(policy, scorer, settings.policy) for policy in policies]
        self._newest: dict[str, _Shown] = {}
        self._in_session: dict[str, list[_Shown]] = defaultdict(list)
        self._users: dict[str, int] = {}
        self._rows: list[tuple[int, list[float]]] = []

    def __call__(self, case: DueDecision, scores: Scores | None, page: DecidedPage) -> None:
        """Judge the earlier lists of the user by this event, and make new lists."""
        del page
        request = case.request
        event, user = request.event, request.event.user_id
        self._judge(event, request.session_id)
        lists = [self._decide(policy, case, scores) for policy in self._policies]
        shown = _Shown(request.session_id, lists)
        self._newest[user] = shown
        earlier = self._in_session[user]
        if earlier and earlier[0].session_id != request.session_id:
            earlier.clear()
        earlier.append(shown)

    def _judge(self, event: AnyEvent, session_id: str) -> None:
        """Note hits and values: [next items, hits of each goal..., order value, shown order value of each goal...]."""
        if not isinstance(event, ItemEvent):
            return
        user, count = event.user_id, len(self._policies)
        row = [0.0] * (2 + 2 * count)
        newest = self._newest.get(user)
        if newest is not None and newest.session_id == session_id and not isinstance(event, Purchase):
            row[0] = 1.0
            row[1 : 1 + count] = [float(event.item_id in items) for items in newest.lists]
        earlier = self._in_session[user]
        if isinstance(event, Purchase) and earlier and earlier[0].session_id == session_id:
            price = random_price(event.item_id)
            row[1 + count] = price
            row[2 + count :] = [
                price * any(event.item_id in shown.lists[number] for shown in earlier) for number in range(count)
            ]
        if any(row):
            self._rows.append((self._users.setdefault(user, len(self._users)), row))

    def sums(self) -> NDArray[np.float64]:
        """Return the sums by user: (users, columns)."""
        sums = np.zeros((len(self._users), 2 + 2 * len(self._policies)))
        for user, row in self._rows:
            sums[user] += row
        return sums

    @staticmethod
    def _decide(policy: Policy, case: DueDecision, scores: Scores | None) -> frozenset[str]:
        recommendation, _ = decide_page(policy, case.request, scores, case.catalogue)
        return frozenset(choice.item_id for choice in _decode(recommendation.value).items)


class Share(NamedTuple):
    """A share in percent, or a difference of two shares in points, with the 95 % interval."""

    value: float
    low: float
    high: float


def estimate(sums: NDArray[np.float64], columns: tuple[int, int], base: int | None = None) -> Share:
    """Return a share, or a difference of two shares, with the interval over users.

    Args:
        sums: Sums by user: (users, columns).
        columns: Column of the hits, and column of the total.
        base: Column of the hits to compare with; None for the share itself.
    """
    rng = np.random.default_rng(0)
    hits = sums[:, columns[0]] - (sums[:, base] if base is not None else 0.0)
    total = sums[:, columns[1]]
    weights = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=DRAWS)  # (draws, users)
    low, high = np.quantile(100 * (weights @ hits) / (weights @ total), (0.025, 0.975)).tolist()
    return Share(100 * float(hits.sum() / total.sum()), low, high)


def draw_curve(sums: NDArray[np.float64]) -> Figure:
    """Return the change of order value against the change of hits, by goals."""
    count = len(GOALS)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    ax = figure.subplots()
    for number, name in enumerate(GOALS):
        x = estimate(sums, (1 + number, 0), 1)
        y = estimate(sums, (2 + count + number, 1 + count), 2 + count)
        ax.plot([x.low, x.high], [y.value] * 2, color=COLOURS[number], alpha=0.4)
        ax.plot([x.value] * 2, [y.low, y.high], color=COLOURS[number], alpha=0.4)
        ax.plot(x.value, y.value, "o", color=COLOURS[number], label=name)
    ax.set_xlabel("next item in the list, points")
    ax.set_ylabel("order value in the lists, points")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


@click.command()
@click.argument("events", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "file_format", default="auto", show_default=True, help="Format of the events.")
@click.option("--bundle", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the curve into this SVG file.")
def main(events: Path, file_format: str, bundle: Path, plot: Path | None) -> None:
    """Print hits on the next item and on order value for each of the goals, on events after those of the training."""
    settings = Settings.of(bundle=str(bundle), partitions=1)
    scorer = load_scorer(settings)
    assert scorer
    with tempfile.TemporaryDirectory() as folder:
        catalogue = Path(folder) / "items.jsonl"
        names = (bundle / "items.txt").read_text(encoding="utf-8").splitlines()
        catalogue.write_bytes(b"\n".join(encode(Item(item_id=name, price=random_price(name))) for name in names))
        options = SourceOptions(
            source=str(events),
            file_format=file_format,
            order="time",
            begin=None,
            end=None,
            warm_up_from=None,
            catalogue=catalogue,
        )
        watch = GoalWatch(scorer, settings)
        watch_decisions(settings, options.resolve(settings), (DEFAULT_POLICY, scorer), watch, lambda _: None)
    sums, count = watch.sums(), len(GOALS)
    total = sums.sum(axis=0)
    print(f"{total[0]:,.0f} next items, {total[1 + count]:,.0f} of order value, {len(sums):,} users\n")
    print("| goals | next item in the list, % | points | order value in the lists, % | points |\n|---|---|---|---|---|")
    for number, name in enumerate(GOALS):
        cells = [name]
        for hits, whole, base in ((1 + number, 0, 1), (2 + count + number, 1 + count, 2 + count)):
            share, change = estimate(sums, (hits, whole)), estimate(sums, (hits, whole), base)
            cells.append(f"{share.value:.1f} ({share.low:.1f} to {share.high:.1f})")
            cells.append(f"{change.value:+.1f} ({change.low:+.1f} to {change.high:+.1f})" if number else "")
        print(f"| {' | '.join(cells)} |")
    if plot:
        with mpl.rc_context(STYLE):
            plot.write_text(to_svg(draw_curve(sums), "goal-curve"), encoding="utf-8")


_decode = msgspec.json.Decoder(Recommendation).decode

if __name__ == "__main__":
    main()
