"""Live view: show a demo on the terminal, in numbers and in sentences."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from clickscore.schemas.decisions import Choice, Recommendation
from clickscore.schemas.events import (
    AnyEvent,
    Cart,
    Click,
    Favourite,
    Impression,
    ItemEvent,
    Purchase,
    RemoveFromCart,
    Search,
)
from clickscore.stream.simulator.demo_metrics import Latency
from clickscore.stream.simulator.shop.live import Reactions
from clickscore.stream.terminal_text import safe_text

SHOWN = 3
"""Number of recommended items in a sentence."""

_NAMES = (
    *("Anna", "Ben", "Clara", "David", "Ella", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Kim", "Lena", "Max"),
    *("Nora", "Oskar", "Paula", "Quinn", "Rosa", "Sam", "Tilda", "Umut", "Vera", "Wim", "Xenia", "Yara", "Zoe"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """Numbers of the demo at one moment. None means that a number is not known yet."""

    seconds: float
    """Seconds since the shop opened."""
    events_per_s: float
    decisions_per_s: float
    """Recommendations and ads per second."""
    latency: Latency
    open_sessions: int | None
    lag: int | None
    dead_letters: int
    variants: Mapping[str, Reactions]
    shelves: Mapping[str, Reactions]
    sentences: Sequence[str]
    """Newest decisions as sentences, the newest sentence last."""


def render(title: str, frame: Frame) -> RenderableType:
    """Return the live view of a frame."""
    numbers = Table.grid(padding=(0, 2))
    numbers.add_column(style="dim")
    numbers.add_column(justify="right", style="bold")
    for name, value in (
        ("events/s", f"{frame.events_per_s:,.0f}"),
        ("decisions/s", f"{frame.decisions_per_s:,.0f}"),
        ("event to decision, p50", _ms(frame.latency.p50)),
        ("event to decision, p99", _ms(frame.latency.p99)),
        ("open sessions", _count(frame.open_sessions)),
        ("lag, events", _count(frame.lag)),
        ("dead letters", _count(frame.dead_letters)),
    ):
        numbers.add_row(name, value)
    variants = _reactions("shown by", frame.variants)
    sentences = Text("\n".join(frame.sentences) or "...", overflow="ellipsis", no_wrap=True)
    return Group(
        Text(title, style="bold"),
        Columns(
            [
                Panel(numbers, title=f"{frame.seconds:.0f} s"),
                Panel(variants, title="Shoppers' reactions"),
                *([Panel(_reactions("shelf", frame.shelves), title="Shelves")] if frame.shelves else []),
            ]
        ),
        Panel(sentences, title="Latest decisions"),
    )


def _reactions(heading: str, by_name: Mapping[str, Reactions]) -> Table:
    """Return a table of reactions by name.

    Args:
        heading: Heading of the names.
        by_name: The reactions.
    """
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column(heading)
    for column in ("impressions", "clicks", "per 100", "purchases"):
        table.add_column(column, justify="right")
    for name, reactions in sorted(by_name.items()):
        counts = (reactions.impressions, reactions.clicks)
        table.add_row(
            Text(safe_text(name)),
            *map(_count, counts),
            per_hundred(reactions),
            _count(reactions.purchases),
            style="bold",
        )
    return table


def line(frame: Frame) -> str:
    """Return a frame as one plain line."""
    reactions = ", ".join(
        f"{name} {reactions.clicks}/{reactions.impressions} clicked, {reactions.purchases} bought"
        for name, reactions in sorted(frame.variants.items())
    )
    return safe_text(
        f"{frame.seconds:4.0f} s  {frame.events_per_s:,.0f} events/s  {frame.decisions_per_s:,.0f} decisions/s  "
        f"p50 {_ms(frame.latency.p50)}  p99 {_ms(frame.latency.p99)}  open sessions {_count(frame.open_sessions)}  "
        f"lag {_count(frame.lag)}  dead letters {_count(frame.dead_letters)}  {reactions}"
    )


def sentence(event: AnyEvent, decision: Recommendation, titles: Mapping[str, str]) -> str:
    """Return an event and its recommendation as one sentence of safe text.

    Args:
        event: Action of the shopper.
        decision: Recommendation for the event.
        titles: Item titles by item id.
    """
    names = [_name(choice, titles) for choice in decision.items[:SHOWN]]
    more = ", ..." if len(decision.items) > SHOWN else ""
    shelves = "".join(
        f"; {shelf.name}: {_name(shelf.items[0], titles)}, ..." for shelf in decision.shelves or () if shelf.items
    )
    shows = f"we show {', '.join(names)}{more}" if names else "we show nothing"
    chance = "" if decision.purchase is None else f" (purchase {decision.purchase:.0%})"
    return safe_text(f"{pseudonym(event.user_id)} {_deed(event, titles)} → {shows}{shelves}{chance}")


def _name(choice: Choice, titles: Mapping[str, str]) -> str:
    """Return the title of a shown item; an ad is marked."""
    return titles.get(choice.item_id, choice.item_id) + (" (ad)" if choice.sponsored else "")


def pseudonym(user_id: str) -> str:
    """Return a short name for a user that hides the user id. The same user always gets the same name."""
    digest = hashlib.blake2b(user_id.encode(), digest_size=8).digest()
    return f"{_NAMES[digest[0] % len(_NAMES)]}-{digest[1:3].hex()}"


def per_hundred(reactions: Reactions) -> str:
    """Return the number of clicks per hundred impressions."""
    return f"{100 * reactions.clicks / reactions.impressions:.1f}" if reactions.impressions else "-"


def _deed(event: AnyEvent, titles: Mapping[str, str]) -> str:
    if isinstance(event, Search):
        return f"searched for “{event.query}”"
    title = titles.get(event.item_id, event.item_id)
    return _DEEDS.get(type(event), "looked at {}").format(title)


_DEEDS: dict[type[ItemEvent], str] = {
    Cart: "put {} into the cart",
    RemoveFromCart: "took {} out of the cart",
    Favourite: "wishes for {}",
    Purchase: "bought {}",
    Click: "clicked on {}",
    Impression: "was shown {}",
}


def _ms(value: int | None) -> str:
    return "-" if value is None else f"{value:,} ms"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
