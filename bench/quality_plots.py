"""Quality plots: goals against clicks, and ad load against clicks and spend, as SVG."""

from collections.abc import Mapping, Sequence
from statistics import mean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.decision_arms import DEFAULT
from bench.paired_change import Change, paired_change
from bench.quality_page import Figure as FigureOf
from bench.quality_page import QualityResults, ad_share, ad_spend, click_rate, margin, revenue
from clickscore.backtest.plots import COLOURS, INK, STYLE, to_svg


def draw_quality_plots(results: QualityResults) -> dict[str, str]:
    """Return SVG documents by name."""
    with mpl.rc_context(STYLE):
        return {"goals": to_svg(_plot_goals(results), "goals"), "ads": to_svg(_plot_ads(results), "ads")}


def _plot_goals(results: QualityResults) -> Figure:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, 2)
    for ax, name, measure in zip(axes, ("revenue", "margin"), (revenue, margin), strict=True):
        for arm, tallies in results.goals.items():
            if arm == DEFAULT:
                ax.plot(0, 0, "o", color=INK)
                ax.annotate("relevance alone", (0, 0), textcoords="offset points", xytext=(6, -12), fontsize=8)
                continue
            x, y = (
                paired_change(list(map(figure_of, tallies)), list(map(figure_of, results.default)))
                for figure_of in (click_rate, measure)
            )
            _draw_point(ax, arm, x, y, COLOURS[1 if "order" in arm else 2])
        ax.set_xlabel("change of clicks, %")
        ax.set_ylabel(f"change of {name}, %")
    return figure


def _draw_point(ax: Axes, arm: str, x: Change, y: Change, colour: str) -> None:
    ax.plot([x.low, x.high], [y.value] * 2, color=colour, alpha=0.4)
    ax.plot([x.value] * 2, [y.low, y.high], color=colour, alpha=0.4)
    ax.plot(x.value, y.value, "s", color=colour, markersize=5)
    ax.annotate(
        arm.removeprefix("click 1, "), (x.value, y.value), textcoords="offset points", xytext=(5, 4), fontsize=8
    )


def _plot_ads(results: QualityResults) -> Figure:
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, 2)
    titles: Mapping[str, FigureOf] = {
        "clicks for 100 items that were read": click_rate,
        "spend for 100 visits": ad_spend,
    }
    for ax, (title, measure) in zip(axes, titles.items(), strict=True):
        for number, (arm, tallies) in enumerate(results.ads.items()):
            x, y = mean(map(ad_share, tallies)), mean(map(measure, tallies))
            ax.plot(x, y, "o", color=COLOURS[number], label=arm)
        ax.set_xlabel("ads among the items that were read, %")
        ax.set_title(title)
        ax.margins(y=0.1)
        ax.set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure
