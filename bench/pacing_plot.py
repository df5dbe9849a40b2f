"""Pacing plot: how campaigns spent their budgets over a simulated day, beside the plan, as SVG."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clickscore.backtest.plots import COLOURS, FAINT, INK, STYLE, to_svg


def draw_curves(
    curves: Sequence[tuple[str, Sequence[tuple[str, NDArray[np.float64]]]]], plan: NDArray[np.float64]
) -> str:
    """Return the curves of groups of campaigns side by side.

    Args:
        curves: For each group its title, and name and spend by minute (share of the budget) of each campaign.
        plan: Planned spend by minute, as a share of the budget.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)
        hours = np.arange(1, len(plan) + 1) / 60
        for ax, (title, campaigns) in zip(axes[0], curves, strict=True):
            for number, (name, spend) in enumerate(campaigns):
                colour = COLOURS[1 + number % (len(COLOURS) - 1)]
                ax.plot(hours[::10], 100 * spend[::10], color=colour, linewidth=1, label=name)
            ax.plot(hours[::10], 100 * plan[::10], color=INK, linewidth=1.5, linestyle="--", label="plan")
            ax.axvline(12, color=FAINT, linewidth=1)
            ax.set_title(title)
            ax.set_xlabel("hour; a worker dies at 12")
            ax.set_xlim(0, 24)
            ax.set_xticks(range(0, 25, 6))
            ax.legend()
        axes[0][0].set_ylabel("spent, % of the daily budget")
        axes[0][0].set_ylim(bottom=0)
        return to_svg(figure, "pacing")
