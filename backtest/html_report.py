"""Report: a backtest as one HTML page that needs nothing beside it, for shopkeepers and data scientists."""

from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clickscore.backtest import narrative
from clickscore.backtest.intervals import Estimate
from clickscore.backtest.results import ArmResult, Results

SLICES = {
    "by-length": (
        "Early and late in a session",
        "By how much of the session was known. Bands are 95 % intervals.",
    ),
    "by-answer": (
        "Repeats and discoveries",
        "By how the next item stood to the session. The same item again is an easy hit, and no discovery.",
    ),
    "by-user": (
        "New and known users",
        "New users had no earlier session in this log; before it began, nobody is known.",
    ),
    "by-category": ("Categories", "The most frequent categories of the item that the user was at."),
    "by-hour": ("Hours of the day", "By the hour of the event, UTC."),
}
"""Title and caption of each plot of parts of the events."""


def render_report(results: Results, plots: dict[str, str]) -> str:
    """Return the page.

    Args:
        results: The figures.
        plots: SVG elements by name, see `backtest.plots`.
    """
    environment = Environment(
        loader=PackageLoader("clickscore.backtest", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    by_name = {(one.arm, one.metric): one.by for one in results.differences}
    return environment.get_template("report.html.jinja").render(
        results=results,
        plots=plots,
        k=results.cutoff,
        verdict=narrative.verdict(results),
        warnings=narrative.warnings(results),
        nature=narrative.NATURE,
        sureness=narrative.sureness(results),
        leak_words=narrative.leak_check(results),
        slices=[(name, *words_on_it) for name, words_on_it in SLICES.items() if name in plots],
        best=max(results.arms, key=lambda arm: arm.ranking[f"hit_rate@{results.cutoff}"].value),
        by_name=by_name,
        describe=describe,
        moment=narrative.moment,
        percent=narrative.percent,
        cell=_in_percent,
        plain=_plain,
        figure=partial(_figure, plots),
    )


def describe(arm: ArmResult) -> str:
    """Return what an arm is, in a few words."""
    kind = f"baseline: {arm.baseline}" if arm.baseline else f"bundle {arm.bundle}"
    return "; ".join((kind, *(f"{name}={value}" for name, value in arm.settings.items())))


def _figure(plots: dict[str, str], name: str, title: str, caption: str) -> Markup:
    figure = Markup('<figure class="card" id="plot-{}" role="img" aria-label="{}"><h3>{}</h3>')
    caption_below = Markup("<figcaption>{}</figcaption></figure>").format(caption)
    return figure.format(name, f"{title}. {caption}", title) + Markup(plots[name]) + caption_below


def _in_percent(of: Estimate) -> Markup:
    return _cell(f"{100 * of.value:.1f} %", f"{100 * of.low:.1f} to {100 * of.high:.1f}")


def _plain(of: Estimate) -> Markup:
    return _cell(f"{of.value:.3f}", f"{of.low:.3f} to {of.high:.3f}")


def _cell(value: str, interval: str) -> Markup:
    return Markup("<td>{}<small>{}</small></td>").format(value, interval)
