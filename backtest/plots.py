"""Plots: draw the figures of a backtest as SVG, with text as text, and equal bytes for equal figures."""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from clickscore.backtest.intervals import Estimate
from clickscore.backtest.results import ArmResult, Results

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
# A palette for colour-blind readers, too: Okabe and Ito, "Color universal design", 2008. The first arm has INK.
COLOURS = (INK, "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b")
MARKERS = "osD^vPX*"

STYLE: Any = {  # matplotlib's names are a type of their own
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}

SLICE_TITLES = {
    "length": "events of the session so far",
    "hour": "hour of the day, UTC",
    "user": "user",
    "answer": "what the user turned to",
    "category": "category of the item at hand",
}
ORDERED = ("length", "hour")
"""Dimensions whose slices have an order and stand on an axis; other dimensions become a list."""


def draw_plots(results: Results) -> dict[str, str]:
    """Return an SVG document by name, for each plot with data in the figures."""
    makers: dict[str, Callable[[Results], Figure]] = {"ranking": plot_ranking, "differences": plot_differences}
    makers |= {"hit-rates": plot_hit_rates, "balance": plot_balance}
    if len(results.arms) == 1:
        del makers["differences"]
    if not results.ranked:
        makers = {}
    if any(arm.purchase for arm in results.arms):
        makers["reliability"] = plot_reliability
    documents: dict[str, str] = {}
    with mpl.rc_context(STYLE):
        for name, make in makers.items():
            documents[name] = to_svg(make(results), name)
        for dimension in SLICE_TITLES:
            if any(part.dimension == dimension for part in results.slices):
                documents[f"by-{dimension}"] = to_svg(plot_slices(results, dimension), dimension)
    return documents


def plot_ranking(results: Results) -> Figure:
    """Return hit rate, MRR and NDCG of each arm, with intervals."""
    arms, k = results.arms, results.cutoff
    figure = Figure(figsize=(9, 0.9 + 0.34 * len(arms)), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    titles = {f"hit_rate@{k}": f"hit rate at {k}, %", f"mrr@{k}": f"MRR at {k}, %", f"ndcg@{k}": f"NDCG at {k}, %"}
    for ax, (metric, title) in zip(axes, titles.items(), strict=True):
        _draw_dots(
            ax, [(arm.name, arm.ranking[metric]) for arm in arms], [_colour(number) for number in range(len(arms))]
        )
        ax.set_title(title)
        ax.set_xlim(left=0)
    return figure


def plot_differences(results: Results) -> Figure:
    """Return the paired difference of each arm's hit rate and the first arm's, with intervals."""
    metric = f"hit_rate@{results.cutoff}"
    estimates = [(difference.arm, difference.by) for difference in results.differences if difference.metric == metric]
    figure = Figure(figsize=(9, 0.9 + 0.34 * len(estimates)), layout="constrained")
    ax = figure.subplots()
    _draw_dots(ax, estimates, [_colour(number) for number in range(1, len(estimates) + 1)])
    ax.axvline(0, color=INK, linewidth=1)
    ax.set_title(f"hit rate at {results.cutoff} above that of {results.first.name}, percentage points")
    return figure


def plot_hit_rates(results: Results) -> Figure:
    """Return the hit rate by the length of the list."""
    figure, ax = _new_figure()
    for number, arm in _select_arms(results):
        lengths = range(1, len(arm.hit_rates) + 1)
        rates = [100 * rate for rate in arm.hit_rates]
        ax.plot(lengths, rates, color=_colour(number), marker=_marker(number), markersize=4, label=arm.name)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("items shown")
    ax.set_ylabel("hit rate, %")
    ax.set_ylim(bottom=0)
    _add_legend(figure, ax)
    return figure


def plot_balance(results: Results) -> Figure:
    """Return the hit rate against the coverage of the catalogue."""
    figure, ax = _new_figure()
    for number, arm in _select_arms(results):
        rate = arm.ranking[f"hit_rate@{results.cutoff}"].value
        ax.plot(100 * arm.coverage, 100 * rate, _marker(number), color=_colour(number), markersize=9, label=arm.name)
    ax.set_xlabel("coverage: items shown at least once, % of the catalogue")
    ax.set_ylabel(f"hit rate at {results.cutoff}, %")
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    _add_legend(figure, ax)
    return figure


def plot_reliability(results: Results) -> Figure:
    """Return the reliability plot: observed share of purchases against the predicted probability."""
    figure, ax = _new_figure()
    ax.axline((0, 0), slope=1, color=FAINT, linewidth=1, linestyle="--")
    limit = 1.0  # at least 1 % on both axes
    for number, arm in _select_arms(results):
        if arm.purchase is None:
            continue
        bins = arm.purchase.reliability
        shares = [part.happened for part in bins]
        _draw_line(ax, [100 * part.stated for part in bins], shares, number, arm.name)
        limit = max(limit, *(100 * part.stated for part in bins), *(100 * share.high for share in shares))
    ax.set_xlabel("stated probability of a purchase in what is left of the session, %")
    ax.set_ylabel("share in which one came, %")
    ax.set_xlim(0, 1.05 * limit)
    ax.set_ylim(0, 1.05 * limit)
    _add_legend(figure, ax)
    return figure


def plot_slices(results: Results, dimension: str) -> Figure:
    """Return the hit rate of each arm over the slices of a dimension."""
    parts = [part for part in results.slices if part.dimension == dimension]
    names = [part.name for part in parts]
    if dimension in ORDERED:
        figure, ax = _new_figure()
        for number, arm in _select_arms(results):
            _draw_line(ax, range(len(parts)), [part.hit_rate[arm.name] for part in parts], number, arm.name)
        labels = [f"{part.name}\n{_abbreviate(part.events)}" for part in parts]
        ax.set_xticks(range(len(parts)), labels, fontsize=7 if len(parts) > 12 else 9)
        ax.set_xlabel(f"{SLICE_TITLES[dimension]}; below it, events")
        ax.set_ylabel(f"hit rate at {results.cutoff}, %")
        ax.set_ylim(bottom=0)
        _add_legend(figure, ax)
        return figure
    figure = Figure(figsize=(9, 1.4 + 0.42 * len(parts)), layout="constrained")
    ax = figure.subplots()
    arms = _select_arms(results)
    for number, arm in arms:
        shift = 0.6 * (number / max(1, len(arms) - 1) - 0.5)
        rates = [part.hit_rate[arm.name] for part in parts]
        _draw_dots(
            ax,
            list(zip(names, rates, strict=True)),
            [_colour(number)] * len(parts),
            shift=shift,
            marker=number,
            label=arm.name,
        )
    ax.set_yticks(range(len(parts)), [f"{part.name} ({part.events:,})" for part in parts])
    ax.set_title(f"hit rate at {results.cutoff}, %, by {SLICE_TITLES[dimension]} (events)")
    ax.set_xlim(left=0)
    _add_legend(figure, ax)
    return figure


def _new_figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    return figure, figure.subplots()


def _select_arms(results: Results) -> list[tuple[int, ArmResult]]:
    """Return as many arms as there are colours: the first arm, and the best of the others, with new numbers."""
    metric = f"hit_rate@{results.cutoff}"
    ranked = sorted(enumerate(results.arms[1:], start=1), key=lambda pair: -pair[1].ranking[metric].value)
    selected = {0, *(number for number, _ in ranked[: len(COLOURS) - 1])}
    return [(colour, results.arms[number]) for colour, number in enumerate(sorted(selected))]


def _draw_dots(
    ax: Axes,
    estimates: Sequence[tuple[str, Estimate]],
    colours: Sequence[str],
    *,
    shift: float = 0.0,
    marker: int = 0,
    label: str = "",
) -> None:
    """Draw figures in percent as dots with their intervals, the first on top.

    Args:
        ax: Axes to draw on.
        estimates: Name and figure of each row.
        colours: Colour of each row.
        shift: Vertical shift, in rows, so that the dots of several arms do not cover each other.
        marker: Number of the marker.
        label: Entry of the legend; empty for no entry.
    """
    for row, ((_, figure), colour) in enumerate(zip(estimates, colours, strict=True)):
        ax.plot([100 * figure.low, 100 * figure.high], [row + shift] * 2, color=colour, linewidth=2, alpha=0.5)
        row_label = label if not row else ""
        ax.plot(100 * figure.value, row + shift, _marker(marker), color=colour, markersize=6, label=row_label or "_")
    ax.set_yticks(range(len(estimates)), [name for name, _ in estimates])
    ax.set_ylim(len(estimates) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")


def _draw_line(ax: Axes, x: Sequence[float], estimates: Sequence[Estimate], number: int, label: str) -> None:
    """Draw figures in percent as a line with the band of their intervals.

    Args:
        ax: Axes to draw on.
        x: Horizontal position of each figure.
        estimates: Figures.
        number: Number of the colour and the marker.
        label: Entry of the legend.
    """
    values = [100 * figure.value for figure in estimates]
    low, high = [100 * figure.low for figure in estimates], [100 * figure.high for figure in estimates]
    ax.plot(x, values, color=_colour(number), marker=_marker(number), markersize=4, label=label)
    ax.fill_between(x, low, high, color=_colour(number), alpha=0.12, lw=0)


def _add_legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside upper left", ncols=4)


def _colour(number: int) -> str:
    return COLOURS[number] if number < len(COLOURS) else FAINT


def _marker(number: int) -> str:
    return MARKERS[number % len(MARKERS)]


def _abbreviate(count: int) -> str:
    return f"{count / 1000:.0f}k" if count >= 10_000 else str(count)


def to_svg(figure: Figure, salt: str) -> str:
    """Return a figure as an SVG element without addresses and times.

    Args:
        figure: Figure to write.
        salt: Prefix of the ids in the element; several elements stand in one page, and ids must be unique there.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{salt}-', svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{salt}-", svg)
