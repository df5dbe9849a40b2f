"""Plots: the figures of a backtest as SVG, with text that stays text, and the same bytes for the same figures."""

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
# Told apart by the colour-blind, too: Okabe and Ito, "Color universal design", 2008; the first arm is ink.
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
IN_ORDER = ("length", "hour")
"""Slices that stand on an axis in their order; others are a list."""


def plots(results: Results) -> dict[str, str]:
    """Return all plots that the figures give something for: SVG documents by name."""
    makers: dict[str, Callable[[Results], Figure]] = {"ranking": ranking, "differences": differences}
    makers |= {"hit-rates": hit_rates, "balance": balance}
    if len(results.arms) == 1:
        del makers["differences"]
    if not results.ranked:
        makers = {}
    if any(arm.purchase for arm in results.arms):
        makers["reliability"] = reliability
    found: dict[str, str] = {}
    with mpl.rc_context(STYLE):
        for name, make in makers.items():
            found[name] = _svg(make(results), name)
        for of in SLICE_TITLES:
            if any(part.of == of for part in results.slices):
                found[f"by-{of}"] = _svg(slices(results, of), of)
    return found


def ranking(results: Results) -> Figure:
    """Return hit rate, reciprocal rank and NDCG of each arm, with intervals."""
    arms, k = results.arms, results.cutoff
    figure = Figure(figsize=(9, 0.9 + 0.34 * len(arms)), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    titles = {f"hit_rate@{k}": f"hit rate at {k}, %", f"mrr@{k}": f"MRR at {k}, %", f"ndcg@{k}": f"NDCG at {k}, %"}
    for ax, (metric, title) in zip(axes, titles.items(), strict=True):
        _dots(ax, [(arm.name, arm.ranking[metric]) for arm in arms], [_colour(at) for at in range(len(arms))])
        ax.set_title(title)
        ax.set_xlim(left=0)
    return figure


def differences(results: Results) -> Figure:
    """Return by how much each other arm is above the first in hit rate, with intervals."""
    metric = f"hit_rate@{results.cutoff}"
    found = [(one.arm, one.by) for one in results.differences if one.metric == metric]
    figure = Figure(figsize=(9, 0.9 + 0.34 * len(found)), layout="constrained")
    ax = figure.subplots()
    _dots(ax, found, [_colour(at) for at in range(1, len(found) + 1)])
    ax.axvline(0, color=INK, linewidth=1)
    ax.set_title(f"hit rate at {results.cutoff} above that of {results.first.name}, percentage points")
    return figure


def hit_rates(results: Results) -> Figure:
    """Return the hit rate at each length of the list."""
    figure, ax = _single(results)
    for at, arm in _drawn(results):
        places = range(1, len(arm.hit_rates) + 1)
        rates = [100 * rate for rate in arm.hit_rates]
        ax.plot(places, rates, color=_colour(at), marker=_marker(at), markersize=4, label=arm.name)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("items shown")
    ax.set_ylabel("hit rate, %")
    ax.set_ylim(bottom=0)
    _legend(figure, ax)
    return figure


def balance(results: Results) -> Figure:
    """Return hit rate against the share of the catalogue that is shown."""
    figure, ax = _single(results)
    for at, arm in _drawn(results):
        rate = arm.ranking[f"hit_rate@{results.cutoff}"].value
        ax.plot(100 * arm.coverage, 100 * rate, _marker(at), color=_colour(at), markersize=9, label=arm.name)
    ax.set_xlabel("coverage: items shown at least once, % of the catalogue")
    ax.set_ylabel(f"hit rate at {results.cutoff}, %")
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    _legend(figure, ax)
    return figure


def reliability(results: Results) -> Figure:
    """Return in how many cases a purchase came, against the probability that was stated."""
    figure, ax = _single(results)
    ax.axline((0, 0), slope=1, color=FAINT, linewidth=1, linestyle="--")
    most = 1.0
    for at, arm in _drawn(results):
        if arm.purchase is None:
            continue
        bins = arm.purchase.reliability
        shares = [of.happened for of in bins]
        _with_bars(ax, [100 * of.stated for of in bins], shares, at, arm.name)
        most = max(most, *(100 * of.stated for of in bins), *(100 * share.high for share in shares))
    ax.set_xlabel("stated probability of a purchase in what is left of the session, %")
    ax.set_ylabel("share in which one came, %")
    ax.set_xlim(0, 1.05 * most)
    ax.set_ylim(0, 1.05 * most)
    _legend(figure, ax)
    return figure


def slices(results: Results, of: str) -> Figure:
    """Return the hit rate of each arm over the parts of the judged events."""
    parts = [part for part in results.slices if part.of == of]
    names = [part.name for part in parts]
    if of in IN_ORDER:
        figure, ax = _single(results)
        for at, arm in _drawn(results):
            _with_bars(ax, range(len(parts)), [part.hit_rate[arm.name] for part in parts], at, arm.name)
        labels = [f"{part.name}\n{_short(part.events)}" for part in parts]
        ax.set_xticks(range(len(parts)), labels, fontsize=7 if len(parts) > 12 else 9)
        ax.set_xlabel(f"{SLICE_TITLES[of]}; below it, events")
        ax.set_ylabel(f"hit rate at {results.cutoff}, %")
        ax.set_ylim(bottom=0)
        _legend(figure, ax)
        return figure
    figure = Figure(figsize=(9, 1.4 + 0.42 * len(parts)), layout="constrained")
    ax = figure.subplots()
    drawn = _drawn(results)
    for at, arm in drawn:
        shift = 0.6 * (at / max(1, len(drawn) - 1) - 0.5)
        rates = [part.hit_rate[arm.name] for part in parts]
        _dots(
            ax, list(zip(names, rates, strict=True)), [_colour(at)] * len(parts), shift=shift, marker=at, label=arm.name
        )
    ax.set_yticks(range(len(parts)), [f"{part.name} ({part.events:,})" for part in parts])
    ax.set_title(f"hit rate at {results.cutoff}, %, by {SLICE_TITLES[of]} (events)")
    ax.set_xlim(left=0)
    _legend(figure, ax)
    return figure


def _single(results: Results) -> tuple[Figure, Axes]:
    del results
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    return figure, figure.subplots()


def _drawn(results: Results) -> list[tuple[int, ArmResult]]:
    """Return the arms that a plot can hold: the first, and of the others the best."""
    metric = f"hit_rate@{results.cutoff}"
    others = sorted(enumerate(results.arms[1:], start=1), key=lambda pair: -pair[1].ranking[metric].value)
    kept = {0, *(at for at, _ in others[: len(COLOURS) - 1])}
    return [(number, results.arms[at]) for number, at in enumerate(sorted(kept))]


def _dots(
    ax: Axes,
    found: Sequence[tuple[str, Estimate]],
    colours: Sequence[str],
    *,
    shift: float = 0.0,
    marker: int = 0,
    label: str = "",
) -> None:
    """Draw figures in percent as dots with their intervals, the first on top."""
    for place, ((_, of), colour) in enumerate(zip(found, colours, strict=True)):
        ax.plot([100 * of.low, 100 * of.high], [place + shift] * 2, color=colour, linewidth=2, alpha=0.5)
        shown = label if not place else ""
        ax.plot(100 * of.value, place + shift, _marker(marker), color=colour, markersize=6, label=shown or "_")
    ax.set_yticks(range(len(found)), [name for name, _ in found])
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")


def _with_bars(ax: Axes, places: Sequence[float], found: Sequence[Estimate], at: int, label: str) -> None:
    values = [100 * of.value for of in found]
    ax.plot(places, values, color=_colour(at), marker=_marker(at), markersize=4, label=label)
    ax.fill_between(
        places, [100 * of.low for of in found], [100 * of.high for of in found], color=_colour(at), alpha=0.12, lw=0
    )


def _legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside upper left", ncols=4)


def _colour(at: int) -> str:
    return COLOURS[at] if at < len(COLOURS) else FAINT


def _marker(at: int) -> str:
    return MARKERS[at % len(MARKERS)]


def _short(count: int) -> str:
    return f"{count / 1000:.0f}k" if count >= 10_000 else str(count)


def _svg(figure: Figure, salt: str) -> str:
    """Return a figure as an SVG element, without what would name an address or a time."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Several stand in one page: names within must differ between them.
    svg = re.sub(r'\bid="', f'id="{salt}-', svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{salt}-", svg)
