"""HTML report: render a backtest as one self-contained page, for shop owners and data scientists."""

from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clickscore.backtest import narrative
from clickscore.backtest.intervals import Estimate
from clickscore.backtest.results import ArmResult, Results

SLICES = {
    "by-length": (
        "Early and late in a session",
        "Hit rate by the number of events of the session so far. Bands are 95 % intervals.",
    ),
    "by-answer": (
        "Repeats and discoveries",
        "Hit rate by the relation of the next item to the session. A repeat is an easy hit, and no discovery.",
    ),
    "by-user": (
        "New and known users",
        "New users had no earlier session in this log. At the start of the log all users are new.",
    ),
    "by-category": ("Categories", "The most frequent categories of the last item."),
    "by-hour": ("Hours of the day", "By the hour of the event, UTC."),
}
"""Title and caption of each plot of slices."""


def render_report(results: Results, plots: dict[str, str]) -> str:
    """Return the page as HTML.

    Args:
        results: Figures of the backtest.
        plots: SVG elements by name, from `backtest.plots`.
    """
    environment = Environment(
        loader=PackageLoader("clickscore.backtest", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    by_name = {(difference.arm, difference.metric): difference.by for difference in results.differences}
    return environment.get_template("report.html.jinja").render(
        results=results,
        plots=plots,
        k=results.cutoff,
        verdict=narrative.verdict(results),
        warnings=narrative.warnings(results),
        nature=narrative.NATURE,
        intervals=narrative.explain_intervals(results),
        leak_check=narrative.describe_leak_check(results),
        slices=[(name, *texts) for name, texts in SLICES.items() if name in plots],
        best=max(results.contenders, key=lambda arm: arm.ranking[f"hit_rate@{results.cutoff}"].value, default=None),
        by_name=by_name,
        describe=describe_arm,
        describe_places=narrative.describe_places,
        fallback=narrative.format_fallback,
        format_time=narrative.format_time,
        percent=narrative.format_percent,
        percent_cell=_percent_cell,
        decimal_cell=_decimal_cell,
        figure=partial(_render_figure, plots),
    )


def describe_arm(arm: ArmResult) -> str:
    """Return an arm's baseline or bundle, and the settings that differ from the common settings."""
    kind = f"baseline: {arm.baseline}" if arm.baseline else f"bundle {arm.bundle}"
    return "; ".join((kind, *(f"{name}={value}" for name, value in arm.settings.items())))


def _render_figure(plots: dict[str, str], name: str, title: str, caption: str) -> Markup:
    figure = Markup('<figure class="card" id="plot-{}" role="img" aria-label="{}"><h3>{}</h3>')
    caption_below = Markup("<figcaption>{}</figcaption></figure>").format(caption)
    return figure.format(name, f"{title}. {caption}", title) + Markup(plots[name]) + caption_below


def _percent_cell(figure: Estimate) -> Markup:
    return _render_cell(f"{100 * figure.value:.1f} %", f"{100 * figure.low:.1f} to {100 * figure.high:.1f}")


def _decimal_cell(figure: Estimate) -> Markup:
    return _render_cell(f"{figure.value:.3f}", f"{figure.low:.3f} to {figure.high:.3f}")


def _render_cell(value: str, interval: str) -> Markup:
    return Markup("<td>{}<small>{}</small></td>").format(value, interval)
