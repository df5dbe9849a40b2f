"""Clients: tell bots and agents from shoppers by declaration, by user agent and by the behaviour of a session.

A declaration counts before the user agent, and both count before behaviour. Behaviour makes bots only: agents that shop
for people behave as people do, and are known by their user agent.
"""

import re
from functools import lru_cache

import msgspec

from clickscore.schemas.clients import CLIENT_CODES, FIRST_MACHINE, ClientClass
from clickscore.schemas.events import Event
from clickscore.schemas.snapshots import UserState

MIN_EVENTS = 12
"""Smallest number of remembered events for a judgement by behaviour: fewer gaps are regular by chance, and a person may
open a few items at once, in tabs."""
JUDGED_EVERY = 4
"""Number of events between two judgements: a judgement takes about 10 us."""
QUICK_MS = 1_000
"""Gap of a quick step to another item, ms. A person needs more than a second to open an item's page and see it."""
QUICK_SHARE = 0.6
"""Share of quick steps from which on the rate is that of a program."""
REGULAR_SPREAD = 0.1
"""Standard deviation of the gaps by their mean, below which they are regular. People's gaps spread by more than 0.5."""
BROAD_EVENTS = 60
"""Smallest length of a session that only looks at ever new items, for a bot by breadth without depth."""
BROAD_SHARE = 0.95
"""Share of distinct items among the remembered views of such a session."""

_VIEW = 1  # action code of a view

_AGENTS = re.compile(r"chatgpt-user|claude-user|perplexity-user|mistralai-user|gemini-deep-research|novaact")
"""User agents of programs that act for a person, as their makers publish them, in lower case."""
_BOTS = re.compile(
    r"(?<!cu)bot\b|bot[/;)_-]|crawl|spider|slurp|scrap|headless|phantomjs|puppeteer|playwright|selenium"
    r"|python-requests|python-urllib|aiohttp|httpx|curl/|wget/|go-http-client|java/|okhttp-bot|libwww|facebookexternalhit"
)
"""Signs of bots in lower case; `cubot` is a make of telephones."""


def declared_code(event: Event) -> int:
    """Return the code of the class that an event states or that its user agent shows; 0 for none."""
    if event.client is not msgspec.UNSET:
        return CLIENT_CODES[ClientClass(event.client, "declared")]
    return user_agent_code(event.user_agent) if event.user_agent is not msgspec.UNSET else 0


@lru_cache(maxsize=4096)  # distinct user agents of a busy shop; a search takes 5 us
def user_agent_code(user_agent: str) -> int:
    """Return the code of the class that a user agent shows; 0 for a browser."""
    name = user_agent.lower()
    if _AGENTS.search(name):
        return CLIENT_CODES[ClientClass("agent", "user agent")]
    return CLIENT_CODES[ClientClass("bot", "user agent")] if _BOTS.search(name) else 0


def is_machine(user: UserState) -> bool:
    """Return whether a user is known as a bot or an agent, which is remembered as long as bought items are."""
    return user.client >= FIRST_MACHINE


def only_views_new_items(user: UserState) -> bool:
    """Return whether enough events are remembered for a judgement, and all are views, each of another item.

    A person returns to an item, searches, clicks or puts something into the cart at some time. A slow crawler never
    does, and is known as a bot only after `BROAD_EVENTS` events.
    """
    if len(user.items) < MIN_EVENTS or user.actions.count(_VIEW) < len(user.actions):
        return False
    return len(set(user.items)) == len(user.items)


def behaviour_code(user: UserState) -> int:
    """Return the code of the class that the remembered events of a session show; 0 for a shopper.

    Rate: most steps go to another item within a second. Regularity: the gaps are nearly equal.
    Breadth without depth: a long session of views alone, nearly all of items not seen before.
    """
    gaps = [later - earlier for earlier, later in zip(user.ages, user.ages[1:], strict=False)]
    if len(gaps) < MIN_EVENTS - 1:
        return 0
    quick = sum(
        gap < QUICK_MS and item != previous
        for gap, previous, item in zip(gaps, user.items, user.items[1:], strict=False)
    )
    if quick >= QUICK_SHARE * len(gaps):
        return CLIENT_CODES[ClientClass("bot", "rate")]
    mean = sum(gaps) / len(gaps)
    if sum((gap - mean) ** 2 for gap in gaps) < len(gaps) * (REGULAR_SPREAD * mean) ** 2:
        return CLIENT_CODES[ClientClass("bot", "regularity")]
    is_broad = user.length >= BROAD_EVENTS and user.actions.count(_VIEW) == len(user.actions)
    if is_broad and len(set(user.items)) >= BROAD_SHARE * len(user.items):
        return CLIENT_CODES[ClientClass("bot", "breadth")]
    return 0
