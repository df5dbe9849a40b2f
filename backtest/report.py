"""Report: a backtest as one HTML page that needs nothing beside it, for shopkeepers and data scientists."""

from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from backtest import words
from backtest.intervals import Estimate
from backtest.results import ArmResult, Results

CAPTIONS = {
    "by-length": "By how much of the session was known. Bands are 95 % intervals.",
    "by-answer": "By how the next item stood to the session. The same item again is an easy hit, and no discovery.",
    "by-user": "New users had no earlier session in this log; before it began, nobody is known.",
    "by-category": "The most frequent categories of the item that the user was at.",
    "by-hour": "By the hour of the event, UTC.",
}


def html(results: Results, plots: dict[str, str]) -> str:
    """Return the page.

    Args:
        results: The figures.
        plots: SVG elements by name, see `backtest.plots`.
    """
    environment = Environment(
        loader=PackageLoader("backtest", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    by_name = {(one.arm, one.metric): one.by for one in results.differences}
    return environment.get_template("report.html.jinja").render(
        results=results,
        plots=plots,
        k=results.cutoff,
        verdict=words.verdict(results),
        warnings=words.warnings(results),
        nature=words.NATURE,
        sureness=words.sureness(results),
        leak_words=words.leak_check(results),
        slice_plots=[(name, caption) for name, caption in CAPTIONS.items() if name in plots],
        by_name=by_name,
        describe=describe,
        moment=words.moment,
        percent=words.percent,
        cell=_in_percent,
        plain=_plain,
        figure=partial(_figure, plots),
    )


def describe(arm: ArmResult) -> str:
    """Return what an arm is, in a few words."""
    kind = f"baseline: {arm.baseline}" if arm.baseline else f"bundle {arm.bundle}"
    return "; ".join((kind, *(f"{name}={value}" for name, value in arm.settings.items())))


def _figure(plots: dict[str, str], name: str, caption: str) -> Markup:
    figure = Markup('<figure class="card" id="plot-{}" role="img" aria-label="{}">').format(name, caption)
    return figure + Markup(plots[name]) + Markup("<figcaption>{}</figcaption></figure>").format(caption)


def _in_percent(of: Estimate) -> Markup:
    return _cell(f"{100 * of.value:.1f} %", f"{100 * of.low:.1f} to {100 * of.high:.1f}")


def _plain(of: Estimate) -> Markup:
    return _cell(f"{of.value:.3f}", f"{of.low:.3f} to {of.high:.3f}")


def _cell(value: str, interval: str) -> Markup:
    return Markup("<td>{}<small>{}</small></td>").format(value, interval)
